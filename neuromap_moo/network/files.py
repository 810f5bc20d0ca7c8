"""Networks as .npz files."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

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
    """Write a network as one compressed `.npz` (no pickle inside); the path must end so."""
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
            layers = [
                Layer(
                    x["name"],
                    x["size"],
                    x["kind"],
                    data[f"activity_{i}"],
                    x.get("shape"),
                    x.get("cut", "channels"),
                    data.get(f"order_{i}"),
                )
                for i, x in enumerate(meta["layers"])
            ]
            size = {layer.name: layer.size for layer in layers}
            projections = []
            for i, x in enumerate(meta["projections"]):
                shape = (size[x["source"]], size[x["target"]])
                connectivity: Connectivity
                if x["form"] == "dense":
                    connectivity = Dense(*shape)
                elif x["form"] == "convolution":
                    connectivity = Convolution(**{key: x[key] for key in GEOMETRY}, place=data[f"place_{i}"])
                else:
                    connectivity = Sparse(*shape, indptr=data[f"indptr_{i}"], indices=data[f"indices_{i}"])
                projections.append(Projection(x["source"], x["target"], connectivity, x["weight_bits"]))
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
