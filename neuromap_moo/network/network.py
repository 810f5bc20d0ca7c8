"""Networks: layers of neurons, the projections between them, and the activity of each neuron."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError, did_you_mean, whole_number
from neuromap_moo.network.connectivity import (
    GEOMETRY,
    NUMBERINGS,
    Connectivity,
    Convolution,
    Dense,
    Sparse,
    frozen,
    natural_of_number,
)

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Layer:
    """A population of neurons.

    Parameters
    ----------
    name
        Unique in its network.
    size
        Neurons.
    kind
        What the neurons do, such as input, lif, relu or sigma_delta; any word.
    activity
        (size,) mean messages per neuron and timestep, finite and >= 0.
    shape
        (channels, height, width) of a feature map; None for other layers.
    cut
        How the neurons of a feature map are numbered, "channels", "rows" or "columns": slices are runs of numbers, so
        the map is cut along that axis. `nm.with_cuts` changes it.
    order
        (size,) the number that each neuron had before `nm.with_orders` numbered them anew; None where it has not.

    Raises
    ------
    InputError
        For sizes and shapes that do not fit, and activity out of range.

    """

    name: str
    size: int
    kind: str
    activity: FloatArray
    shape: tuple[int, int, int] | None = None
    cut: str = "channels"
    order: IntArray | None = None

    def __post_init__(self) -> None:
        """Freeze the activity and check it."""
        object.__setattr__(self, "size", whole_number(f"layer '{self.name}', size", self.size, 1))
        object.__setattr__(self, "activity", frozen(f"layer '{self.name}', activity", self.activity, np.float64))
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
        if self.cut not in NUMBERINGS:
            raise InputError(f"layer '{self.name}', cut: expected one of {', '.join(NUMBERINGS)}, got {self.cut!r}")
        if self.order is not None:
            self._check_order(self.order)
        if self.shape is not None:
            self._check_shape(self.shape)

    def _check_order(self, order: IntArray) -> None:
        object.__setattr__(self, "order", frozen(f"layer '{self.name}', order", order, np.int64))
        if self.shape is not None or not np.array_equal(np.sort(order), np.arange(self.size)):
            raise InputError(
                f"layer '{self.name}', order: expected each of 0..{self.size - 1} once, in a layer without a shape"
            )

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or int(np.prod(shape, dtype=np.int64)) != self.size or min(shape) < 1:
            raise InputError(
                f"layer '{self.name}', shape: expected (channels, height, width) of {self.size} neurons, got {shape}"
            )
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))


@dataclass(frozen=True, eq=False)
class Projection:
    """The connections from one layer to another.

    Parameters
    ----------
    source, target
        Names of the layers.
    connectivity
        Which neurons reach which: `nm.Sparse`, `nm.Dense` or `nm.Convolution`.
    weight_bits
        Bits of every weight, 0 to 32. With 0 there are no weights: nothing is stored and nothing read, as where one
        activation multiplies another.

    Raises
    ------
    InputError
        For another connectivity or width.

    """

    source: str
    target: str
    connectivity: Connectivity
    weight_bits: int = 8

    def __post_init__(self) -> None:
        """Check the weight width."""
        if not isinstance(self.connectivity, (Sparse, Dense, Convolution)):
            raise InputError(
                f"projection '{self.source}' -> '{self.target}': expected nm.Sparse, nm.Dense or nm.Convolution, got "
                f"{type(self.connectivity).__name__}; nm.Sparse.from_matrix(matrix) takes a numpy or scipy matrix"
            )
        where = f"projection '{self.source}' -> '{self.target}', weight_bits"
        object.__setattr__(self, "weight_bits", whole_number(where, self.weight_bits))
        if self.weight_bits > 32:
            raise InputError(f"{where}: expected at most 32, got {self.weight_bits}")


@dataclass(frozen=True, eq=False)
class Network:
    """Layers and the projections between them, of which some may form cycles; compared by content digest.

    Parameters
    ----------
    name
        For people; it does not count when networks are compared.
    layers
        With unique names; a mapping's cores are counted in this order.
    projections
        At most one per pair of layers, or several from different neurons of the source.
    steps_per_inference
        Timesteps of input that one inference needs: 1 for a pipelined graded network, many for a rate-coded one.
    notes
        What a reader approximated or left out; it does not count when networks are compared.

    Raises
    ------
    InputError
        For names that are not unique or unknown, sizes that do not fit, and synapses that should be in one projection.

    """

    name: str
    layers: tuple[Layer, ...]
    projections: tuple[Projection, ...]
    steps_per_inference: int = 1
    notes: tuple[str, ...] = ()
    layer_index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check names, sizes and that each neuron has its synapses to a layer in one projection."""
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "projections", tuple(self.projections))
        object.__setattr__(self, "notes", tuple(self.notes))
        if not self.layers:
            raise InputError(f"network '{self.name}': expected at least one layer, got none")
        index = {layer.name: i for i, layer in enumerate(self.layers)}
        if len(index) < len(self.layers):
            raise InputError(f"network '{self.name}': expected unique layer names, got {[x.name for x in self.layers]}")
        object.__setattr__(self, "layer_index", index)
        steps = whole_number(f"network '{self.name}', steps_per_inference", self.steps_per_inference, 1)
        object.__setattr__(self, "steps_per_inference", steps)
        for p in self.projections:
            self._check_ends(p)
        self._check_pairs()

    def _check_ends(self, p: Projection) -> None:
        """Raise InputError where a projection does not fit its layers."""
        index = self.layer_index
        where = f"network '{self.name}', projection '{p.source}' -> '{p.target}'"
        for end, size in ((p.source, p.connectivity.n_source), (p.target, p.connectivity.n_target)):
            if end not in index:
                raise InputError(f"{where}: no layer '{end}'; the layers are {', '.join(index)}")
            if self.layers[index[end]].size != size:
                expected = self.layers[index[end]].size
                raise InputError(f"{where}: expected connectivity for {expected} neurons of '{end}', got {size}")
        if isinstance(p.connectivity, Convolution):
            layer = self.layers[index[p.target]]
            shape = layer.shape or (layer.size, 1, 1)
            if (shape, layer.cut) != (p.connectivity.output_shape, p.connectivity.cut):
                raise InputError(
                    f"{where}: expected a target layer of shape {p.connectivity.output_shape} cut by "
                    f"{p.connectivity.cut}, got shape {shape} cut by {layer.cut}"
                )

    def _check_pairs(self) -> None:
        """Raise InputError where a neuron has its synapses into a layer in several projections."""
        pairs: dict[tuple[str, str], list[Projection]] = {}
        for p in self.projections:
            pairs.setdefault((p.source, p.target), []).append(p)
        for (source, target), joined in pairs.items():
            # A neuron sends one message to a core, whatever for: its synapses must be counted together.
            if len(joined) > 1 and np.sum([p.connectivity.sends for p in joined], axis=0).max() > 1:
                raise InputError(
                    f"network '{self.name}', projection '{source}' -> '{target}': expected one projection per pair of "
                    f"layers, or several from different neurons, got {len(joined)}; merge their synapses"
                )

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
        meta, arrays = to_arrays(self)
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


def with_cuts(network: Network, cuts: Mapping[str, str]) -> Network:
    """Return the network with the neurons of some feature maps numbered anew; itself where nothing changes.

    `cuts` are "channels", "rows" or "columns" by layer name, as `cut` of `nm.Layer`. Activity and synapses stay with
    their neurons. Raises InputError for an unknown layer or numbering, and for a layer that is no feature map.
    """
    _refuse_unknown("cut", cuts, network)
    layers: list[Layer] = []
    earlier: dict[str, IntArray] = {}
    for layer in network.layers:
        cut = cuts.get(layer.name, layer.cut)
        if cut != layer.cut:
            if layer.shape is None:
                raise InputError(f"layer '{layer.name}', cut: expected a feature map, it has no shape")
            if cut not in NUMBERINGS:
                raise InputError(f"layer '{layer.name}', cut: expected one of {', '.join(NUMBERINGS)}, got {cut!r}")
            number = np.argsort(natural_of_number(layer.shape, layer.cut))
            earlier[layer.name] = number[natural_of_number(layer.shape, cut)]
            layer = replace(layer, cut=cut)
        layers.append(layer)
    return _renumbered(network, layers, earlier) if earlier else network


def with_orders(network: Network, orders: Mapping[str, IntArray]) -> Network:
    """Return the network with the neurons of some layers in another order, by layer name: `order` as in `Layer`.

    Only layers without a shape can be ordered; what comes into them must be no convolution. Raises InputError for
    others, and for an order that is no permutation.
    """
    _refuse_unknown("order", orders, network)
    layers = []
    for layer in network.layers:
        if layer.name in orders:
            order = np.asarray(orders[layer.name])
            replace(layer, order=order)  # checks it
            layer = replace(layer, order=order if layer.order is None else layer.order[order])
        layers.append(layer)
    for p in network.projections:
        if p.target in orders and isinstance(p.connectivity, Convolution):
            raise InputError(f"layer '{p.target}', order: expected no convolution into it, there is one")
    return _renumbered(network, layers, dict(orders))


def _refuse_unknown(what: str, given: Mapping[str, Any], network: Network) -> None:
    for name in sorted(given.keys() - set(network.layer_names)):
        raise InputError(f"{what}: no layer '{name}'{did_you_mean(name, network.layer_names)}")


def _renumbered(network: Network, layers: Sequence[Layer], earlier: Mapping[str, IntArray]) -> Network:
    """Return the network of these layers, whose neurons had the numbers `earlier` (size,) by layer name."""
    moved = [replace(x, activity=x.activity[earlier[x.name]]) if x.name in earlier else x for x in layers]
    cut = {x.name: x.cut for x in layers}
    projections = [
        replace(p, connectivity=_connected(p.connectivity, earlier.get(p.source), earlier.get(p.target), cut[p.target]))
        for p in network.projections
    ]
    return replace(network, layers=tuple(moved), projections=tuple(projections))


def _connected(c: Connectivity, of_source: IntArray | None, of_target: IntArray | None, cut: str) -> Connectivity:
    """Return the connectivity of neurons that had these numbers before; None where they have kept them."""
    if isinstance(c, Convolution):
        if of_source is not None:
            c = replace(c, place=c.place[of_source])
        return c if of_target is None else replace(c, cut=cut)
    if isinstance(c, Dense) or (of_source is None and of_target is None):
        return c
    matrix = csr_array((np.ones(c.indices.size, dtype=np.int8), c.indices, c.indptr), (c.n_source, c.n_target))
    matrix = matrix if of_source is None else matrix[of_source]
    return Sparse.from_matrix(matrix if of_target is None else matrix[:, of_target])


def with_activity(network: Network, activity: Mapping[str, FloatArray]) -> Network:
    """Return the network with other activity (size,) in some layers, by name, in the order of its neurons.

    Raises InputError for an unknown layer and for activity that does not fit it.
    """
    _refuse_unknown("activity", activity, network)
    layers = [replace(x, activity=activity[x.name]) if x.name in activity else x for x in network.layers]
    return replace(network, layers=tuple(layers))


def layer_table(network: Network, fewest_cores: Sequence[int] | None = None) -> dict[str, list[Any]]:
    """Return a column per property of the layers: incoming synapses, mean activity, messages sent per timestep, ...

    Multiplications are those of all incoming weights, as if every neuron sent (`n_multiplications`), without those of
    connections that only add up or pass on (1 bit) and with those of one activation by another (0 bits).
    """
    incoming: dict[str, list[Projection]] = {x.name: [] for x in network.layers}
    for p in network.projections:
        incoming[p.target].append(p)
    rows = [_row_of_table(layer, incoming[layer.name]) for layer in network.layers]
    table: dict[str, list[Any]] = {key: [row[key] for row in rows] for key in rows[0]}
    if fewest_cores is not None:
        table["fewest_cores"] = [int(k) for k in fewest_cores]
    return table


def _row_of_table(layer: Layer, incoming: Sequence[Projection]) -> dict[str, Any]:
    return {
        "layer": layer.name,
        "kind": layer.kind,
        "shape": "x".join(map(str, layer.shape or (layer.size,))),
        "cut": layer.cut if layer.shape else "",
        "neurons": layer.size,
        "synapses": sum(p.connectivity.n_synapses for p in incoming),
        "multiplications": sum(p.connectivity.n_multiplications for p in incoming if p.weight_bits != 1),
        "activity": float(layer.activity.mean()),
        "messages": float(layer.activity.sum()),
    }


def to_arrays(network: Network) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the content of a network as plain data and arrays by name: what a file holds, and what a digest covers."""
    arrays: dict[str, NDArray[Any]] = {}
    layers, projections = [], []
    for i, layer in enumerate(network.layers):
        entry: dict[str, Any] = {"name": layer.name, "size": layer.size, "kind": layer.kind}
        if layer.shape is not None:
            entry |= {"shape": list(layer.shape), "cut": layer.cut}
        if layer.order is not None:
            arrays[f"order_{i}"] = layer.order
        layers.append(entry)
        arrays[f"activity_{i}"] = layer.activity
    for i, p in enumerate(network.projections):
        c = p.connectivity
        entry = {"source": p.source, "target": p.target, "form": type(c).__name__.lower(), "weight_bits": p.weight_bits}
        if isinstance(c, Sparse):
            arrays |= {f"indptr_{i}": c.indptr, f"indices_{i}": c.indices}
        elif isinstance(c, Convolution):
            entry |= {key: getattr(c, key) for key in GEOMETRY}
            arrays[f"place_{i}"] = c.place
        projections.append(entry)
    meta = {
        "schema": SCHEMA,
        "name": network.name,
        "steps_per_inference": network.steps_per_inference,
        "layers": layers,
        "projections": projections,
    }
    return meta, arrays
