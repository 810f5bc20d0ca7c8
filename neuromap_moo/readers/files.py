"""Read a network from a file, and measure its activity; the format is known by the ending."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuromap_moo.errors import InputError, requires_extra
from neuromap_moo.lava.reader import measure_lava, read_lava
from neuromap_moo.network.activity import Activity, load_activity, load_samples
from neuromap_moo.network.files import load_npz
from neuromap_moo.network.network import Network, with_activity
from neuromap_moo.readers.netx import read_net
from neuromap_moo.readers.netx_activity import measure_net

ENDINGS = (".npz", ".net", ".nir", ".onnx", ".py")

#: Endings of files on which activity is measured.
MEASURED = (".net", ".nir", ".onnx", ".py")


def load_network(
    path: str | Path,
    activity: float | str | os.PathLike[str] = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int | None = None,
    seed: int = 0,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    weight_bits: int = 8,
) -> Network:
    """Read a network; its format is known by the file's ending.

    `.npz` (written by `save_network`) holds its own activity and steps per inference, and the activity arguments do
    not apply. The other formats hold neither: `activity` is the mean of every layer, spread by `activity_sigma`, or the
    path of what `nm.measure_activity` found; one step is the default.
    `.onnx` takes an `input_shape` where the graph leaves sizes open; `.onnx` and `.nir` hold floating-point weights,
    taken as quantised to `weight_bits`. What an ONNX graph loses on the way is told by warnings.
    """
    path = Path(path)
    _check_file(path)
    if input_shape is not None and path.suffix != ".onnx":
        raise InputError(f"network file '{path}': input_shape is for .onnx files alone; leave it out")
    if isinstance(activity, (str, os.PathLike)):
        by_layer = load_activity(Path(activity), path)
        plain = load_network(path, 0.0, 0.0, steps_per_inference, seed, input_shape, weight_bits)
        return with_activity(plain, by_layer)
    if path.suffix == ".npz":
        network = load_npz(path)
        if steps_per_inference is not None:
            network = dataclasses.replace(network, steps_per_inference=steps_per_inference)
        return network
    steps = 1 if steps_per_inference is None else steps_per_inference
    if path.suffix == ".net":
        return read_net(path, activity, activity_sigma, steps, seed)
    if path.suffix == ".py":
        return read_lava(path, activity, activity_sigma, steps, seed)
    # onnx and nir take long to import, and most runs need neither
    if path.suffix == ".nir":
        with requires_extra(f"network file '{path}'", "nir"):
            from neuromap_moo.readers.nir import read_nir

        return read_nir(path, activity, activity_sigma, steps, seed, weight_bits)
    with requires_extra(f"network file '{path}'", "onnx"):
        from neuromap_moo.readers.onnx.reader import read_onnx

    return read_onnx(path, activity, activity_sigma, steps, seed, input_shape, weight_bits)


def measure_activity(
    path: str | Path,
    samples: str | Path | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    steps: int | None = None,
    dt: float | None = None,
) -> Activity:
    """Run the network of a file on samples and return the activity of its neurons.

    An ONNX graph runs on onnxruntime, lava-dl and NIR networks are simulated in fixed point, a graph of Lava processes
    (.py) runs on Lava.

    `samples` is an .npy file (n, ...) for the one input or an .npz file with an array per input name; random samples
    are drawn without it. Spiking networks take samples (n, timesteps, ...), or (n, ...) for `steps` timesteps (32).
    `dt` is the timestep of NIR graphs in units of their time constants: 1e-4 where any of these is below 1, else 1.
    Save the result with `nm.save_activity`, and give its path to `load_network(activity=...)`.
    """
    path = Path(path)
    if path.suffix not in MEASURED:
        raise InputError(
            f"network file '{path}': activity is measured on {', '.join(MEASURED)} files, got '{path.suffix}'"
        )
    _check_file(path)
    if path.suffix == ".py":
        if samples is not None:
            raise InputError(f"samples: the graph of '{path}' has sources of its own; leave samples out")
        return measure_lava(path, steps)
    given = None if samples is None else load_samples(samples)
    if path.suffix == ".net":
        return measure_net(path, given, steps, seed)
    if path.suffix == ".nir":
        with requires_extra(f"network file '{path}'", "nir"):
            from neuromap_moo.readers.nir_activity import measure_nir

        return measure_nir(path, given, steps, seed, dt)
    with requires_extra(f"network file '{path}'", "onnx"):
        from neuromap_moo.readers.onnx.activity import measure_onnx

    return measure_onnx(path, given, input_shape, seed)


def from_relax(module: Any, function: str = "main", **keys: Any) -> Network:
    """Read a function of a TVM relax module (`tvm.IRModule`) as ONNX graphs are read; see docs/networks.md.

    Keys: `name`, and as of `load_network` `activity`, `activity_sigma`, `steps_per_inference`, `seed`, `weight_bits`.
    """
    with requires_extra("from_relax", "tvm"):
        from neuromap_moo.readers import relax  # which imports onnx

    return relax.from_relax(module, function, **keys)


def partition_relax(module: Any) -> Any:
    """Return a TVM relax module whose weighted operators are fused with bias and activation, as `loihi.conv2d`, ..."""
    with requires_extra("partition_relax", "tvm"):
        from neuromap_moo.readers import relax

    return relax.partition_relax(module)


def _check_file(path: Path) -> None:
    """Refuse what no reader can begin with."""
    if path.suffix not in ENDINGS:
        raise InputError(
            f"network file '{path}': expected an ending {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, "
            f"got '{path.suffix}'; put other networks together in Python and save them with nm.save_network "
            "(docs/networks.md)"
        )
    if not path.is_file():
        raise InputError(
            f"network file '{path}': no such file (or it is a folder); give network.path a path from '{Path.cwd()}'"
        )
    if path.stat().st_size == 0:
        raise InputError(f"network file '{path}': the file is empty; write or copy it again")
