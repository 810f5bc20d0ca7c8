"""Networks: layers of neurons, the projections between them, and the activity of each neuron."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from neuromap_moo import kernels
from neuromap_moo.errors import InputError, whole_number
from neuromap_moo.files import whole_file

#: Bits of a synapse's target index, of a row's header and of a memory word in the vendor's synapse memory
#: (recovered from public compile logs; see docs/model.md).
INDEX_BITS, HEADER_BITS, WORD_BITS = 12, 16, 64

SCHEMA = 1

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


def row_words(synapses: NDArray[np.int64], weight_bits: int) -> NDArray[np.int64]:
    """64-bit words of a row with so many synapses; a row without any takes none (DESIGN 4.3)."""
    bits = synapses * (weight_bits + INDEX_BITS) + HEADER_BITS
    return np.where(synapses > 0, -(-bits // WORD_BITS), 0).astype(np.int64)


class SliceCounts(NamedTuple):
    """What one projection puts on each of the k slices of its target layer (DESIGN 4.3 and 4.4)."""

    reach: NDArray[np.bool_]  #: (n_source, k): does the neuron have a synapse into the slice
    synops: NDArray[np.float64]  #: (k,) per timestep
    synmem_reads: NDArray[np.float64]  #: (k,) 64-bit words per timestep
    words: NDArray[np.int64]  #: (k,) 64-bit words stored


class SliceRows(NamedTuple):
    """What each source neuron of one projection sends where: neuron i reaches slices[start[i]:start[i + 1]]."""

    start: NDArray[np.int64]  #: (n_source + 1,)
    slices: NDArray[np.int32]  #: (E,) of the target layer, ascending for each neuron
    synapses: NDArray[np.int32]  #: (E,) of the neuron into the slice


def _frozen(where: str, given: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """Return a read-only copy as `dtype`; raise InputError where that would change a value."""
    array = np.asarray(given)
    if array.size and array.dtype.kind not in ("iuf" if issubclass(dtype, np.floating) else "iu"):
        raise InputError(f"{where}: expected numbers of type {dtype.__name__}, got {array.dtype}")
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy


def _slice_of_target(target_bounds: NDArray[np.int64]) -> NDArray[np.int32]:
    """(n_target,) slice of each target neuron."""
    return np.repeat(np.arange(target_bounds.size - 1, dtype=np.int32), np.diff(target_bounds))


def _set_sizes(connectivity: Sparse | Dense) -> None:
    for key in ("n_source", "n_target"):
        object.__setattr__(connectivity, key, whole_number(f"connectivity, {key}", getattr(connectivity, key), 1))


@dataclass(frozen=True, eq=False)
class Sparse:
    """Explicit connectivity: row i of the CSR arrays lists the targets of source neuron i, ascending."""

    n_source: int
    n_target: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]

    def __post_init__(self) -> None:
        """Freeze the arrays and check that they are a CSR matrix with sorted, unique columns."""
        _set_sizes(self)
        raw = np.asarray(self.indices)
        if raw.size and raw.dtype.kind in "iu" and (raw.min() < 0 or raw.max() >= self.n_target):
            raise InputError(
                f"sparse connectivity: expected target indices in 0..{self.n_target - 1}, got {raw.min()}..{raw.max()}"
            )
        object.__setattr__(self, "indptr", _frozen("sparse connectivity, indptr", self.indptr, np.int64))
        object.__setattr__(self, "indices", _frozen("sparse connectivity, indices", raw, np.int32))
        indptr, indices = self.indptr, self.indices
        if indptr.shape != (self.n_source + 1,) or indptr[0] != 0 or (np.diff(indptr) < 0).any():
            raise InputError(
                f"sparse connectivity: expected indptr of {self.n_source + 1} ascending offsets from 0, "
                f"got shape {indptr.shape}; build it with scipy.sparse.csr_array"
            )
        if indices.shape != (int(indptr[-1]),):
            raise InputError(f"sparse connectivity: expected {indptr[-1]} indices as indptr says, got {indices.size}")
        same_row = np.ones(max(indices.size - 1, 0), dtype=bool)
        starts = indptr[1:-1]
        same_row[starts[(starts > 0) & (starts < indices.size)] - 1] = False
        if (np.diff(indices)[same_row] <= 0).any():
            raise InputError(
                "sparse connectivity: expected each row's targets ascending and unique; "
                "call sum_duplicates() on the scipy matrix first"
            )

    @classmethod
    def from_matrix(cls, matrix: Any) -> Sparse:
        """Take the non-zeros of a numpy or scipy matrix of shape (n_source, n_target)."""
        rows = csr_array(matrix)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        return cls(rows.shape[0], rows.shape[1], rows.indptr.astype(np.int64), rows.indices)

    @property
    def n_synapses(self) -> int:
        """Stored synapses."""
        return int(self.indices.size)

    def counts(self, activity: NDArray[np.float64], weight_bits: int, target_bounds: NDArray[np.int64]) -> SliceCounts:
        """Count what reaches each target slice; `target_bounds` (k + 1,) are the slice boundaries."""
        return SliceCounts(
            *kernels.count_sparse(
                self.indptr,
                self.indices,
                activity,
                _slice_of_target(target_bounds),
                target_bounds.size - 1,
                weight_bits,
                INDEX_BITS,
                HEADER_BITS,
                WORD_BITS,
            )
        )

    def rows(self, target_bounds: NDArray[np.int64]) -> SliceRows:
        """Return what each source neuron sends to the slices between `target_bounds` (k + 1,)."""
        return SliceRows(*kernels.rows_sparse(self.indptr, self.indices, _slice_of_target(target_bounds)))

    def window_words(self, weight_bits: int, window: int) -> int:
        """Most words that any `window` neighbouring target neurons take, wherever they begin."""
        columns = self._by_target
        return int(
            kernels.largest_window_words(
                columns[0], columns[1], self.n_source, window, row_words(np.arange(window + 1), weight_bits)
            )
        )

    @cached_property
    def _by_target(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        order = np.argsort(self.indices, kind="stable")
        rows = np.repeat(np.arange(self.n_source, dtype=np.int32), np.diff(self.indptr))[order]
        counts = np.bincount(self.indices, minlength=self.n_target)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), rows


@dataclass(frozen=True, eq=False)
class Dense:
    """Every source neuron reaches every target neuron; zero weights are stored and count like any other."""

    n_source: int
    n_target: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        _set_sizes(self)

    @property
    def n_synapses(self) -> int:
        """Stored synapses."""
        return self.n_source * self.n_target

    def counts(self, activity: NDArray[np.float64], weight_bits: int, target_bounds: NDArray[np.int64]) -> SliceCounts:
        """Count what reaches each target slice in closed form; equals `Sparse.counts` of the full matrix."""
        sizes = np.diff(target_bounds)
        words = row_words(sizes, weight_bits)
        total = float(activity.sum())
        reach = np.ones((self.n_source, sizes.size), dtype=np.bool_)
        synops, reads = (np.asarray(total * x, dtype=np.float64) for x in (sizes, words))
        return SliceCounts(reach, synops, reads, self.n_source * words)

    def rows(self, target_bounds: NDArray[np.int64]) -> SliceRows:
        """Return what each source neuron sends to the slices between `target_bounds` (k + 1,): the same for all."""
        k, sizes = target_bounds.size - 1, np.diff(target_bounds).astype(np.int32)
        slices = np.tile(np.arange(k, dtype=np.int32), self.n_source)
        return SliceRows(np.arange(self.n_source + 1) * k, slices, np.tile(sizes, self.n_source))

    def window_words(self, weight_bits: int, window: int) -> int:
        """Most words that any `window` neighbouring target neurons take: the same everywhere."""
        return self.n_source * int(row_words(np.array(min(window, self.n_target)), weight_bits))


Connectivity = Sparse | Dense


@dataclass(frozen=True, eq=False)
class Layer:
    """A population of neurons: `activity` (size,) is the mean messages per neuron per timestep."""

    name: str
    size: int
    kind: str
    activity: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Freeze the activity and check it."""
        object.__setattr__(self, "size", whole_number(f"layer '{self.name}', size", self.size, 1))
        object.__setattr__(self, "activity", _frozen(f"layer '{self.name}', activity", self.activity, np.float64))
        if self.activity.shape != (self.size,):
            raise InputError(
                f"layer '{self.name}': expected activity of shape ({self.size},), got {self.activity.shape}; "
                "give one value per neuron"
            )
        if not np.isfinite(self.activity).all() or (self.activity < 0).any():
            raise InputError(
                f"layer '{self.name}': expected activity finite and >= 0, got {self.activity.min()}.."
                f"{self.activity.max()}; it is the mean number of messages per neuron and timestep"
            )


@dataclass(frozen=True, eq=False)
class Projection:
    """The connections from one layer to another, all with weights of `weight_bits` bits."""

    source: str
    target: str
    connectivity: Connectivity
    weight_bits: int = 8

    def __post_init__(self) -> None:
        """Check the weight width."""
        if not isinstance(self.connectivity, (Sparse, Dense)):
            raise InputError(
                f"projection '{self.source}' -> '{self.target}': expected nm.Sparse or nm.Dense, got "
                f"{type(self.connectivity).__name__}; nm.Sparse.from_matrix(matrix) takes a numpy or scipy matrix"
            )
        where = f"projection '{self.source}' -> '{self.target}', weight_bits"
        object.__setattr__(self, "weight_bits", whole_number(where, self.weight_bits, 1))
        if self.weight_bits > 32:
            raise InputError(f"{where}: expected at most 32, got {self.weight_bits}")


@dataclass(frozen=True, eq=False)
class Network:
    """Layers and projections; compared by content digest. Cycles (recurrence) are allowed."""

    name: str
    layers: tuple[Layer, ...]
    projections: tuple[Projection, ...]
    steps_per_inference: int = 1
    layer_index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check names, sizes and that a pair of layers is joined at most once."""
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "projections", tuple(self.projections))
        if not self.layers:
            raise InputError(f"network '{self.name}': expected at least one layer, got none")
        index = {layer.name: i for i, layer in enumerate(self.layers)}
        if len(index) < len(self.layers):
            raise InputError(f"network '{self.name}': expected unique layer names, got {[x.name for x in self.layers]}")
        object.__setattr__(self, "layer_index", index)
        steps = whole_number(f"network '{self.name}', steps_per_inference", self.steps_per_inference, 1)
        object.__setattr__(self, "steps_per_inference", steps)
        pairs = set()
        for p in self.projections:
            where = f"network '{self.name}', projection '{p.source}' -> '{p.target}'"
            for end, size in ((p.source, p.connectivity.n_source), (p.target, p.connectivity.n_target)):
                if end not in index:
                    raise InputError(f"{where}: no layer '{end}'; the layers are {', '.join(index)}")
                if self.layers[index[end]].size != size:
                    expected = self.layers[index[end]].size
                    raise InputError(f"{where}: expected connectivity for {expected} neurons of '{end}', got {size}")
            if (p.source, p.target) in pairs:
                raise InputError(f"{where}: expected one projection per pair of layers, got two; merge their synapses")
            pairs.add((p.source, p.target))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Layer names in order."""
        return tuple(layer.name for layer in self.layers)

    @property
    def n_neurons(self) -> int:
        """Neurons of all layers, input included."""
        return sum(layer.size for layer in self.layers)

    @property
    def n_synapses(self) -> int:
        """Stored synapses of all projections."""
        return sum(p.connectivity.n_synapses for p in self.projections)

    @cached_property
    def topological_order(self) -> tuple[int, ...]:
        """Layer indices so that sources come before targets; layers of one cycle keep their order of declaration."""
        graph = self._layer_graph()
        condensed = nx.condensation(graph)
        members = [sorted(condensed.nodes[c]["members"]) for c in condensed]
        order = nx.lexicographical_topological_sort(condensed, key=lambda c: members[c][0])
        return tuple(layer for c in order for layer in members[c])

    @cached_property
    def depth(self) -> int:
        """Projections on the longest path, at least 1.

        A cycle is counted once: a strongly connected group of n layers adds n projections (once round it).
        """
        graph = self._layer_graph()
        condensed = nx.condensation(graph)
        rounds = {}
        for c in condensed:
            layers = condensed.nodes[c]["members"]
            cyclic = len(layers) > 1 or any(graph.has_edge(v, v) for v in layers)
            rounds[c] = len(layers) if cyclic else 0
        longest: dict[int, int] = {}
        for c in nx.topological_sort(condensed):
            before = [longest[p] + 1 for p in condensed.predecessors(c)]
            longest[c] = max(before, default=0) + rounds[c]
        return max(1, *longest.values())

    def _layer_graph(self) -> Any:
        graph = nx.DiGraph()
        graph.add_nodes_from(range(len(self.layers)))
        graph.add_edges_from((self.layer_index[p.source], self.layer_index[p.target]) for p in self.projections)
        return graph

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content (the name does not count)."""
        meta, arrays = _to_arrays(self)
        del meta["name"]
        h = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
        for key in sorted(arrays):
            h.update(key.encode())
            h.update(np.ascontiguousarray(arrays[key]).tobytes())
        return h.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def _to_arrays(network: Network) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    arrays: dict[str, NDArray[Any]] = {}
    layers, projections = [], []
    for i, layer in enumerate(network.layers):
        layers.append({"name": layer.name, "size": layer.size, "kind": layer.kind})
        arrays[f"activity_{i}"] = layer.activity
    for i, p in enumerate(network.projections):
        form = type(p.connectivity).__name__.lower()
        projections.append({"source": p.source, "target": p.target, "form": form, "weight_bits": p.weight_bits})
        if isinstance(p.connectivity, Sparse):
            arrays[f"indptr_{i}"] = p.connectivity.indptr
            arrays[f"indices_{i}"] = p.connectivity.indices
    meta = {
        "schema": SCHEMA,
        "name": network.name,
        "steps_per_inference": network.steps_per_inference,
        "layers": layers,
        "projections": projections,
    }
    return meta, arrays


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network as one compressed `.npz` (no pickle inside); the path must end so."""
    if Path(path).suffix != ".npz":
        raise InputError(f"network file '{path}': expected an ending .npz, by which it is known when it is read")
    meta, arrays = _to_arrays(network)
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
                Layer(x["name"], x["size"], x["kind"], data[f"activity_{i}"]) for i, x in enumerate(meta["layers"])
            ]
            size = {layer.name: layer.size for layer in layers}
            projections = []
            for i, x in enumerate(meta["projections"]):
                shape = (size[x["source"]], size[x["target"]])
                connectivity: Connectivity = (
                    Dense(*shape)
                    if x["form"] == "dense"
                    else Sparse(*shape, indptr=data[f"indptr_{i}"], indices=data[f"indices_{i}"])
                )
                projections.append(Projection(x["source"], x["target"], connectivity, x["weight_bits"]))
            return Network(meta["name"], tuple(layers), tuple(projections), meta["steps_per_inference"])
    except InputError as error:
        raise InputError(f"network file '{path}': {error}") from error
    except READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allow_pickle" in reason or "context manager" in reason:  # numpy's advice does not help here
            reason = "no archive of plain arrays"
        raise InputError(
            f"network file '{path}': expected an .npz written by save_network, got something else ({reason})"
        ) from error
