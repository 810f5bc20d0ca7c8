"""Read a network from a file, and measure its activity; the format is known by the ending."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

from neuromap_moo.errors import InputError, requires_extra
from neuromap_moo.lava.reader import measure_lava, read_lava
from neuromap_moo.network.activity import Activity, ActivitySpec, load_activity, load_samples
from neuromap_moo.network.files import load_npz
from neuromap_moo.network.network import Network, with_activity
from neuromap_moo.readers.input_shape import InputShape
from neuromap_moo.readers.netx import read_net
from neuromap_moo.readers.netx_activity import measure_net

ENDINGS = (".npz", ".net", ".nir", ".onnx", ".py")

#: Endings of files that may leave the shape of an input open.
SHAPED = (".onnx", ".nir", ".net")

#: Endings of files on which activity is measured.
MEASURED = (".net", ".nir", ".onnx", ".py")


def load_network(
    path: str | Path,
    activity: float | str | os.PathLike[str] = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int | None = None,
    seed: int = 0,
    input_shape: InputShape = None,
    weight_bits: int = 8,
) -> Network:
    """Read a network; its format is known by the file's ending.

    `.npz` (written by `nm.save_network`) holds its own activity and steps per inference, and the other activity
    arguments do not apply. The other formats hold neither.

    Parameters
    ----------
    path
        Of a `.npz`, `.onnx`, `.nir`, lava-dl `.net` or Lava `.py` file.
    activity
        Mean messages per neuron and timestep of every layer, or the path of what `nm.measure_activity` found.
    activity_sigma
        Spread of the activity within a layer, as in `nm.lognormal_activity`.
    steps_per_inference
        Timesteps of input that one inference needs; None is 1, or what a `.npz` holds.
    seed
        Of the drawn activity.
    input_shape
        Sizes of the input, or of each by its name, for `.onnx`, `.nir` and `.net` files that leave them open, or in
        place of theirs.
    weight_bits
        That the floating-point weights of `.onnx` and `.nir` files are taken as quantised to.

    Returns
    -------
    network
        Its `notes` tell what was approximated or left out; each is issued as a UserWarning, too.

    Raises
    ------
    InputError
        For a file that is missing, of another format or damaged, and for what cannot be mapped.

    """
    path = Path(path)
    network = read_network(path, activity, activity_sigma, steps_per_inference, seed, input_shape, weight_bits)
    _warn(f"'{path}'", network)
    return network


def read_network(
    path: str | Path,
    activity: float | str | os.PathLike[str] = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int | None = None,
    seed: int = 0,
    input_shape: InputShape = None,
    weight_bits: int = 8,
) -> Network:
    """Read a network as `load_network` does, without warnings: what was left out is in its notes."""
    path = Path(path)
    _check_file(path)
    if input_shape is not None and path.suffix not in SHAPED:
        raise InputError(
            f"network file '{path}': input_shape is for .onnx files, .nir and .net files; a {path.suffix} file holds "
            "every size, so leave it out"
        )
    if path.suffix == ".npz":
        return _load_npz(path, activity, steps_per_inference)
    steps = 1 if steps_per_inference is None else steps_per_inference
    if isinstance(activity, (str, os.PathLike)):
        measured = load_activity(Path(activity), path)
        return with_activity(_read(path, ActivitySpec(0.0, 0.0, steps, seed), input_shape, weight_bits), measured)
    return _read(path, ActivitySpec(activity, activity_sigma, steps, seed), input_shape, weight_bits)


def _load_npz(path: Path, activity: float | str | os.PathLike[str], steps: int | None) -> Network:
    network = load_npz(path)
    if isinstance(activity, (str, os.PathLike)):
        network = with_activity(network, load_activity(Path(activity), path))
    return network if steps is None else dataclasses.replace(network, steps_per_inference=steps)


def _read(path: Path, spec: ActivitySpec, input_shape: InputShape, weight_bits: int) -> Network:
    """Read a file that holds no activity."""
    if path.suffix == ".net":
        return read_net(path, spec, input_shape)
    if path.suffix == ".py":
        return read_lava(path, spec)
    # onnx and nir take long to import, and most runs need neither
    if path.suffix == ".nir":
        with requires_extra(f"network file '{path}'", "nir"):
            from neuromap_moo.readers.nir import read_nir

        return read_nir(path, spec, input_shape, weight_bits)
    with requires_extra(f"network file '{path}'", "onnx"):
        from neuromap_moo.readers.onnx.reader import read_onnx

    return read_onnx(path, spec, input_shape, weight_bits)


def _warn(where: str, network: Network) -> None:
    """Tell the caller of a public function what its reader approximated or left out."""
    for text in network.notes:
        warnings.warn(f"{where}: {text}", stacklevel=3)


def measure_activity(
    path: str | Path,
    samples: str | Path | None = None,
    input_shape: InputShape = None,
    seed: int = 0,
    steps: int | None = None,
    dt: float | None = None,
) -> Activity:
    """Run the network of a file on samples and return the activity of its neurons.

    An ONNX graph runs on onnxruntime, lava-dl and NIR networks are simulated in fixed point, a graph of Lava processes
    (.py) runs on Lava. Save the result with `nm.save_activity`, and give its path to `nm.load_network(activity=...)`.

    Parameters
    ----------
    path
        Of an `.onnx`, `.nir`, `.net` or `.py` file.
    samples
        An .npy file (n, ...) for the one input or an .npz file with an array per input name; random ones without it.
        Spiking networks take samples (n, timesteps, ...), or (n, ...) for `steps` timesteps. A `.py` file takes none.
    input_shape
        As of `nm.load_network`.
    seed
        Of random samples, and of spikes drawn from values.
    steps
        Timesteps of a sample that has none of its own, 32 by default; of a `.py` file's run, 100 by default.
    dt
        Timestep of NIR graphs in units of their time constants: 1e-4 where any of these is below 1, else 1.

    Raises
    ------
    InputError
        For a file that cannot be read or run, and samples that do not fit it.

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
        return measure_net(path, given, input_shape, seed, steps)
    if path.suffix == ".nir":
        with requires_extra(f"network file '{path}'", "nir"):
            from neuromap_moo.readers.nir_activity import measure_nir

        return measure_nir(path, given, input_shape, seed, steps, dt)
    with requires_extra(f"network file '{path}'", "onnx"):
        from neuromap_moo.readers.onnx.activity import measure_onnx

    return measure_onnx(path, given, input_shape, seed)


def from_relax(
    module: Any,
    function: str = "main",
    *,
    name: str = "relax",
    activity: float = 0.2,
    activity_sigma: float = 0.5,
    steps_per_inference: int = 1,
    seed: int = 0,
    weight_bits: int = 8,
) -> Network:
    """Read a function of a TVM relax module as ONNX graphs are read; see docs/networks.md.

    Parameters
    ----------
    module
        A `tvm.IRModule` whose weights are bound constants.
    function
        Of the module; functions that it calls are put in.
    name
        Of the network, and of the module in errors.
    activity, activity_sigma, steps_per_inference, seed, weight_bits
        As of `nm.load_network`.

    Returns
    -------
    network
        Its `notes` tell what was approximated or left out; each is issued as a UserWarning, too.

    Raises
    ------
    InputError
        With the binding and the operator for what cannot be mapped.

    """
    with requires_extra("from_relax", "tvm"):
        from neuromap_moo.readers import relax  # which imports onnx

    spec = ActivitySpec(activity, activity_sigma, steps_per_inference, seed)
    network = relax.from_relax(module, function, name, spec, weight_bits)
    _warn(f"relax module '{name}'", network)
    return network


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
