"""Networks from NIR graphs (Pedersen et al., Nature Communications 15, 2024), all node types of nir 1.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import nir
import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network.activity import ActivitySpec
from neuromap_moo.network.assembly import UNIT_BITS, Assembly, Tensor, map_shape
from neuromap_moo.network.network import Network
from neuromap_moo.processes.hdf5 import read_hdf5
from neuromap_moo.readers.input_shape import InputShape, given_shapes

#: Node types whose neurons send messages.
NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold")
#: Weighted node types.
MATRICES, CONVOLUTIONS, POOLS = ("Affine", "Linear"), ("Conv1d", "Conv2d"), ("SumPool2d", "AvgPool2d")
#: Node types that pass values on; delays change when, not where to.
PASSES = ("Input", "Output", "Flatten", "Scale", "Delay")


def read_nir(path: Path, spec: ActivitySpec, input_shape: InputShape = None, weight_bits: int = 8) -> Network:
    """Read a NIR file: a layer per population of neurons, per pool, and per weighted node that no neurons follow.

    Parameters
    ----------
    path
        Of the file.
    spec
        Activity, of which the file holds none.
    input_shape
        In place of the file's own: of the one input, or of each by the name of its node.
    weight_bits
        That the file's floating-point weights are taken as quantised to; zeros of Affine and Linear nodes are culled.

    Raises
    ------
    InputError
        With the node for what cannot be read.

    """
    return read_graph(path, input_shape, weight_bits).assembly.network(path.stem, spec)


def read_graph(path: Path, input_shape: InputShape = None, weight_bits: int = 8) -> Reading:
    """Read a file; what it describes has its layers and connections."""
    where = f"'{path}'"
    data = read_hdf5(path, "a NIR file (HDF5)")
    try:
        # older files hold no types that would pass the check
        native = _native(data["node"]) | {"type_check": False}
        _set_shapes(where, native["nodes"], input_shape)
        graph = nir.dict2NIRNode(native)
        if not isinstance(graph, nir.NIRGraph):
            raise ValueError(f"its root is a {type(graph).__name__}, no graph")
        nodes, edges = _flat(graph)
    except InputError:
        raise
    except Exception as error:  # nir checks by assert and raises many kinds
        raise InputError(f"{where}: expected a NIR file, could not read it ({first_line(error)})") from error
    reading = Reading(where, nodes, edges, weight_bits)
    reading.read()
    return reading


def _set_shapes(where: str, nodes: Mapping[str, Any], input_shape: InputShape) -> None:
    """Give the graph's inputs the shapes that a user gives, in place."""
    inputs = {name: node for name, node in nodes.items() if node["type"] == "Input"}
    sizes = {name: np.ravel(node.get("shape", ())).tolist() for name, node in inputs.items()}
    for name, shape in given_shapes(where, input_shape, sizes).items():
        inputs[name]["shape"] = np.array(shape)


def _native(value: Any) -> Any:
    """Return nested dicts with texts and single values as nir expects them."""
    if isinstance(value, dict):
        return {key: _native(x) for key, x in value.items()}
    if value.dtype.kind == "U":
        return str(value) if value.ndim == 0 else value
    return value[()]


def _flat(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes by name and edges of a graph and of all graphs nested in it; a nested graph's name stands for no node."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    enters: dict[str, list[str]] = {}
    leaves: dict[str, list[str]] = {}
    for name, node in graph.nodes.items():
        full = f"{prefix}{name}"
        if isinstance(node, nir.NIRGraph):
            inner_nodes, inner_edges = _flat(node, f"{full}/")
            nodes |= inner_nodes
            edges += inner_edges
            own = {f"{full}/{key}": type(x).__name__ for key, x in node.nodes.items()}
            enters[full] = [key for key, kind in own.items() if kind == "Input"]
            leaves[full] = [key for key, kind in own.items() if kind == "Output"]
        else:
            nodes[full] = node
            enters[full] = leaves[full] = [full]
    for a, b in graph.edges:
        for end in (a, b):
            if f"{prefix}{end}" not in enters:
                raise InputError(f"edge {a} -> {b}: no node '{end}'")
        edges += [(x, y) for x in leaves[f"{prefix}{a}"] for y in enters[f"{prefix}{b}"]]
    return nodes, edges


class Connected(NamedTuple):
    """What a layer adds up: values of neurons times factors, by a weighted node or pool, or as they are."""

    node: str  #: the weighted node or pool; empty for none
    source: Tensor  #: in the shape of the node's input
    factor: FloatArray  #: of Scale nodes on the way, in that shape
    layer: str  #: the node whose neurons take it


class Reading:
    """A graph being read: layers first, since cycles go through them, then what connects them."""

    def __init__(self, where: str, nodes: dict[str, Any], edges: Sequence[tuple[str, str]], weight_bits: int) -> None:
        self.where, self.nodes, self.weight_bits = where, nodes, weight_bits
        self.kind = {name: type(node).__name__ for name, node in nodes.items()}
        for name, kind in self.kind.items():
            if kind not in (*NEURONS, *MATRICES, *CONVOLUTIONS, *POOLS, *PASSES):
                raise InputError(f"{where}, node '{name}': nodes of type {kind} cannot be mapped")
        self.before: dict[str, list[str]] = {name: [] for name in nodes}
        self.after: dict[str, list[str]] = {name: [] for name in nodes}
        for a, b in dict.fromkeys(edges):
            self.before[b].append(a)
            self.after[a].append(b)
        self.assembly = Assembly(where)
        self.neurons: dict[str, Tensor] = {}  # by node, in the shape of its values
        self.connected: list[Connected] = []
        self._shapes: dict[str, tuple[int, ...]] = {}

    def read(self) -> None:
        """Make all layers, then connect them."""
        made = [node for node in self._in_order() if self._is_layer(node)]
        for node in made:
            shape, kind = self.shape(node), self.kind[node].lower()
            if self.kind[node] in (*MATRICES, *CONVOLUTIONS):
                kind = "linear"
            elif self.kind[node] in POOLS:
                kind = "pool"
            layer = self.assembly.layer(node, prod(shape), kind, map_shape(shape))
            self.neurons[node] = layer.reshape(shape)
        for node in made:
            if self.kind[node] in NEURONS:
                for source in self.before[node]:
                    self._connect_neurons(source, node)
            elif self.kind[node] != "Input":
                self._connect(node, node)

    def _in_order(self) -> list[str]:
        """All nodes, from the inputs on."""
        order = [name for name in self.nodes if self.kind[name] == "Input" and not self.before[name]]
        seen = set(order)
        for name in order:
            for other in self.after[name]:
                if other not in seen:
                    seen.add(other)
                    order.append(other)
        return order + [name for name in self.nodes if name not in seen]

    def _is_layer(self, name: str) -> bool:
        kind = self.kind[name]
        if kind == "Input":
            return not self.before[name]
        if kind in (*MATRICES, *CONVOLUTIONS):
            return not self._feeds_neurons(name)
        return kind in NEURONS or kind in POOLS

    def _feeds_neurons(self, name: str) -> bool:
        """Tell whether one population of neurons adds up what this weighted node makes, and nobody else reads it."""
        after = self.after[name]
        return len(after) == 1 and self.kind[after[0]] in NEURONS

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the values that a node makes."""
        if name not in self._shapes:
            self._shapes[name] = ()  # met again only in a cycle without neurons
            self._shapes[name] = self._find_shape(name)
        if not self._shapes[name]:
            raise InputError(f"{self.where}, node '{name}': its size cannot be told; the cycle it is on has no neurons")
        return self._shapes[name]

    def _find_shape(self, name: str) -> tuple[int, ...]:
        node, kind = self.nodes[name], self.kind[name]
        if kind == "Input" and not self.before[name]:
            found = tuple(int(n) for n in np.ravel(node.input_type["input"]))
        elif kind in NEURONS:
            found = self._shape_of_neurons(name)
        elif kind in MATRICES:
            found = np.shape(self._weights(name))[:-1]
        elif kind in CONVOLUTIONS or kind in POOLS:
            found = self.window(name)[0]
        elif kind == "Flatten":
            found = self._flattened(node, self._shape_before(name))
        else:
            found = self._shape_before(name)
        found = tuple(int(n) for n in found) or (1,)
        if min(found) < 1:
            raise InputError(f"{self.where}, node '{name}': expected at least one value, got shape {found}")
        return found

    def _shape_of_neurons(self, name: str) -> tuple[int, ...]:
        """Shape of the constants of a population, or of what comes before where they are single numbers."""
        node = self.nodes[name]
        keys = ("v_threshold", "threshold", "r", "tau", "tau_mem", "v_leak")
        found = max((np.shape(getattr(node, key)) for key in keys if hasattr(node, key)), key=prod)
        return self._shape_before(name) if prod(found) <= 1 and self.before[name] else found

    def _shape_before(self, name: str) -> tuple[int, ...]:
        if not self.before[name]:
            raise InputError(f"{self.where}, node '{name}' ({self.kind[name]}): expected an edge into it, found none")
        return self.shape(self.before[name][0])

    @staticmethod
    def _flattened(node: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
        start, end = int(node.start_dim) % len(shape), int(node.end_dim) % len(shape)
        return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])

    def _weights(self, name: str) -> Any:
        weights = np.asarray(self.nodes[name].weight)
        axes = {"Conv1d": 3, "Conv2d": 4}.get(self.kind[name], 2)
        if weights.ndim != axes or 0 in weights.shape:
            raise InputError(f"{self.where}, node '{name}': expected weights of {axes} axes, got shape {weights.shape}")
        if not np.isfinite(weights).all():
            raise InputError(f"{self.where}, node '{name}': its weights hold NaN or infinity")
        return weights

    def window(self, name: str) -> tuple[tuple[int, ...], dict[str, Any]]:
        """Output shape and geometry of a convolution or pool."""
        node, kind, before = self.nodes[name], self.kind[name], self._shape_before(name)
        where = f"{self.where}, node '{name}' ({kind})"
        axes = 1 if kind == "Conv1d" else 2
        if len(before) != axes + 1:
            space = "length" if axes == 1 else "height, width"
            raise InputError(f"{where}: expected values (channels, {space}) before it, got shape {before}")
        if kind in POOLS:
            kernel, dilation = [int(n) for n in np.resize(node.kernel_size, 2)], [1, 1]
            groups = channels = before[0]
        else:
            weights = self._weights(name)
            kernel, dilation = list(weights.shape[2:]), [int(n) for n in np.resize(node.dilation, axes)]
            groups = int(node.groups)
            channels = weights.shape[0]
            if groups < 1 or weights.shape[1] * groups != before[0]:
                raise InputError(
                    f"{where}: expected {before[0]} input channels in {groups} groups, got weights {weights.shape}"
                )
        stride = np.resize(node.stride, axes).tolist()
        spans = [int(d) * (int(k) - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        total = _total_padding(where, node.padding, spans)
        if min(*stride, *dilation, *kernel) < 1:
            raise InputError(f"{where}: expected kernel, stride and dilation >= 1")
        sizes = [(n + t - span) // int(s) + 1 for n, t, span, s in zip(before[1:], total, spans, stride, strict=True)]

        geometry = {
            "kernel": _pair(kernel, 1),
            "stride": _pair(stride, 1),
            "padding": _pair([t // 2 for t in total], 0),
            "dilation": _pair(dilation, 1),
            "groups": groups,
        }
        return (channels, *sizes), geometry

    def _values(self, name: str, path: tuple[str, ...] = ()) -> list[tuple[Tensor, FloatArray]]:
        """Neurons whose values a node passes on, and what Scale nodes multiply these by; several are added up."""
        if name in self.neurons:
            return [(self.neurons[name], np.ones(()))]
        if name in path:
            raise InputError(f"{self.where}, node '{name}': expected neurons on the cycle it is on, found none")
        shape = self.shape(name)
        found = []
        for v, factor in (x for source in self.before[name] for x in self._values(source, (*path, name))):
            if v.size != prod(shape):
                raise InputError(
                    f"{self.where}, node '{name}': expected {prod(shape)} values of shape {shape}, got {v.shape}"
                )
            factor = np.broadcast_to(factor, v.shape).reshape(shape)
            if self.kind[name] == "Scale":
                factor = factor * np.asarray(self.nodes[name].scale, dtype=np.float64)
            found.append((v.reshape(shape), factor))
        return found

    def _connect_neurons(self, source: str, node: str) -> None:
        """Connect one of the nodes before a population of neurons to it."""
        target = self.neurons[node]
        if prod(self.shape(source)) != target.size:
            raise InputError(
                f"{self.where}, node '{node}': expected {target.size} values, "
                f"node '{source}' makes {self.shape(source)}"
            )
        if self.kind[source] in (*MATRICES, *CONVOLUTIONS) and self._feeds_neurons(source):
            self._connect(source, node)
            return
        for values, factor in self._values(source):
            self.assembly.connect_each(values.ravel(), target.ravel(), UNIT_BITS)
            self.connected.append(Connected("", values, factor, node))

    def _connect(self, node: str, layer: str) -> None:
        """Connect what comes before a weighted node or pool to the neurons that take its sums."""
        kind, target = self.kind[node], self.neurons[layer]
        for values, factor in (x for source in self.before[node] for x in self._values(source)):
            self.connected.append(Connected(node, values, factor, layer))
            if kind in MATRICES:
                weights = self._weights(node)
                if values.size != weights.shape[1]:
                    raise InputError(
                        f"{self.where}, node '{node}': expected {weights.shape[1]} values for weights "
                        f"{weights.shape}, got {values.shape}"
                    )
                self.assembly.connect_matrix(values.ravel(), target.ravel(), self.weight_bits, weights.T, False)
                continue
            shape, geometry = self.window(node)
            bits = UNIT_BITS if kind in POOLS else self.weight_bits
            maps = [(s[0], 1, s[1]) if len(s) == 2 else s for s in (values.shape, shape)]
            self.assembly.connect_convolution(values.reshape(maps[0]), target.ravel(), bits, maps[1], **geometry)


def _total_padding(where: str, padding: Any, spans: Sequence[int]) -> list[int]:
    """Padding of each axis, both sides together."""
    if not isinstance(padding, str):
        return [2 * int(p) for p in np.resize(padding, len(spans))]
    if padding not in ("same", "valid"):
        raise InputError(f"{where}, padding: expected numbers, 'same' or 'valid', got '{padding}'")
    return [span - 1 if padding == "same" else 0 for span in spans]


def _pair(values: Sequence[Any], default: int) -> tuple[int, int]:
    """(height, width) of one or two numbers; in one dimension the height's is the default."""
    return (default, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))
