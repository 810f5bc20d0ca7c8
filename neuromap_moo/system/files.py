"""Systems from presets, YAML files and keyword arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.files import config_folder
from neuromap_moo.system.costs import BRACKET, Constant
from neuromap_moo.system.topology import (
    GIVEN,
)

YAML_ENDINGS = (".yaml", ".yml")


def presets() -> list[str]:
    """Names of the systems that come with the package."""
    return sorted(p.stem for p in (config_folder() / "system").glob("*.yaml") if p.stem != "file")


def read_system_yaml(name_or_path: str | Path, depth: int = 0) -> dict[str, Any]:
    """Read a preset or a YAML file, laid over the presets and files that its `defaults` name."""
    path = Path(name_or_path)
    if path.suffix not in YAML_ENDINGS:
        if str(name_or_path) not in presets():
            raise InputError(
                f"system '{name_or_path}': no such preset{did_you_mean(str(name_or_path), presets())}"
                " (or give the path of a .yaml file)"
            )
        path = config_folder() / "system" / f"{name_or_path}.yaml"
    if not path.is_file():
        raise InputError(f"system file '{path}': no such file (or it is a folder); give a path from '{Path.cwd()}'")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"system file '{path}': expected YAML, got something else ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(data, dict):
        raise InputError(
            f"system file '{path}': expected a mapping, got {'nothing' if data is None else repr(data)[:60]}"
        )
    bases = data.pop("defaults", ["_self_"])
    if (
        depth > 8
        or not isinstance(bases, list)
        or not all(isinstance(b, str) for b in bases)
        or bases[-1:] != ["_self_"]
    ):
        raise InputError(f"system file '{path}', defaults: expected presets and then _self_, got {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases[:-1]:
        beside = path.parent / base
        merged = merge(merged, read_system_yaml(beside if beside.suffix in YAML_ENDINGS else base, depth + 1))
    return merge(merged, data)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one system's data over another's; a value given without a source loses the source of the one below."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            # A topology of another type has other keys: it stands in place of the one below.
            another = len({part["type"] for part in (old, value) if "type" in part}) == 2
            value = value if another else merge(old, value)
        merged[key] = value
    if above.get("value", below.get("value")) != below.get("value"):
        # Bracket and source below spoke of another number.
        merged = {k: v for k, v in merged.items() if k not in BRACKET or k in above}
        merged |= {} if "source" in above else GIVEN
    return merged


def constants_of(where: str, data: Mapping[str, Any], prefix: str = "") -> dict[str, Constant]:
    """Return the constants of nested data by their full names, such as `e_link_j.chip`."""
    constants: dict[str, Constant] = {}
    for key, entry in data.items():
        full = f"{prefix}{key}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where}.{full}: expected value, unit, source and kind, got {entry!r}")
        if "value" not in entry and all(isinstance(v, Mapping) for v in entry.values()):
            constants |= constants_of(where, entry, f"{full}.")
            continue
        for part in ("value", "unit", "source", "kind"):
            if part not in entry:
                raise InputError(f"{where}.{full}: '{part}' is missing; expected value, unit, source and kind")
        for part in entry:
            if part not in Constant.__dataclass_fields__:
                raise InputError(
                    f"{where}.{full}: unknown key '{part}'{did_you_mean(part, Constant.__dataclass_fields__)}"
                )
        value, low, high = (_number(entry.get(part)) for part in ("value", "low", "high"))
        constants[full] = Constant(value, str(entry["unit"]), str(entry["source"]), str(entry["kind"]), low, high)
    return constants


def _number(given: Any) -> Any:
    """Return a number where YAML 1.1 reads text, as in 4e-9 without a point; what is none is refused later."""
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            return float(given)
    return given


def nested(constants: Mapping[str, Constant]) -> dict[str, Any]:
    """Return constants as nested data; the inverse of `constants_of`."""
    data: dict[str, Any] = {}
    for key, c in constants.items():
        head, _, tail = key.partition(".")
        entry = {"value": c.value, "unit": c.unit, "kind": c.kind, "source": c.source}
        if c.low is not None:
            entry |= {"low": c.low, "high": c.high}
        if tail:
            data.setdefault(head, {})[tail] = entry
        else:
            data[head] = entry
    return data
