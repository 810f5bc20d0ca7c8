"""Networks put together layer by layer, from arrays that tell which neuron stands where.

Readers pass *tensors* on: integer arrays in the shape that the file's format gives the values, each entry the number of
the neuron that sends this value, counted through all layers from 1; 0 where nobody sends. Whatever only moves values
(a transpose, a slice, padding) moves the numbers, so connections come out right however values were moved before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from neuromap_moo.arrays import FloatArray, IndexArray, IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.network.activity import ActivitySpec, lognormal_activity
from neuromap_moo.network.connectivity import Connectivity, Convolution, Dense, Sparse
from neuromap_moo.network.network import Layer, Network, Projection

Tensor = IntArray

#: Neurons of one layer; beyond any chip, and a guard against absurd sizes in broken files.
MAXIMUM_NEURONS = 100_000_000

#: Synapses of one projection that are kept one by one.
MAXIMUM_EXPLICIT = 200_000_000

#: A matrix with more non-zeros than this share is taken as dense, its zeros stored.
DENSE_SHARE = 0.95

#: Weight bits of connections that all have the weight 1.
UNIT_BITS = 1


@dataclass
class _Draft:
    name: str
    size: int
    kind: str
    shape: tuple[int, int, int] | None
    first: int  # number of its first neuron


class Assembly:
    """Layers and projections as a reader finds them; `network` makes the network."""

    def __init__(self, where: str) -> None:
        self.where = where  # names the file in errors
        self._drafts: list[_Draft] = []
        self._names: set[str] = set()
        self._projections: list[tuple[int, int, Connectivity, int]] = []
        self._n = 1
        self._relayed: list[tuple[Tensor, Tensor]] = []  # neurons that send what others send, and those
        self._notes: dict[str, None] = {}  # in order, each once

    def note(self, text: str) -> None:
        """Keep what was approximated or left out for the network's `notes`."""
        self._notes[text] = None

    def layer(self, name: str, size: int, kind: str, shape: Sequence[int] | None = None) -> Tensor:
        """Add a layer, a feature map where a shape (channels, height, width) is given; return its neurons (size,)."""
        if not 1 <= size <= MAXIMUM_NEURONS:
            raise InputError(f"{self.where}, layer '{name}': expected 1 to {MAXIMUM_NEURONS} neurons, got {size}")
        unique, n = name, 1
        while unique in self._names:
            n += 1
            unique = f"{name}_{n}"
        self._names.add(unique)
        full = None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2]))
        self._drafts.append(_Draft(unique, size, kind, full, self._n))
        self._n += size
        return np.arange(self._n - size, self._n, dtype=np.int64)

    def change_kind(self, neuron: int, kind: str) -> None:
        """Let the layer of a neuron be of another kind."""
        self._drafts[self._index(neuron)].kind = kind

    def layers_of(self, neurons: Tensor) -> list[int]:
        """First neuron of each layer that any of these neurons belongs to."""
        highest = int(neurons.max(initial=0))
        if highest == 0:
            return []
        lowest = int(neurons.min(initial=highest, where=neurons > 0))
        low, high = self._index(lowest), self._index(highest)
        if low == high:
            return [self._drafts[low].first]
        there = np.zeros(highest - lowest + 1, dtype=bool)
        there[neurons[neurons > 0] - lowest] = True
        between = self._drafts[low : high + 1]
        return [d.first for d in between if there[max(0, d.first - lowest) : d.first + d.size - lowest].any()]

    def convolve(
        self, name: str, source: Tensor, kind: str, weight_bits: int, output_shape: Sequence[int], **geometry: Any
    ) -> Tensor:
        """Add the layer that a convolution of a map (channels, height, width) makes; return it as a map (C, H, W)."""
        shape = (int(output_shape[0]), int(output_shape[1]), int(output_shape[2]))
        if min(shape) < 1 or 0 in source.shape:
            raise InputError(f"{self.where}, layer '{name}': expected a map of at least one value, got {shape}")
        target = self.layer(name, prod(shape), kind, shape)
        self.connect_convolution(source, target, weight_bits, shape, **geometry)
        return target.reshape(shape)

    def connect_convolution(
        self, source: Tensor, target: Tensor, weight_bits: int, output_shape: Sequence[int], **geometry: Any
    ) -> None:
        """Connect a map (channels, height, width) to the neurons of a layer as a convolution does."""

        def make(place: IndexArray) -> Connectivity:
            return Convolution(tuple(source.shape), tuple(output_shape), **geometry, place=place)  # type: ignore[arg-type]

        self._connect(source, target, weight_bits, make)

    def connect_matrix(
        self, source: Tensor, target: Tensor, weight_bits: int, weights: Any | None = None, keep_zeros: bool = True
    ) -> None:
        """Connect every value (n,) to every neuron (m,), or as the non-zeros of `weights` (n, m) say.

        Zeros of a matrix that has few are stored, unless `keep_zeros` is false.
        """
        n, m = source.size, target.size
        is_dense = weights is None or (keep_zeros and np.count_nonzero(weights) > DENSE_SHARE * n * m)

        def make(place: IndexArray) -> Connectivity:
            if is_dense and (place >= 0).all():
                return Dense(place.size, m)
            if n * m > MAXIMUM_EXPLICIT:
                return Convolution((n, 1, 1), (m, 1, 1), (1, 1), place=place)
            rows = csr_array(np.ones((n, m), dtype=np.int8) if is_dense else np.asarray(weights) != 0)
            extended = csr_array((rows.data, rows.indices, np.append(rows.indptr, rows.indptr[-1])), (n + 1, m))
            return Sparse.from_matrix(extended[np.where(place < 0, n, place)])

        self._connect(source, target, weight_bits, make)

    def connect_each(self, source: Tensor, target: Tensor, weight_bits: int = UNIT_BITS) -> None:
        """Connect value i to neuron i; a value may come from the same neuron as others."""
        draft = self._drafts[self._index(int(target[0]))]
        shape = draft.shape or (draft.size, 1, 1)
        flat, numbers = source.ravel(), target - draft.first
        placed = np.zeros(draft.size, dtype=np.int64)
        placed[numbers] = flat
        if all_different(placed):
            geometry = {"kernel": (1, 1), "groups": shape[0]}
            self.connect_convolution(placed.reshape(shape), target, weight_bits, shape, **geometry)
            return
        everybody = np.arange(draft.first, draft.first + draft.size)
        self.connect_pairs(placed, everybody, everybody, weight_bits)

    def connect(self, source: Tensor, target: Tensor, connectivity: Connectivity, weight_bits: int) -> None:
        """Connect all neurons of one layer to all of another, as given."""
        self._add(self._index(int(source[0])), target, connectivity, weight_bits)

    def connect_pairs(self, sources: Tensor, targets: Tensor, layer: Tensor, weight_bits: int) -> None:
        """Connect neuron sources[i], 0 for none, to targets[i], each pair once; `layer` holds all targets."""
        if sources.size > MAXIMUM_EXPLICIT:
            raise InputError(f"{self.where}: expected at most {MAXIMUM_EXPLICIT} synapses, got {sources.size}")
        for first in self.layers_of(sources):
            i = self._index(first)
            own = self._drafts[i]
            at = np.flatnonzero((sources >= first) & (sources < first + own.size))
            pairs = (np.ones(at.size, dtype=np.int8), (sources[at] - first, targets[at] - layer[0]))
            self._add(i, layer, Sparse.from_matrix(csr_array(pairs, (own.size, layer.size))), weight_bits)

    def multiply(self, name: str, left: Tensor, right: Tensor, kind: str) -> Tensor:
        """Add the layer of the matrix products of values (b, m, k) and (b, k, n); return it as (b, m, n).

        Each value meets others, no weights: what comes from the left reaches a row, from the right a column.
        """
        b, m, k = left.shape
        n = right.shape[2]
        shape = (b, m, n)
        target = self.layer(name, prod(shape), kind, shape)
        by_row = np.ascontiguousarray(left.transpose(0, 2, 1)).reshape(b * k, m, 1)
        by_column = np.ascontiguousarray(right).reshape(b * k, 1, n)
        for source, kernel in ((by_row, (1, n)), (by_column, (m, 1))):
            padding = (kernel[0] - 1, kernel[1] - 1)
            self.connect_convolution(source, target, 0, shape, kernel=kernel, padding=padding, groups=b)
        return target.reshape(shape)

    def relay(self, name: str, source: Tensor, kind: str, shape: Sequence[int] | None = None) -> Tensor:
        """Add a layer that takes each value on, one neuron each; return it in the source's shape."""
        target = self.layer(name, source.size, kind, shape)
        self._relayed.append((target, source.ravel()))
        self.connect_each(source, target)
        return target.reshape(source.shape)

    @property
    def n_neurons(self) -> int:
        """Neurons of all layers so far."""
        return self._n - 1

    def pass_on(self, values: NDArray[Any]) -> None:
        """Give relays, in place, what the neurons before them have, of values that belong to all neurons."""
        for target, source in self._relayed:
            there = source > 0
            values[target[there] - 1] = values[source[there] - 1]

    def by_layer(self, values: FloatArray) -> dict[str, FloatArray]:
        """Cut what belongs to all neurons (n_neurons,) into layers, by name."""
        return {d.name: values[d.first - 1 : d.first - 1 + d.size] for d in self._drafts}

    def network(self, name: str, spec: ActivitySpec) -> Network:
        """Make the network; no format read so far holds activity, so it is drawn as `spec` says."""
        rng = np.random.default_rng(spec.seed)
        if not self._drafts:
            raise InputError(f"{self.where}: expected at least one layer of neurons, found none")
        joined = {end for a, b, _, _ in self._projections for end in (a, b)}
        layers = [
            Layer(d.name, d.size, d.kind, lognormal_activity(d.size, spec.activity, spec.activity_sigma, rng), d.shape)
            for i, d in enumerate(self._drafts)
            if i in joined or not joined  # an input that nothing on the chip reads is none
        ]
        names = [d.name for d in self._drafts]
        projections = [Projection(names[a], names[b], c, bits) for a, b, c, bits in self._projections]
        return Network(name, tuple(layers), tuple(projections), spec.steps_per_inference, tuple(self._notes))

    def _connect(
        self,
        source: Tensor,
        target: Tensor,
        weight_bits: int,
        make: Callable[[IndexArray], Connectivity],
    ) -> None:
        for layer, place in self._parts(source, target):
            self._add(layer, target, make(place), weight_bits)

    def _parts(self, source: Tensor, target: Tensor) -> Iterator[tuple[int, IndexArray]]:
        """Layers that stand in a tensor, each with the place (flat) of its neurons in it, -1 where they are not."""
        flat = source.ravel()
        if not all_different(flat):
            name = self._drafts[self._index(int(target[0]))].name
            flat = self.relay(f"{name}_copies", flat, "relay")
        for first in self.layers_of(flat):
            layer = self._index(first)
            size = self._drafts[layer].size
            at = np.flatnonzero((flat >= first) & (flat < first + size))
            place = np.full(size, -1, dtype=np.int32)
            place[flat[at] - first] = at
            yield layer, place

    def _add(self, source: int, target: Tensor, connectivity: Connectivity, weight_bits: int) -> None:
        """Add a projection, by way of relays where its neurons already have synapses into the target layer."""
        to = self._index(int(target[0]))
        earlier = [c for a, b, c, _ in self._projections if (a, b) == (source, to)]
        if any((c.sends & connectivity.sends).any() for c in earlier):
            if _is_identity(connectivity) and any(_covers_identity(c) for c in earlier):
                return  # a synapse more from a neuron to its own place is a change of the weight there
            own = self._drafts[source]
            neurons = np.arange(own.first, own.first + own.size)
            self.relay(f"{own.name}_to_{self._drafts[to].name}", neurons, "relay", own.shape)
            source = len(self._drafts) - 1
        self._projections.append((source, to, connectivity, weight_bits))

    def _index(self, neuron: int) -> int:
        """Layer of a neuron."""
        return bisect_right(self._drafts, neuron, key=lambda d: d.first) - 1


def _is_identity(c: Connectivity) -> bool:
    """Tell whether each neuron reaches the one at its own place alone."""
    if not isinstance(c, Convolution) or c.kernel != (1, 1) or c.input_shape != c.output_shape:
        return False
    return c.groups == c.input_shape[0] and _is_natural(c.place)


def _covers_identity(c: Connectivity) -> bool:
    """Tell whether each neuron reaches the one at its own place, among others; in a plain case."""
    if not isinstance(c, Convolution):
        return isinstance(c, Dense) and c.n_source == c.n_target
    steps = [divmod(p, d) for p, d in zip(c.padding, c.dilation, strict=True)]
    inside = all(rest == 0 and 0 <= j < k for (j, rest), k in zip(steps, c.kernel, strict=True))
    same = c.input_shape == c.output_shape and c.stride == (1, 1) and not c.transposed
    return same and inside and _is_natural(c.place)


def _is_natural(place: IndexArray) -> bool:
    return bool((place == np.arange(place.size)).all())


def all_different(neurons: Tensor) -> bool:
    """Tell whether no neuron stands twice in a tensor; 0 is none."""
    ids = neurons[neurons > 0]
    if ids.size < 2:
        return True
    lowest = int(ids.min())
    there = np.zeros(int(ids.max()) - lowest + 1, dtype=bool)
    there[ids - lowest] = True
    return int(np.count_nonzero(there)) == ids.size


def map_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """(channels, height, width) of values of this shape, channels first; None where there are no axes in space."""
    sizes = [int(n) for n in shape]
    if len(sizes) == 2:
        sizes = [sizes[0], 1, sizes[1]]
    elif len(sizes) > 3:
        sizes = [prod(sizes[:-2]), *sizes[-2:]]
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 and prod(sizes[1:]) > 1 else None


def weight_bits_of(weights: FloatArray) -> int:
    """Bits that Lava's compiler gives integer weights: common powers of two leave the mantissa, 7 counts as 8.

    Weights of both signs keep one bit for the sign.
    """
    values = np.unique(np.abs(weights.astype(np.int64)))
    values = values[values > 0]
    if values.size == 0:
        return 1
    common = int(np.bitwise_or.reduce(values))
    exponent = (common & -common).bit_length() - 1
    high = int(max(weights.max(), 0)) >> exponent
    low = int(max(-weights.min(), 0)) >> exponent
    # Two's complement reaches one further below zero than above it.
    mixed = 1 + max(high.bit_length(), (low - 1).bit_length())
    bits = mixed if high and low else max(high, low).bit_length()
    return 8 if bits == 7 else bits
