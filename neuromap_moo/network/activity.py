"""Activity of neurons: drawn, measured and kept in files."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError, finite_number, first_line, whole_number
from neuromap_moo.files import whole_file
from neuromap_moo.network.files import READ_ERRORS

SCHEMA = 1


class Activity(NamedTuple):
    """Mean messages per neuron and step by layer, in the order of the file's maps, and how they were found."""

    by_layer: dict[str, FloatArray]
    n_samples: int
    not_shown: tuple[str, ...]  #: layers whose neurons are taken to send in every step
    network: str  #: digest of the network's file


def load_samples(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read samples: an .npy file for the one input, or an .npz file with an array per input name."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except READ_ERRORS as error:
        raise InputError(
            f"samples '{path}': expected an .npy or .npz file of arrays (n, ...), could not read it "
            f"({first_line(error)})"
        ) from error


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file."""
    h = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            h.update(block)
    return h.hexdigest()


def save_activity(activity: Activity, path: str | os.PathLike[str]) -> None:
    """Write activity as an .npz."""
    meta = {
        "schema": SCHEMA,
        "network": activity.network,
        "samples": activity.n_samples,
        "layers": list(activity.by_layer),
        "not_shown": list(activity.not_shown),
    }
    arrays = {f"layer_{i}": of_layer for i, of_layer in enumerate(activity.by_layer.values())}
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]


def load_activity(path: str | Path, network_path: str | Path) -> dict[str, FloatArray]:
    """Read the activity of a network's file by layer; raises InputError where it is that of another file."""
    try:
        with np.load(path, allow_pickle=False) as data:
            meta = json.loads(str(data["meta"]))
            if meta["schema"] != SCHEMA:
                raise InputError(f"expected schema {SCHEMA}, got {meta['schema']}")
            by_layer = {str(name): data[f"layer_{i}"] for i, name in enumerate(meta["layers"])}
            network = meta["network"]
    except InputError as error:
        raise InputError(f"activity '{path}': {error}") from error
    except READ_ERRORS as error:
        raise InputError(
            f"activity '{path}': expected a number or a file that task=profile wrote ({first_line(error)})"
        ) from error
    if network != digest_of(network_path):
        raise InputError(
            f"activity '{path}': was measured on another file than '{network_path}'; run task=profile on this one"
        )
    return by_layer


#: Beyond this spread nearly all activity would sit in one neuron.
MAXIMUM_SIGMA = 10.0


@dataclass(frozen=True)
class ActivitySpec:
    """Activity of a network whose source holds none: drawn for every layer, the same at every call.

    Parameters
    ----------
    activity
        Mean messages per neuron and timestep of every layer.
    activity_sigma
        Spread within a layer: the standard deviation of the activity's logarithm (see `lognormal_activity`).
    steps_per_inference
        Timesteps of input that one inference needs.
    seed
        Of the draw, and of the connections where a generator draws these too.

    Raises
    ------
    InputError
        For a mean that is negative or above 1, a spread outside of 0..10, or a seed that is no whole number >= 0.

    """

    activity: float = 0.2
    activity_sigma: float = 0.5
    steps_per_inference: int = 1  # checked by the network, which has a name
    seed: int = 0

    def __post_init__(self) -> None:
        """Check mean, spread and seed."""
        check_activity(self.activity, self.activity_sigma)
        whole_number("seed", self.seed)


def check_activity(mean: float, sigma: float, maximum: float = 1.0) -> None:
    """Raise InputError unless 0 <= `mean` <= `maximum` and 0 <= `sigma` <= MAXIMUM_SIGMA."""
    if finite_number("activity", mean) > maximum:
        raise InputError(
            f"activity: expected a mean of at most {maximum:g} messages per neuron and timestep, got {mean}"
        )
    if finite_number("activity_sigma", sigma) > MAXIMUM_SIGMA:
        raise InputError(f"activity_sigma: expected at most {MAXIMUM_SIGMA:g}, got {sigma}")


def lognormal_activity(
    size: int, mean: float, sigma: float, rng: np.random.Generator, maximum: float = 1.0
) -> FloatArray:
    """Draw the activity of a layer with a log-normal spread.

    The draw is scaled so that the layer's mean is exact and then cut at `maximum`, which lowers the mean a little when
    the spread is wide.

    Parameters
    ----------
    size
        Neurons of the layer.
    mean
        Mean messages per neuron and timestep.
    sigma
        Standard deviation of the activity's logarithm, at most 10; 0 gives every neuron the mean.
    rng
        What the draw comes from.
    maximum
        Most messages of a neuron per timestep.

    Returns
    -------
    activity
        (size,) messages per neuron and timestep.

    Raises
    ------
    InputError
        For a mean or spread out of range.

    Examples
    --------
    >>> import numpy as np
    >>> lognormal_activity(4, 0.2, 0.0, np.random.default_rng(0)).tolist()
    [0.2, 0.2, 0.2, 0.2]

    """
    check_activity(mean, sigma, maximum)
    draw = rng.lognormal(0.0, sigma, size)
    return np.asarray(np.minimum(draw * (mean / draw.mean()), maximum), dtype=np.float64)
