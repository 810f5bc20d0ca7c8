"""Networks as .npz files."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.files import whole_file
from neuromap_moo.network.connectivity import GEOMETRY, Connectivity, Convolution, Dense, Sparse
from neuromap_moo.network.network import SCHEMA, Layer, Network, Projection, to_arrays

#: What numpy and zipfile raise for files that are no archive of arrays, or a damaged one.
READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network, notes and all, as one compressed `.npz` without pickles.

    Raises InputError where `path` has another ending: the format is known by it when the file is read.
    """
    if Path(path).suffix != ".npz":
        raise InputError(f"network file '{path}': expected an ending .npz, by which it is known when it is read")
    meta, arrays = to_arrays(network)
    meta["notes"] = list(network.notes)  # which older files have not
    with whole_file(path) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]


def load_npz(path: str | os.PathLike[str]) -> Network:
    """Read a network written by `save_network`; raises InputError with the file's name when it is not one."""
    try:
        with np.load(path, allow_pickle=False) as data:
            meta = json.loads(str(data["meta"]))
            if meta["schema"] != SCHEMA:
                raise InputError(f"expected schema {SCHEMA}, got {meta['schema']}; save it again with this version")
            layers = [_layer(i, x, data) for i, x in enumerate(meta["layers"])]
            size = {layer.name: layer.size for layer in layers}
            projections = [_projection(i, x, data, size) for i, x in enumerate(meta["projections"])]
            notes = tuple(str(text) for text in meta.get("notes", ()))
            return Network(meta["name"], tuple(layers), tuple(projections), meta["steps_per_inference"], notes)
    except InputError as error:
        raise InputError(f"network file '{path}': {error}") from error
    except READ_ERRORS as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"network file '{path}': cannot be read ({error.strerror})") from error
        reason = first_line(error)
        if "allow_pickle" in reason or "context manager" in reason:  # numpy's advice does not help here
            reason = "no archive of plain arrays"
        raise InputError(
            f"network file '{path}': expected an .npz written by save_network, got something else ({reason})"
        ) from error


def _layer(i: int, entry: Mapping[str, Any], data: Mapping[str, NDArray[Any]]) -> Layer:
    activity, order = data[f"activity_{i}"], data.get(f"order_{i}")
    cut = entry.get("cut", "channels")
    return Layer(entry["name"], entry["size"], entry["kind"], activity, entry.get("shape"), cut, order)


def _projection(
    i: int, entry: Mapping[str, Any], data: Mapping[str, NDArray[Any]], size: Mapping[str, int]
) -> Projection:
    source, target = entry["source"], entry["target"]
    connectivity: Connectivity
    if entry["form"] == "dense":
        connectivity = Dense(size[source], size[target])
    elif entry["form"] == "convolution":
        connectivity = Convolution(**{key: entry[key] for key in GEOMETRY}, place=data[f"place_{i}"])
    else:
        arrays = {key: data[f"{key}_{i}"] for key in ("indptr", "indices")}
        connectivity = Sparse(size[source], size[target], **arrays)
    return Projection(source, target, connectivity, entry["weight_bits"])
