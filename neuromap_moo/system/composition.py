"""YAML files laid over those that their `defaults` name, by OmegaConf, as Hydra lays configurations over each other.

One rule is added, for numbers with a source: what is said of a number does not hold for the number that replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.files import config_folder
from neuromap_moo.system.costs import BRACKET
from neuromap_moo.system.topology import GIVEN

YAML_ENDINGS = (".yaml", ".yml")

#: Files that lie over each other by their `defaults`.
MOST_LAYERS = 8

#: What OmegaConf takes besides the values of YAML: numpy's numbers and whatever else is refused later, by its key.
ANYTHING = {"allow_objects": True}


def presets() -> list[str]:
    """Names of the systems that come with the package."""
    return sorted(p.stem for p in (config_folder() / "system").glob("*.yaml") if p.stem != "file")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; raises InputError that names it where it holds something else."""
    if not path.is_file():
        raise InputError(f"system file '{path}': no such file (or it is a folder); give a path from '{Path.cwd()}'")
    try:
        data = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException, OSError) as error:
        raise InputError(
            f"system file '{path}': expected YAML, got something else ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(data, dict) or not data:
        raise InputError(f"system file '{path}': expected a mapping, got {repr(data)[:60] if data else 'nothing'}")
    return {str(key): value for key, value in data.items()}


def layers_of(name_or_path: str | Path, depth: int = 0) -> list[dict[str, Any]]:
    """Return the contents of a system's YAML and of all below it, the lowest first.

    Parameters
    ----------
    name_or_path
        A preset's name, or the path of a YAML file.
    depth
        Of files whose `defaults` led here.

    Raises
    ------
    InputError
        For unknown presets, files that cannot be read, and defaults that are no list of presets and files.

    """
    path = Path(name_or_path)
    if path.suffix not in YAML_ENDINGS:
        return list(_layers_of_preset(str(name_or_path)))
    data = read_yaml(path)
    bases = data.pop("defaults", ["_self_"])
    is_list = isinstance(bases, list) and all(isinstance(base, str) for base in bases)
    if depth > MOST_LAYERS or not is_list or bases[-1:] != ["_self_"]:
        raise InputError(f"system file '{path}', defaults: expected presets and then _self_, got {bases!r}")
    below: list[dict[str, Any]] = []
    for base in bases[:-1]:
        beside = path.parent / base
        below += layers_of(beside if beside.suffix in YAML_ENDINGS else base, depth + 1)
    return [*below, data]


@cache
def _layers_of_preset(name: str) -> tuple[dict[str, Any], ...]:
    """As `layers_of`; they are read once, since what comes with the package does not change."""
    if name not in presets():
        raise InputError(
            f"system '{name}': no such preset{did_you_mean(name, presets())} (or give the path of a .yaml file)"
        )
    return tuple(layers_of(config_folder() / "system" / f"{name}.yaml"))


def composed(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay mappings over each other, the lowest first, and resolve `${...}`; raises InputError where that fails.

    A value given without a source loses the source and the bracket of the one below, and a topology of another type
    stands in place of the one below, since it has other keys.

    Examples
    --------
    >>> below = {"t_synop_s": {"value": 1e-9, "unit": "s", "source": "a paper", "kind": "published"}}
    >>> composed([below, {"t_synop_s": {"value": 2e-9}}])["t_synop_s"]["source"]
    'given by the user'

    """
    lowest, *others = layers
    try:
        whole = OmegaConf.create(dict(lowest), flags=ANYTHING)
        for layer in others:
            below, above = _reconciled(_plain(whole), layer)
            whole = OmegaConf.create(below, flags=ANYTHING)
            whole.merge_with(above)
        return _plain(whole, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(
            f"system: its values cannot be laid over each other ({' '.join(str(error).split())})"
        ) from error


def _plain(data: DictConfig, resolve: bool = False) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(data, resolve=resolve))


def _reconciled(below: Mapping[str, Any], above: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both without what no longer holds below, and with what now holds above."""
    kept, laid = dict(below), dict(above)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            types = {part["type"] for part in (old, value) if "type" in part}
            kept[key], laid[key] = ({}, value) if len(types) == 2 else _reconciled(old, value)
    if above.get("value", below.get("value")) != below.get("value"):
        kept = {key: value for key, value in kept.items() if key not in BRACKET}
        laid |= {} if "source" in above else GIVEN
    return kept, laid
