"""Put a placement into Lava's compiler, for the length of a compile.

    from neuromap_moo.workers.lava_placement import placed

    with placed("placement.json"):
        network.run(condition=RunSteps(100), run_cfg=Loihi2HwCfg())

`task=export` writes such files. Lava's Mapper hands out virtual cores 0, 1, 2, ... in the order in which it meets the
logical cores of one process after the other; here it meets the same cores and hands out the ids of the placement. So
resources, variables and ports stay consistent, whatever else the Mapper does. Needs lava-nc and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCHEMA = 1

#: (chip, core) of each slice by the name of its process.
Plan = Mapping[str, list[tuple[int, int]]]


class PlacementError(Exception):
    """The placement and the compiled network do not belong together."""


def read_placement(path: str | os.PathLike[str]) -> dict[str, list[tuple[int, int]]]:
    """Return (chip, core) of each slice by process name; PlacementError for anything that is no placement file.

    Input layers are left out: in Lava a host process or an embedded one feeds them.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise PlacementError(f"'{path}': expected schema {SCHEMA}, got {data['schema']}")
        layers = {
            str(layer["process"]): [(int(chip), int(core)) for chip, core in layer["cores"]]
            for layer in data["layers"]
            if layer.get("kind") != "input"
        }
    except OSError as error:
        raise PlacementError(f"'{path}': cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PlacementError(
            f"'{path}': expected a file that task=export wrote, got something else ({error})"
        ) from error
    taken = [place for places in layers.values() for place in places]
    if len(set(taken)) < len(taken):
        raise PlacementError(f"'{path}': two slices sit on the same core")
    return layers


@contextmanager
def placed(placement: str | os.PathLike[str] | Mapping[str, Any], exact: bool = False) -> Iterator[list[Any]]:
    """Have all compiles inside the block use a placement: a file, or what `read_placement` returns.

    The ids that Lava would use for the processes of the placement are permuted: slices get them in the order of their
    cores, and other processes keep theirs. With `exact` the cores of the placement are used as they are. Yields a
    list that takes each Mapper that was at work; `table` of one tells what went where. Raises PlacementError in the
    compile where a process has another number of cores than the placement has slices of it.
    """
    from lava.magma.compiler import compiler

    plan = placement if isinstance(placement, Mapping) else read_placement(placement)
    made: list[Any] = []
    before = compiler.Mapper

    class Placed(_mapper(before)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(plan, exact)
            made.append(self)

    compiler.Mapper = Placed
    try:
        yield made
    finally:
        compiler.Mapper = before


def _mapper(vendor: type) -> type:
    """Return a Mapper that walks as the vendor's and counts cores as a plan says."""
    from lava.magma.compiler.compiler_utils import split_proc_builders_by_type
    from lava.magma.compiler.mapper import NUM_VIRTUAL_CORES_L2, NUM_VIRTUAL_CORES_L3, N3LogicalNeuroCore

    class Mapper(vendor):
        def __init__(self, plan: Plan, exact: bool) -> None:
            self.plan, self.exact = plan, exact
            self.table: dict[str, list[int]] = {}  # virtual ids by process name, in the order of its logical cores
            self._ids: list[list[int]] = []  # of each process in turn
            self._process, self._next = 0, 0
            super().__init__()
            self.mapper_core_dict = _Forgetful(self._next_process)

        @property
        def mapper_core_offset(self) -> int:
            return self._ids[self._process][self._next] if self._ids else 0

        @mapper_core_offset.setter
        def mapper_core_offset(self, value: int) -> None:
            self._next += bool(self._ids)

        def _next_process(self) -> None:
            self._process, self._next = self._process + 1, 0

        def map_cores(self, executable: Any, channel_map: Any) -> None:
            _, _, builders = split_proc_builders_by_type(executable.proc_builders)
            names = [process.name for process in builders]
            missing = [name for name in self.plan if name not in names]
            if missing:
                raise PlacementError(
                    f"no process {missing[0]!r} was compiled for neurocores; there are {sorted(names)}"
                )
            counts = [_cores_of(builder) for builder in builders.values()]
            per_chip = [
                NUM_VIRTUAL_CORES_L3
                if isinstance(builder.compiled_resources[0], N3LogicalNeuroCore)
                else NUM_VIRTUAL_CORES_L2
                for builder in builders.values()
            ]
            _check_plan(self.plan, names, counts, per_chip, self.exact)
            vendor_ids = _vendor_ids(counts)
            if self.exact:
                self._ids = _exact_ids(self.plan, names, vendor_ids, per_chip)
            else:
                self._ids = _permuted_ids(self.plan, names, vendor_ids)
            self.table = {name: ids[:count] for name, ids, count in zip(names, self._ids, counts, strict=True)}
            super().map_cores(executable, channel_map)

    return Mapper


def _check_plan(plan: Plan, names: list[str], counts: list[int], per_chip: list[int], exact: bool) -> None:
    """Raise PlacementError for a process of another number of cores, and with `exact` for a core that no chip has."""
    for name, count, n in zip(names, counts, per_chip, strict=True):
        places = plan.get(name)
        if places is not None and len(places) != count:
            raise PlacementError(
                f"process {name!r}: expected {len(places)} cores, as many as the placement has slices of it; "
                f"Lava cut it into {count}"
            )
        for chip, core in places or () if exact else ():
            if core >= n:
                raise PlacementError(f"process {name!r}: core {core} of chip {chip}; a chip has {n} virtual cores")


def _vendor_ids(counts: list[int]) -> list[list[int]]:
    """Return the virtual ids by process that the vendor's Mapper would hand out."""
    first = 0
    ids = []
    for count in counts:
        ids.append(list(range(first, first + count)))
        first += count
    return ids


def _exact_ids(plan: Plan, names: list[str], vendor_ids: list[list[int]], per_chip: list[int]) -> list[list[int]]:
    """Return the cores of the plan as they are; other processes get what is free, from the lowest id on."""
    chosen = {
        name: [chip * n + core for chip, core in plan[name]]
        for name, n in zip(names, per_chip, strict=True)
        if name in plan
    }
    taken = {i for ids in chosen.values() for i in ids}
    free = (i for i in range(sum(map(len, vendor_ids)) + len(taken)) if i not in taken)
    return [chosen.get(name) or [next(free) for _ in ids] for name, ids in zip(names, vendor_ids, strict=True)]


def _permuted_ids(plan: Plan, names: list[str], vendor_ids: list[list[int]]) -> list[list[int]]:
    """Return the vendor's ids, those of planned processes handed out in the order of the plan's cores."""
    order = sorted(place for places in plan.values() for place in places)
    ids = sorted(i for name, row in zip(names, vendor_ids, strict=True) if name in plan for i in row)
    id_of = dict(zip(order, ids, strict=True))
    return [
        [id_of[place] for place in plan[name]] if name in plan else row
        for name, row in zip(names, vendor_ids, strict=True)
    ]


class _Forgetful(dict):  # type: ignore[type-arg]
    """A dict that says when it is cleared, as the Mapper does after each process."""

    def __init__(self, on_clear: Any) -> None:
        super().__init__()
        self._on_clear = on_clear

    def clear(self) -> None:
        super().clear()
        self._on_clear()


def _cores_of(builder: Any) -> int:
    """Count the logical cores that the Mapper will meet in a builder."""
    mappables = [
        *(port for port in builder.io_ports.values() if port.var_model is not None),
        *builder.var_id_to_var_model_map.values(),
        *builder.var_ports.values(),
    ]
    ids = {resource.l_address.core_id for resource in builder.compiled_resources}
    return len(ids.union(*({a.core_id for a in mappable.get_logical()} for mappable in mappables)))
