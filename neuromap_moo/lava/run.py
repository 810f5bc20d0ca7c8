"""Compile, place and run one Lava network: python run.py WHAT JOB.json RESULT.npz PREFIX.

WHAT is `names` (of the processes that cores belong to), `place` (compile through the stand-ins for Intel's extension,
and tell which virtual cores the Mapper handed out), `spikes` (run on the CPU in fixed point) or `measure` (run on
Loihi 2 with one probe). The job is a JSON object, see `lava_board`. Lava may hang or leave processes and shared memory
behind: the caller sets a time limit, and `keeper` cleans up.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from neuromap_moo.lava import stand_in
from neuromap_moo.lava.placement import PlacementError, placed
from neuromap_moo.lava.reader import UNNAMED
from neuromap_moo.lava.worker import RefusedError, found_processes, joined_processes, kind_of, name_shared_memory, sent

#: Exit codes where nothing went wrong but what was asked for cannot be had.
REFUSED, IMPOSSIBLE = 2, 3

Job = Mapping[str, Any]


class ExtensionError(RefusedError):
    """Intel's extension is not there."""


def main() -> int:
    """Do what the arguments say; code REFUSED where nothing can be measured, IMPOSSIBLE where this mapping cannot."""
    what, job_path, result, prefix = sys.argv[1:]
    name_shared_memory(prefix)
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    work = {"names": names, "place": place, "spikes": spikes, "measure": run_on_chip}
    try:
        arrays = work[what](job)
    except (RefusedError, PlacementError) as error:
        print(f"run: {error}", file=sys.stderr)
        return REFUSED if what == "names" or isinstance(error, ExtensionError) else IMPOSSIBLE
    save_arrays(result, arrays)
    return 0


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz of arrays with any names; numpy's own savez has arguments that some of them may have."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as f:
                np.lib.format.write_array(f, np.asarray(array), allow_pickle=False)


def names(job: Job) -> dict[str, np.ndarray]:
    """Return the layers that have no process; refuses a Lava that cannot measure."""
    if job["on_chip"]:
        _extension()
    found = {name for name, _ in _named(_network(job, whole=False))}
    missing = [layer for layer in job["placement"] if found.isdisjoint({layer, f"{layer}[0]"})]
    return {"missing": np.array([layer for layer in missing if layer not in job["inputs"]], dtype=str)}


def place(job: Job) -> dict[str, np.ndarray]:
    """Return virtual cores (n,) by process, as Lava's Mapper hands them out to what the stand-ins compile."""
    stand_in.install()
    from lava.magma.core.run_configs import Loihi2HwCfg

    processes = _network(job, whole=False)
    plan = _plan(job, processes)
    classes = {type(p) for p in processes if p.name in plan or kind_of(p) not in ("input", "sink")}
    config = Loihi2HwCfg(exception_proc_model_map=stand_in.models(classes))
    cores = {name: len(places) for name, places in plan.items()}
    with placed(plan, job["exact"]) as made, _many_processes():
        processes[0].compile(config, {"stand_in_cores": cores})
    return {name: np.array(ids) for name, ids in made[0].table.items()}


def spikes(job: Job) -> dict[str, np.ndarray]:
    """Return what each process sends (size, steps) in a fixed-point run on the CPU, by its name.

    With `whole` a layer is one process where it can be: Lava starts processes of the operating system for each.
    """
    processes = _network(job, job["whole"])
    arrays = sent(processes, job["steps"])
    layer_of = {f"{layer}[0]": layer for layer in job["slices"]} if job["whole"] else {}
    named = enumerate(layer_of.get(name, name) for name, _ in _named(processes))
    return {name: arrays[f"sent_{i}"] for i, name in named if f"sent_{i}" in arrays}


def run_on_chip(job: Job) -> dict[str, np.ndarray]:
    """Run on the chip; return `execution_time_s` (steps,), or `energy_j` of all steps and its `static_energy_j`."""
    Profiler = _extension()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2HwCfg

    processes = _network(job, whole=False)
    plan = _plan(job, processes)
    config = Loihi2HwCfg()
    profiler = Profiler.init(config)  # before the compile; one probe for one run
    steps = job["steps"]
    if job["probe"] == "time":
        profiler.execution_time_probe(num_steps=steps)
    else:
        profiler.energy_probe(num_steps=steps)
    first = processes[0]
    compile_config = {"cache": True, "cache_dir": job["cache"]} if job["cache"] else {}
    # Refuses where a process was not compiled for neurocores: it would run on the CPU, and seem real.
    with placed(plan, job["exact"]), _many_processes():
        executable = first.compile(config, compile_config)
    first.create_runtime(executable=executable)
    try:
        first.run(condition=RunSteps(num_steps=steps))
    finally:
        first.stop()
    if job["probe"] == "time":
        return {"execution_time_s": np.asarray(profiler.execution_time, dtype=np.float64).ravel()}
    return {key: np.asarray(getattr(profiler, key[:-2])) for key in ("energy_j", "static_energy_j")}


@contextmanager
def _many_processes() -> Iterator[None]:
    """Have Lava's compiler take thousands of processes: its own searches are recursive, and take minutes."""
    from lava.magma.compiler import compiler_graphs as graphs

    searched = graphs.ProcGroupDiGraphs._find_proc_models
    models: dict[type, Any] = {}

    def models_of(proc: Any) -> Any:  # Lava executes all files of its folder for each process
        if type(proc) not in models:
            models[type(proc)] = searched(proc)
        return models[type(proc)]

    def flat(nested: list[Any]) -> list[Any]:
        return [x for part in nested for x in (flat(part) if isinstance(part, list) else [part])]

    with (
        patch.object(graphs, "find_processes", lambda proc: joined_processes([proc])),
        patch.object(graphs, "flatten_list_recursive", flat),
        patch.object(graphs.ProcGroupDiGraphs, "_find_proc_models", staticmethod(models_of)),
    ):
        yield


def _extension() -> Any:
    """Return Lava's Profiler if Intel's extension is there."""
    try:
        from lava.magma.compiler.subcompilers.nc.ncproc_compiler import NcProcCompiler  # noqa: F401
        from lava.utils.loihi2_profiler_api import Loihi2HWProfiler  # noqa: F401
        from lava.utils.profiler import Profiler
    except ImportError as error:
        raise ExtensionError(
            f"Intel's extension of Lava for Loihi 2 cannot be imported ({error}); it comes from Intel's Neuromorphic "
            "Research Community. Without it nothing can be measured: --dry-run compiles and runs on the CPU"
        ) from error
    return Profiler


def _network(job: Job, whole: bool) -> list[Any]:
    """Return all processes, in a fixed order; `whole` prefers one process to a layer over one to a slice."""
    from scipy.sparse import csr_matrix

    sizes = {name: [sum(cut)] if whole else cut for name, cut in job["slices"].items()}
    if job["model"]:
        return found_processes(Path(job["model"]), sizes)
    try:
        from lava.proc.lif.process import LIF
    except ImportError as error:
        raise RefusedError(
            f"lava-nc cannot be imported ({error}); it needs Python 3.10: pip install 'neuromap_moo[lava]' there"
        ) from error
    with np.load(job["made"], allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta"]))
        parts: dict[str, list[tuple[slice, Any]]] = {}
        for index, (layer, cut) in enumerate(sizes.items()):
            v, bias = arrays[f"v_{index}"], arrays[f"bias_mant_{index}"]
            parts[layer] = []
            for i, part in enumerate(_runs_of(cut)):
                name = layer if whole else f"{layer}[{i}]"
                n = part.stop - part.start
                lif = LIF(shape=(n,), v=v[part], bias_mant=bias[part], name=name, **meta["neurons"])
                parts[layer].append((part, lif))
        joins: list[tuple[Any, Any, Any, int]] = []
        for p, (source, target, exponent) in enumerate(meta["projections"]):
            given = tuple(arrays[f"{key}_{p}"] for key in ("data", "indices", "indptr"))
            weights = csr_matrix(given, shape=(sum(sizes[target]), sum(sizes[source])))
            joins += [(*join, exponent) for join in _blocks(weights, parts[source], parts[target])]
    neurons = [lif for part in parts.values() for _, lif in part]
    return neurons + _joined(neurons, joins)


def _runs_of(sizes: Sequence[int]) -> Iterator[slice]:
    """Neurons of each slice of a layer."""
    stop = 0
    for n in sizes:
        start, stop = stop, stop + n
        yield slice(start, stop)


def _blocks(
    weights: Any, sources: Sequence[tuple[slice, Any]], targets: Sequence[tuple[slice, Any]]
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield processes of two layers that are joined, with their weights."""
    for rows, after in targets:
        held = weights[rows]
        for columns, before in sources:
            block = held[:, columns]
            if block.nnz:
                yield before, after, block


def _joined(neurons: Sequence[Any], joins: Sequence[tuple[Any, Any, Any, int]]) -> list[Any]:
    """Connect neurons; Lava compiles what is joined, so parts that nothing joins get a synapse of the least weight."""
    from lava.proc.sparse.process import Sparse
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    index = {lif.id: i for i, lif in enumerate(neurons)}
    pairs = np.array([(index[before.id], index[after.id]) for before, after, _, _ in joins]).reshape(-1, 2)
    graph = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(neurons), len(neurons)))
    _, of_part = connected_components(graph, directed=False)
    more = []
    for i in np.unique(of_part, return_index=True)[1][1:]:
        least = csr_matrix(([2], ([0], [0])), shape=(neurons[i].v.shape[0], neurons[0].v.shape[0]))
        more.append((neurons[0], neurons[i], least, -8))
    made = []
    for before, after, weights, exponent in [*joins, *more]:
        synapses = Sparse(weights=weights, weight_exp=exponent, name=f"{before.name} to {after.name}")
        before.s_out.connect(synapses.s_in)
        synapses.a_out.connect(after.a_in)
        made.append(synapses)
    return made


def _named(processes: Sequence[Any]) -> list[tuple[str, Any]]:
    """Name processes as layers are named that were read from them."""
    named = []
    for i, process in enumerate(processes):
        if UNNAMED.fullmatch(process.name):
            with suppress(RefusedError):  # of a class that no layer is read from
                process.name = f"{kind_of(process)}_{i}"
        named.append((process.name, process))
    return named


def _plan(job: Job, processes: Sequence[Any]) -> dict[str, list[tuple[int, int]]]:
    """Return (chip, core) of each slice by process; refuses processes that are not what the mapping says.

    A layer is one process of its name, or one for each slice: layer[0] and so on.
    """
    sizes = {
        name: int(np.prod(process.out_ports.members[0].shape))
        for name, process in _named(processes)
        if process.out_ports.members
    }
    plan: dict[str, list[tuple[int, int]]] = {}
    for layer, places in job["placement"].items():
        pairs = [(int(chip), int(core)) for chip, core in places]
        plan |= _plan_of_layer(layer, pairs, job["slices"][layer], sizes, layer in job["inputs"])
    return plan


def _plan_of_layer(
    layer: str, pairs: list[tuple[int, int]], wanted: list[int], sizes: Mapping[str, int], is_input: bool
) -> dict[str, list[tuple[int, int]]]:
    """Return (chip, core) of the slices of one layer by process; an input may have no process."""
    if layer in sizes:
        found, expected = {layer: sizes[layer]}, {layer: sum(wanted)}
        plan = {layer: pairs}
    else:
        each = [f"{layer}[{i}]" for i in range(len(pairs))]
        found = {name: n for name, n in sizes.items() if re.fullmatch(rf"{re.escape(layer)}\[\d+\]", name)}
        expected = dict(zip(each, wanted, strict=True))
        plan = {name: [pair] for name, pair in zip(each, pairs, strict=True)}
        if not found and is_input:
            return {}
    if found != expected:
        raise RefusedError(
            f"layer '{layer}': expected neurons {expected}, as the mapping cuts it; the processes have {found}"
        )
    return plan


if __name__ == "__main__":
    sys.exit(main())
