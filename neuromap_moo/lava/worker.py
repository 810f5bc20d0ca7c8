"""Describe or run a graph of Lava processes: python worker.py WHAT MODEL.py RESULT.npz PREFIX [STEPS].

MODEL.py is the user's file; its function `build()` returns a process of the graph, or several. WHAT is `describe`,
which writes what the processes are and how they are joined, or `run`, which writes what all neurons send in STEPS
timesteps of a fixed-point run on the CPU. Needs lava-nc, thus Python 3.10, and nothing of this package. A run that
fails can hang for ever and leave processes and shared memory behind: the caller sets a time limit, kills the group and
removes the segments, whose names begin with PREFIX.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import multiprocessing.shared_memory
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    """Do what the arguments say; a line on stderr and code 2 where the model is at fault."""
    what, model, result, prefix, *rest = sys.argv[1:]
    name_shared_memory(prefix)
    try:
        processes = found_processes(Path(model))
        arrays = described(processes) if what == "describe" else sent(processes, int(rest[0]))
    except RefusedError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    np.savez(result, **arrays)  # type: ignore[arg-type]
    return 0


def name_shared_memory(prefix: str) -> None:
    """Have the names of all segments that are made from now on begin with a prefix."""
    multiprocessing.shared_memory._SHM_NAME_PREFIX = f"/{prefix}"  # type: ignore[attr-defined]


class RefusedError(Exception):
    """The model cannot be read or run."""


def found_processes(path: Path, slices: Mapping[str, Sequence[int]] | None = None) -> list[Any]:
    """All processes that are joined with those that build() returns, in a fixed order.

    A build that takes an argument gets the neurons of each slice by layer, or its own default where there are none.
    """
    try:
        from lava.magma.core.process.process import AbstractProcess
    except ImportError as error:
        raise RefusedError(
            f"lava-nc cannot be imported ({error}); it needs Python 3.10: pip install 'neuromap_moo[lava]' there"
        ) from error
    built = _built(_module_of(path), slices)
    roots = list(built) if isinstance(built, (list, tuple)) else [built]
    for root in roots:
        if not isinstance(root, AbstractProcess):
            raise RefusedError(f"build(): expected a Lava process or a list of them, got {type(root).__name__}")
    return joined_processes(roots)


def _module_of(path: Path) -> Any:
    """Execute a user's file; return its module, which has a function build()."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise RefusedError("expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[path.stem] = module  # where Lava looks for the models of processes that it defines
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise RefusedError(f"the file raises {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "build", None)):
        raise RefusedError("expected a function build() that returns a Lava process of the network, found none")
    return module


def _built(module: Any, slices: Mapping[str, Sequence[int]] | None) -> Any:
    """Return what build() returns."""
    try:
        takes = list(inspect.signature(module.build).parameters.values())
        if takes and slices is None and takes[0].default is takes[0].empty:
            raise RefusedError(
                f"build({takes[0].name}): expected a default, as in {takes[0].name}=None, for all layers whole"
            )
        return module.build(slices) if takes and slices is not None else module.build()
    except RefusedError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise RefusedError(f"build() raises {type(error).__name__}: {error}") from error


def joined_processes(roots: Sequence[Any]) -> list[Any]:
    """All processes that are joined with the roots, in the order of their ids.

    Lava's own find_processes is recursive, searches lists and goes by hashes: a thousand processes take a minute or are
    too many, and their order is another one each time.
    """
    found: dict[int, Any] = {}
    left = list(roots)
    while left:
        process = left.pop()
        if process.id in found:
            continue
        found[process.id] = process
        ports = [*process.in_ports.members, *process.var_ports.members]
        ports += [*process.out_ports.members, *process.ref_ports.members]
        left += [other.process for port in ports for other in (*port.get_src_ports(), *port.get_dst_ports())]
    return [found[i] for i in sorted(found)]


def described(processes: Sequence[Any]) -> dict[str, np.ndarray]:
    """Arrays of an .npz: `meta`, a list of processes; `weights_i`; `reads_i_j`, what comes in at a port from process j.

    What comes in is an array of the input port's shape: 1 + the index, in C order, of the element of the other's output
    port that comes in there.
    """
    arrays: dict[str, np.ndarray] = {}
    entries = []
    index = {process.id: i for i, process in enumerate(processes)}
    for i, process in enumerate(processes):
        kind = kind_of(process)
        outputs = process.out_ports.members
        entry: dict[str, Any] = {
            "name": process.name,
            "type": kind,
            "shape": [int(n) for n in outputs[0].shape] if outputs else [],
            "parameters": parameters_of(process, kind, arrays, i),
        }
        if kind in CONNECTIONS:
            arrays[f"weights_{i}"] = weights_of(process)
        reads: list[int] = []
        for port in process.in_ports.members:
            for source, elements in arriving(port):
                if source.process.id not in index:
                    raise RefusedError(
                        f"process '{process.name}': reads a process inside another one; give that one's parts"
                    )
                arrays[f"reads_{i}_{len(reads)}"] = elements
                reads.append(index[source.process.id])
        entries.append(entry | {"reads": reads})
    return arrays | {"meta": np.array(json.dumps(entries))}


def arriving(port: Any) -> list[tuple[Any, np.ndarray]]:
    """Output ports that a port reads, each with the elements (1 + index) that come in at every place of it."""
    from lava.magma.core.process.ports.ports import AbstractVirtualPort, ConcatPort, OutPort

    if isinstance(port, OutPort) and not port.in_connections:
        return [(port, np.arange(1, int(np.prod(port.shape)) + 1).reshape(port.shape))]
    if isinstance(port, ConcatPort):
        found = []
        for j in range(len(port.in_connections)):
            for source, elements in arriving(port.in_connections[j]):
                parts = [np.zeros(p.shape, dtype=np.int64) for p in port.in_connections]
                parts[j] = elements
                found.append((source, np.concatenate(parts, axis=port.concat_axis)))
        return found
    found = [pair for other in port.in_connections for pair in arriving(other)]
    if isinstance(port, AbstractVirtualPort):
        turn = port.get_transform_func_fwd()
        found = [(source, np.asarray(turn(elements))) for source, elements in found]
    return found


#: What processes between neurons are called in a description.
CONNECTIONS = ("dense", "sparse", "conv")


def kind_of(process: Any) -> str:
    """Tell what a process is; raises for those that are no part of a network as it is mapped."""
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense
    from lava.proc.io import sink, source
    from lava.proc.lif.process import LIF, LearningLIF, LIFRefractory, LIFReset, TernaryLIF
    from lava.proc.sdn.process import Delta, Sigma, SigmaDelta
    from lava.proc.sparse.process import Sparse

    kinds: list[tuple[Any, str]] = [  # classes before those they derive from
        (Dense, "dense"),
        (Sparse, "sparse"),
        (Conv, "conv"),
        (LIFReset, "lif_reset"),
        (LIFRefractory, "lif_refractory"),
        (TernaryLIF, "ternary_lif"),
        (LearningLIF, "learning_lif"),
        (LIF, "lif"),
        (SigmaDelta, "sigma_delta"),
        (Delta, "delta"),
        (Sigma, "sigma"),
        (source.RingBuffer, "input"),
        ((sink.RingBuffer, sink.Read), "sink"),
    ]
    for classes, kind in kinds:
        if isinstance(process, classes):
            return kind
    inputs, outputs = process.in_ports.members, process.out_ports.members
    if outputs and not inputs:
        return "input"
    if not outputs:
        return "sink"
    raise RefusedError(
        f"process '{process.name}' of class {type(process).__name__}: expected Dense, Sparse, Conv, LIF, LIFReset, "
        "LIFRefractory, TernaryLIF, Delta, Sigma, SigmaDelta, sources and sinks"
    )


def parameters_of(process: Any, kind: str, arrays: dict[str, np.ndarray], i: int) -> dict[str, Any]:
    """Numbers that a simulation needs; arrays of them go into the file."""

    def number(name: str) -> float:
        return float(np.asarray(getattr(process, name).init).ravel()[0])

    def given(name: str, default: float = 0) -> float:
        return float(np.asarray(process.proc_params.get(name, default)).ravel()[0])

    if kind == "lif":
        mantissa, exponent = (np.asarray(getattr(process, key).init) for key in ("bias_mant", "bias_exp"))
        full = np.broadcast_to(mantissa, process.v.shape).ravel()
        arrays[f"bias_{i}"] = full * 2.0 ** np.broadcast_to(exponent, process.v.shape).ravel()
        for key in ("u", "v"):
            arrays[f"{key}_{i}"] = np.broadcast_to(getattr(process, key).init, process.v.shape).ravel()
        return {"vth": number("vth"), "du": number("du"), "dv": number("dv")}
    if kind in ("delta", "sigma_delta"):
        found = {"vth": given("vth"), "spike_exp": given("spike_exp"), "state_exp": given("state_exp")}
        found["cum_error"] = bool(process.proc_params.get("cum_error", False))
        if kind == "sigma_delta":
            arrays[f"bias_{i}"] = np.broadcast_to(process.proc_params.get("bias", 0), process.sigma.shape).ravel()
            found["relu"] = process.proc_params.get("act_mode").name == "RELU"
        return found
    if kind in ("dense", "sparse"):
        mode = process.proc_params.get("sign_mode")
        found = {"num_weight_bits": given("num_weight_bits", 8), "weight_exp": given("weight_exp")}
        return found | {"sign_mode": None if mode is None else mode.name, "graded": number("num_message_bits") > 0}
    if kind == "conv":
        moves = {
            key: [int(n) for n in np.resize(getattr(process, key).init, 2)] for key in ("stride", "padding", "dilation")
        }
        groups = int(np.asarray(process.groups.init).ravel()[0])
        return {**moves, "groups": groups, "graded": number("num_message_bits") > 0}
    if kind == "input" and hasattr(process, "data"):
        arrays[f"data_{i}"] = np.asarray(process.data.init)
    return {}


def weights_of(process: Any) -> np.ndarray:
    """(out, in), or (out, x, y, in) of a convolution."""
    weights = getattr(process, "weights", None)
    weights = process.weight.init if weights is None else weights.init
    return np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights)


def sent(processes: Sequence[Any], steps: int) -> dict[str, np.ndarray]:
    """What neurons and sources send: `sent_i` (size, steps) of process i, from a run of Lava's fixed-point models."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer

    sinks = {}
    for i, process in enumerate(processes):
        if kind_of(process) not in (*CONNECTIONS, "sink"):
            port = process.out_ports.members[0]
            sinks[i] = RingBuffer(shape=port.shape, buffer=steps)
            port.connect(sinks[i].a_in)
    first = processes[0]
    try:
        first.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
        return {f"sent_{i}": np.asarray(sink.data.get()).reshape(-1, steps) for i, sink in sinks.items()}
    finally:
        first.stop()


if __name__ == "__main__":
    sys.exit(main())
