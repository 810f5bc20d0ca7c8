"""The user's constraints: where layers and slices may sit, and how many cores and neurons per core a layer takes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from neuromap_moo.arrays import BoolArray, IntArray
from neuromap_moo.errors import InputError, did_you_mean, finite_number, whole_number
from neuromap_moo.system.system import System

#: Keys that say where the slices of a layer may sit; a layer with several must meet them all.
REGIONS = ("cores", "routers", "chips", "rows", "region")
NEURONS = ("min_neurons_per_core", "max_neurons_per_core")
LIMITS = ("min_cores", "max_cores", *NEURONS)


@dataclass(frozen=True, eq=False)
class LayerConstraints:
    """What one layer has to keep to; None or empty: nothing.

    Parameters
    ----------
    cores, routers, chips
        Ids, one or several, on which its slices must sit.
    rows
        y, one or several, of the routers at which they must sit, counted over all chips.
    region
        (x0, y0, x1, y1) of the routers at which they must sit, ends included.
    fixed
        Core of single slices by their index in the layer: a layer with slice j fixed has at least j + 1 cores, and no
        other slice may take that core.
    min_cores, max_cores
        Bounds of its number of cores.
    min_neurons_per_core, max_neurons_per_core
        Bounds of the neurons of its slices.

    Raises
    ------
    InputError
        For what contradicts itself, with the key.

    """

    cores: tuple[int, ...] | None = None
    routers: tuple[int, ...] | None = None
    chips: tuple[int, ...] | None = None
    rows: tuple[float, ...] | None = None
    region: tuple[float, float, float, float] | None = None
    fixed: Mapping[int, int] = field(default_factory=dict)
    min_cores: int | None = None
    max_cores: int | None = None
    min_neurons_per_core: int | None = None
    max_neurons_per_core: int | None = None

    def __post_init__(self) -> None:
        """Check every part; messages begin with its key."""
        for key in ("cores", "routers", "chips"):
            object.__setattr__(self, key, _ids(key, getattr(self, key)))
        object.__setattr__(self, "rows", _rows(self.rows))
        object.__setattr__(self, "region", _region(self.region))
        if not isinstance(self.fixed, Mapping):
            raise InputError(f"fixed: expected core ids by slice index, as in {{0: 17}}, got {self.fixed!r:.60}")
        fixed = {_index(j): whole_number(f"fixed, slice {j}", core) for j, core in self.fixed.items()}
        object.__setattr__(self, "fixed", dict(sorted(fixed.items())))
        self._check_limits()

    def _check_limits(self) -> None:
        for key in LIMITS:
            if getattr(self, key) is not None:
                whole_number(key, getattr(self, key), 1)
        for low, high in (("min_cores", "max_cores"), NEURONS):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise InputError(f"{low}: {least} is more than {high}, {most}; lower one or raise the other")

    @property
    def content(self) -> dict[str, Any]:
        """What is given, in the form of a YAML."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None and v != {}}


@dataclass(frozen=True, eq=False)
class Constraints:
    """Constraints by layer name, and groups of layers that must share a chip; compared by content digest.

    Parameters
    ----------
    layers
        By name; each a `LayerConstraints` or a dict of its parameters. The layers of a core graph are its nodes.
    same_chip
        Groups of layer names: each sits on one chip with all slices of all its layers. A group of a single layer keeps
        that layer together.

    Raises
    ------
    InputError
        For what contradicts itself, with layer and key.

    Examples
    --------
    >>> Constraints({"hidden": {"rows": [0, 1], "min_cores": 4}}, [["hidden", "output"]]).to_dict()
    {'layers': {'hidden': {'rows': [0, 1], 'min_cores': 4}}, 'same_chip': [['hidden', 'output']]}

    """

    layers: Mapping[str, LayerConstraints] = field(default_factory=dict)
    same_chip: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        """Check all that can be checked without a network and a system."""
        if not isinstance(self.layers, Mapping):
            raise InputError(f"constraints, layers: expected constraints by layer name, got {self.layers!r:.60}")
        layers = {str(name): _layer(str(name), given) for name, given in self.layers.items()}
        object.__setattr__(self, "layers", {name: layer for name, layer in layers.items() if layer.content})
        groups = () if self.same_chip is None else self.same_chip
        listed = isinstance(groups, Sequence) and not isinstance(groups, str)
        if not listed or not all(isinstance(g, Sequence) and not isinstance(g, str) and g for g in groups):
            raise InputError(
                f"constraints, same_chip: expected lists of layer names, as in [[a, b]], got {groups!r:.60}"
            )
        object.__setattr__(self, "same_chip", tuple(tuple(str(name) for name in group) for group in groups))
        self._check_fixed()

    def _check_fixed(self) -> None:
        """Raise InputError where two slices are fixed on one core."""
        owner: dict[int, str] = {}
        for name, layer in self.layers.items():
            for j, core in layer.fixed.items():
                if core in owner:
                    raise InputError(
                        f"constraints: core {core} is fixed for {owner[core]} and for '{name}' slice {j}; "
                        "a core holds one slice"
                    )
                owner[core] = f"'{name}' slice {j}"

    @classmethod
    def from_config(cls, given: Constraints | Mapping[str, Any] | str | os.PathLike[str] | None) -> Constraints:
        """Take constraints as they are, as a dict in the form of a YAML, or from a YAML file; None is no constraint."""
        if isinstance(given, Constraints):
            return given
        if isinstance(given, (str, os.PathLike)):
            given = _read_yaml(Path(given))
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise InputError(f"constraints: expected layers and same_chip, or the path of a YAML, got {given!r:.60}")
        _only("constraints", given, ("layers", "same_chip"))
        return cls(given.get("layers") or {}, given.get("same_chip") or ())

    def __bool__(self) -> bool:
        """Tell whether there is any constraint."""
        return bool(self.layers or self.same_chip)

    def to_dict(self) -> dict[str, Any]:
        """Return the constraints in the form of a YAML; {} where there are none."""
        data: dict[str, Any] = {}
        if self.layers:
            data["layers"] = {name: layer.content for name, layer in self.layers.items()}
        if self.same_chip:
            data["same_chip"] = [list(group) for group in self.same_chip]
        return data

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content; the order of layers and groups does not count."""
        data = self.to_dict()
        data["same_chip"] = sorted(sorted(group) for group in data.get("same_chip", ()))
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constraints) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def check_names(self, layer_names: Sequence[str]) -> None:
        """Raise InputError for a layer that the network has not, or a name that several nodes of a core graph have."""
        for where, names in (("layers", self.layers), *(("same_chip", group) for group in self.same_chip)):
            for name in names:
                if name not in layer_names:
                    raise InputError(f"constraints, {where}: no layer '{name}'{did_you_mean(name, layer_names)}")
                if layer_names.count(name) > 1:
                    raise InputError(f"constraints, {where}: {layer_names.count(name)} layers are called '{name}'")

    def groups(self, layer_names: Sequence[str]) -> list[list[int]]:
        """Layer indices of each same_chip group; groups that share a layer are one."""
        index = {name: i for i, name in enumerate(layer_names)}
        merged: list[set[int]] = []
        for group in self.same_chip:
            new = {index[name] for name in group}
            apart = [g for g in merged if not g & new]
            merged = [*apart, new.union(*(g for g in merged if g & new))]
        return sorted(sorted(g) for g in merged)

    def places(self, layer_names: Sequence[str], system: System) -> BoolArray:
        """(L, n_cores): on which usable cores slices that are not fixed may sit; raises InputError where on none."""
        allowed = np.tile(np.isin(np.arange(system.n_cores), system.usable_cores), (len(layer_names), 1))
        for i, name in enumerate(layer_names):
            layer = self.layers.get(name)
            if layer is None:
                continue
            where = f"constraints, layer '{name}'"
            given = [key for key in REGIONS if getattr(layer, key) is not None]
            for key in given:
                allowed[i] &= _inside(f"{where}, {key}", key, getattr(layer, key), system)
            if not allowed[i].any():
                raise InputError(f"{where}: {' and '.join(given)} leave no usable core; widen one of them")
            for j, core in layer.fixed.items():
                if core >= system.n_cores or core in system.masked_cores:
                    why = "is masked out" if core < system.n_cores else f"is not in 0..{system.n_cores - 1}"
                    raise InputError(f"{where}, fixed: slice {j} on core {core}, which {why} on '{system.name}'")
                if not allowed[i, core]:
                    raise InputError(
                        f"{where}, fixed: slice {j} on core {core}, which lies outside the layer's "
                        f"{' and '.join(given)}; move it or widen them"
                    )
        for layer in self.layers.values():
            allowed[:, list(layer.fixed.values())] = False
        return allowed

    def limit(
        self, fits: BoolArray, layer_names: Sequence[str], sizes: Sequence[int] | None, system: System
    ) -> BoolArray:
        """Return which of the core counts that fit (L, C + 1) the constraints leave for each layer.

        `sizes` are neurons per layer, None for a core graph. Raises InputError where none is left.
        """
        if not self:
            return fits
        self.check_names(layer_names)
        limited = fits.copy()
        places = self.places(layer_names, system)
        chip = system.chip_of_router[system.router_of_core]
        grouped = {i for group in self.groups(layer_names) for i in group}
        count = np.arange(fits.shape[1])
        for i, name in enumerate(layer_names):
            layer = self.layers.get(name, LayerConstraints())
            if sizes is None and any(getattr(layer, key) is not None for key in NEURONS):
                raise InputError(
                    f"constraints, layer '{name}': a core graph has no neurons to count; leave out {NEURONS}"
                )
            own = np.array(list(layer.fixed.values()), dtype=np.int64)
            free = np.union1d(np.flatnonzero(places[i]), own)
            what = [key for key in REGIONS if getattr(layer, key) is not None]
            bounds = [_Bound(free.size, f"usable cores{' in its ' if what else ''}{' and '.join(what)}")]
            if i in grouped:
                bounds.append(_Bound(int(np.bincount(chip[free], minlength=1).max()), "usable cores on one chip"))
            _bound(limited[i], f"constraints, layer '{name}'", layer, sizes[i] if sizes else 0, bounds, count)
        return limited


class _Bound(NamedTuple):
    cores: int
    reason: str


def _bound(
    fits: BoolArray, where: str, layer: LayerConstraints, size: int, upper: list[_Bound], count: IntArray
) -> None:
    """Take from the counts that fit one layer (C + 1,) those that its constraints forbid, in place."""
    fitting = np.flatnonzero(fits)
    lower = [_Bound(int(fitting[0]), "to fit")]
    upper = [_Bound(int(fitting[-1]), "to fit"), *upper]
    if layer.fixed:
        last = max(layer.fixed)
        lower.append(_Bound(last + 1, f"slice {last} is fixed"))
    if layer.min_cores is not None:
        lower.append(_Bound(layer.min_cores, "min_cores"))
    if layer.max_cores is not None:
        upper.append(_Bound(layer.max_cores, "max_cores"))
    if layer.max_neurons_per_core is not None:
        fewest = -(-size // layer.max_neurons_per_core)
        lower.append(_Bound(fewest, f"max_neurons_per_core {layer.max_neurons_per_core} of {size} neurons"))
    if layer.min_neurons_per_core is not None:
        largest = size // layer.min_neurons_per_core
        upper.append(_Bound(largest, f"min_neurons_per_core {layer.min_neurons_per_core} of {size} neurons"))
    least, most = max(lower, key=lambda b: b.cores), min(upper, key=lambda b: b.cores)
    fits &= (count >= least.cores) & (count <= most.cores)
    if least.cores > most.cores:
        raise InputError(
            f"{where}: needs at least {least.cores} cores ({least.reason}) and can have at most {most.cores} "
            f"({most.reason}); relax one of the two"
        )
    if not fits.any():
        raise InputError(
            f"{where}: between {least.cores} cores ({least.reason}) and {most.cores} ({most.reason}) no number of "
            "slices fits its cores; relax one of the two"
        )


def _rows(given: Any) -> tuple[float, ...] | None:
    if given is None:
        return None
    return tuple(sorted({_number("rows", v) for v in _some("rows", [given] if np.isscalar(given) else given)}))


def _region(given: Any) -> tuple[float, ...] | None:
    if given is None:
        return None
    corners = tuple(_number("region", v) for v in _some("region", given))
    if len(corners) != 4 or corners[0] > corners[2] or corners[1] > corners[3]:
        raise InputError(f"region: expected [x0, y0, x1, y1] with x0 <= x1, y0 <= y1, got {list(corners)}")
    return corners


def _inside(where: str, key: str, given: Any, system: System) -> BoolArray:
    """(n_cores,): which cores one of REGIONS leaves."""
    router = system.router_of_core
    if key in ("cores", "routers", "chips"):
        tables: dict[str, NDArray[Any]] = {
            "cores": np.arange(system.n_cores),
            "routers": router,
            "chips": system.chip_of_router[router],
        }
        n = int(tables[key].max()) + 1
        if given[-1] >= n:
            raise InputError(f"{where}: expected ids in 0..{n - 1} of system '{system.name}', got {given[-1]}")
        return np.isin(tables[key], given)
    xy = system.router_xy
    if xy is None:
        raise InputError(f"{where}: the routers of system '{system.name}' have no coordinates; use routers or cores")
    if key == "rows":
        missing = [f"{y:g}" for y in given if y not in xy[:, 1]]
        if missing:
            low, high = xy[:, 1].min(), xy[:, 1].max()
            raise InputError(f"{where}: no router of '{system.name}' has y {missing[0]}; they lie in {low:g}..{high:g}")
        return np.isin(xy[router, 1], given)
    low, high = np.array(given[:2]), np.array(given[2:])
    inside: BoolArray = np.all((xy >= low) & (xy <= high), axis=1)
    return inside[router]


def _layer(name: str, given: Any) -> LayerConstraints:
    where = f"constraints, layer '{name}'"
    if isinstance(given, LayerConstraints):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{where}: expected keys such as rows or min_cores, got {given!r:.60}")
    given = {str(key): value for key, value in (given or {}).items()}
    _only(where, given, [f.name for f in fields(LayerConstraints)])
    if given.get("fixed", {}) is None:
        del given["fixed"]
    try:
        return LayerConstraints(**given)
    except InputError as error:
        raise InputError(f"{where}, {error}") from error


def _only(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{did_you_mean(str(key), known)}")


def _some(key: str, values: Any) -> list[Any]:
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable) or not (listed := list(values)):
        raise InputError(f"{key}: expected a list of numbers, got {values!r:.60}")
    return listed


def _ids(key: str, values: Any) -> tuple[int, ...] | None:
    if values is None:
        return None
    return tuple(sorted({whole_number(key, v) for v in _some(key, [values] if np.isscalar(values) else values)}))


def _number(key: str, value: Any) -> float:
    """Return a coordinate, a whole one as an int."""
    number = finite_number(key, value, -np.inf)
    return int(number) if number == int(number) else number


def _index(given: Any) -> int:
    """Return a slice index; keys that come from a command line are text."""
    if isinstance(given, str) and given.isdecimal():
        return int(given)
    return whole_number("fixed, slice index", int(given) if isinstance(given, Integral) else given)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"constraints '{path}': cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"constraints '{path}': expected YAML, got something else ({why})") from error
