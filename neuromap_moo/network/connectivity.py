"""Connectivity: which neurons of one layer reach which of another, as explicit rows or in closed form.

Every form answers the same questions for given boundaries of the target's slices, and a closed form answers them as
the explicit `Sparse` of the same synapses would. Neurons whose synapses are the same share a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from neuromap_moo.arrays import BoolArray, IndexArray, IntArray
from neuromap_moo.errors import InputError, whole_number
from neuromap_moo.network.counts import largest_window_words, rows_product, rows_sparse, words_of_rows


def natural_of_number(shape: tuple[int, int, int], numbering: str) -> IntArray:
    """Place (n,) in the map (channels, height, width), in C order, of each neuron as `numbering` counts them."""
    places = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64).reshape(shape)
    return np.ascontiguousarray(places.transpose(NUMBERINGS[numbering])).ravel()


#: Bits of a synapse's target index, of a row's header and of a memory word in the vendor's synapse memory
#: (recovered from public compile logs; see docs/model.md).
INDEX_BITS, HEADER_BITS, WORD_BITS = 12, 16, 64

#: A kernel that neurons share is stored with so many bits more per weight, its input channels filled up to a multiple
#: (recovered from public compile logs; see docs/model.md).
SHARED_BITS, CHANNEL_MULTIPLE = 1, 16

#: Slices of one target layer; their numbers are kept in 16 bits.
MOST_SLICES = 2**16 - 1

#: How the neurons of a feature map are numbered: the axes (channel 0, row 1, column 2), outermost first. Slices are
#: runs of numbers, so a map is cut along its outermost axis.
NUMBERINGS = {"channels": (0, 1, 2), "rows": (1, 2, 0), "columns": (2, 1, 0)}


def row_words(synapses: IntArray, weight_bits: int) -> IntArray:
    """Return the number of 64-bit words that store a row of `synapses` synapses (docs/model.md, Partition and memory).

    It is 0 for an empty row and for projections without weights.
    """
    if weight_bits == 0:
        return np.zeros(np.shape(synapses), dtype=np.int64)
    bits = synapses * (weight_bits + INDEX_BITS) + HEADER_BITS
    return np.where(synapses > 0, -(-bits // WORD_BITS), 0).astype(np.int64)


def slice_bounds(size: int, n_slices: int) -> IntArray:
    """Boundaries (n_slices + 1,) of contiguous slices whose sizes differ by at most 1, the larger ones first."""
    base, rest = divmod(size, n_slices)
    sizes = np.full(n_slices, base, dtype=np.int64)
    sizes[:rest] += 1
    return np.concatenate([[0], np.cumsum(sizes)])


class SliceRows(NamedTuple):
    """What the R rows of a projection reach: row r the slices[start[r]:start[r + 1]] of the target layer."""

    start: IntArray  #: (R + 1,)
    slices: NDArray[np.uint16]  #: (E,) of the target layer, ascending in each row
    synapses: IndexArray  #: (E,) of a neuron with this row into the slice


def frozen(where: str, given: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """Return a read-only copy as `dtype`; raise InputError where that would change a value."""
    array = np.asarray(given)
    if array.size and array.dtype.kind not in ("iuf" if issubclass(dtype, np.floating) else "iu"):
        raise InputError(f"{where}: expected numbers of type {dtype.__name__}, got {array.dtype}")
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy


def _slice_of_target(target_bounds: IntArray) -> IndexArray:
    """(n_target,) slice of each target neuron."""
    return np.repeat(np.arange(target_bounds.size - 1, dtype=np.int32), np.diff(target_bounds))


def _set_sizes(connectivity: Sparse | Dense) -> None:
    for key in ("n_source", "n_target"):
        object.__setattr__(connectivity, key, whole_number(f"connectivity, {key}", getattr(connectivity, key), 1))


@dataclass(frozen=True, eq=False)
class Sparse:
    """Explicit connectivity: row i of the CSR arrays lists the targets of source neuron i, ascending.

    Parameters
    ----------
    n_source, n_target
        Neurons of both layers.
    indptr
        (n_source + 1,) where each row begins in `indices`, and where the last one ends.
    indices
        (n_synapses,) target neurons.

    Raises
    ------
    InputError
        Where the arrays are no CSR matrix with ascending, unique columns.

    Examples
    --------
    >>> Sparse(2, 3, [0, 2, 3], [0, 2, 1]).n_synapses
    3

    """

    n_source: int
    n_target: int
    indptr: IntArray
    indices: IndexArray

    def __post_init__(self) -> None:
        """Freeze the arrays and check that they are a CSR matrix with sorted, unique columns."""
        _set_sizes(self)
        raw = np.asarray(self.indices)
        if raw.size and raw.dtype.kind in "iu" and (raw.min() < 0 or raw.max() >= self.n_target):
            raise InputError(
                f"sparse connectivity: expected target indices in 0..{self.n_target - 1}, got {raw.min()}..{raw.max()}"
            )
        object.__setattr__(self, "indptr", frozen("sparse connectivity, indptr", self.indptr, np.int64))
        object.__setattr__(self, "indices", frozen("sparse connectivity, indices", raw, np.int32))
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
        """Synapses."""
        return int(self.indices.size)

    @property
    def n_multiplications(self) -> int:
        """Multiplications when every neuron sends: one per synapse."""
        return self.n_synapses

    @property
    def sends(self) -> BoolArray:
        """(n_source,) does the neuron have any synapse."""
        return np.asarray(np.diff(self.indptr) > 0)

    @cached_property
    def row_of_source(self) -> IndexArray:
        """(n_source,) row of each source neuron: its own."""
        return np.arange(self.n_source, dtype=np.int32)

    def rows(self, target_bounds: IntArray) -> SliceRows:
        """Return what each row reaches of the slices between `target_bounds` (k + 1,)."""
        return SliceRows(*rows_sparse(self.indptr, self.indices, _slice_of_target(target_bounds)))

    def words(self, weight_bits: int, target_bounds: IntArray, rows: SliceRows | None = None) -> IntArray:
        """64-bit words (k,) that each slice stores: a row for each source neuron that reaches it.

        `rows` are those of these boundaries, where they are known.
        """
        _, slices, synapses = self.rows(target_bounds) if rows is None else rows
        words_of = row_words(np.arange(int(np.max(synapses, initial=0)) + 1), weight_bits)
        words: IntArray = words_of_rows(slices, synapses, words_of, target_bounds.size - 1)
        return words

    def window_words(self, weight_bits: int, window: int) -> int:
        """Most words that any `window` neighbouring target neurons take, wherever they begin."""
        columns = self._by_target
        return int(
            largest_window_words(
                columns[0], columns[1], self.n_source, window, row_words(np.arange(window + 1), weight_bits)
            )
        )

    @cached_property
    def _by_target(self) -> tuple[IntArray, IndexArray]:
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
        """Synapses."""
        return self.n_source * self.n_target

    @property
    def n_multiplications(self) -> int:
        """Multiplications when every neuron sends: one per synapse."""
        return self.n_synapses

    @property
    def sends(self) -> BoolArray:
        """(n_source,) does the neuron have any synapse."""
        return np.ones(self.n_source, dtype=np.bool_)

    @cached_property
    def row_of_source(self) -> IndexArray:
        """(n_source,) row of each source neuron: the same for all."""
        return np.zeros(self.n_source, dtype=np.int32)

    def rows(self, target_bounds: IntArray) -> SliceRows:
        """Return what the one row reaches of the slices between `target_bounds` (k + 1,): all."""
        k = target_bounds.size - 1
        return SliceRows(np.array([0, k]), np.arange(k, dtype=np.uint16), np.diff(target_bounds).astype(np.int32))

    def words(self, weight_bits: int, target_bounds: IntArray, rows: SliceRows | None = None) -> IntArray:
        """64-bit words (k,) that each slice stores: a row for each source neuron."""
        return self.n_source * row_words(np.diff(target_bounds), weight_bits)

    def window_words(self, weight_bits: int, window: int) -> int:
        """Most words that any `window` neighbouring target neurons take: the same everywhere."""
        return self.n_source * int(row_words(np.array(min(window, self.n_target)), weight_bits))


class _Axis(NamedTuple):
    """For each source place along one axis of a map, the target places it reaches: place[start[i]:start[i + 1]]."""

    start: IntArray
    place: IntArray

    @property
    def degree(self) -> IntArray:
        return np.diff(self.start)


@dataclass(frozen=True, eq=False)
class Convolution:
    """Connectivity of a convolution in one or two dimensions, in closed form; neurons share the weights of a kernel.

    Maps are (channels, height, width); a 1-D convolution has height 1. A synapse joins input (c, y, x) to output
    (d, v, u) where both channels lie in the same group, v * stride + j * dilation - padding = y for some j of the
    kernel's height, and the same along the width. `transposed` exchanges the roles of y and v, of x and u.

    Parameters
    ----------
    input_shape, output_shape
        (channels, height, width) of both maps.
    kernel, stride, padding, dilation
        (height, width) each; the padding is the one before the first row and column.
    groups
        Each output channel sees the input channels of its own group alone.
    transposed
        Whether it is a transposed convolution.
    cut
        How the target's neurons are numbered, a key of `NUMBERINGS`; the source's numbering is in `place`.
    place
        (n_source,) where each source neuron stands in the input map, in C order; -1 where it is not in it. A place no
        neuron stands at receives nothing. Without it the source is the map itself, numbered by channels.

    """

    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    transposed: bool = False
    cut: str = "channels"
    place: IndexArray = None  # type: ignore[assignment]  # never after __post_init__

    def __post_init__(self) -> None:
        """Check the geometry and freeze the places."""
        for key, least, n in (
            ("input_shape", 1, 3),
            ("output_shape", 1, 3),
            ("kernel", 1, 2),
            ("stride", 1, 2),
            ("padding", None, 2),
            ("dilation", 1, 2),
        ):
            object.__setattr__(self, key, _sizes(key, getattr(self, key), n, least))
        object.__setattr__(self, "groups", whole_number("convolution, groups", self.groups, 1))
        if self.input_shape[0] % self.groups or self.output_shape[0] % self.groups:
            raise InputError(
                f"convolution, groups: expected a divisor of {self.input_shape[0]} input and {self.output_shape[0]} "
                f"output channels, got {self.groups}"
            )
        if self.cut not in NUMBERINGS:
            raise InputError(f"convolution, cut: expected one of {', '.join(NUMBERINGS)}, got {self.cut!r}")
        size = int(np.prod(self.input_shape, dtype=np.int64))
        given = np.arange(size, dtype=np.int32) if self.place is None else self.place
        place = frozen("convolution, place", given, np.int32)
        if place.ndim != 1 or place.size == 0 or place.min() < -1 or place.max() >= size:
            raise InputError(f"convolution, place: expected a list of numbers in -1..{size - 1}, one per source neuron")
        object.__setattr__(self, "place", place)

    @property
    def n_source(self) -> int:
        """Neurons of the source layer."""
        return int(self.place.size)

    @property
    def n_target(self) -> int:
        """Neurons of the target layer, which is the output map."""
        return int(np.prod(self.output_shape, dtype=np.int64))

    @cached_property
    def n_synapses(self) -> int:
        """Synapses; places outside the input map (padding) have none."""
        return int(self._fan_out.sum())

    @property
    def sends(self) -> BoolArray:
        """(n_source,) does the neuron have any synapse."""
        return np.asarray(self._fan_out > 0)

    @property
    def _fan_out(self) -> IntArray:
        """(n_source,) synapses of each source neuron."""
        channels, rows, columns = (axis.degree for axis in self._axes)
        per_row = np.append(channels[:, None, None] * rows[:, None] * columns, 0)
        return np.asarray(per_row[self.row_of_source])

    @property
    def n_multiplications(self) -> int:
        """Multiplications of the convolution as others count them, those with zeros of the padding included."""
        channels = self.input_shape[0] // self.groups
        weights = channels * self.output_shape[0] * self.kernel[0] * self.kernel[1]
        _, height, width = self.input_shape if self.transposed else self.output_shape
        present = np.count_nonzero(self.place >= 0)
        return int(weights * height * width * present // np.prod(self.input_shape, dtype=np.int64))

    @cached_property
    def row_of_source(self) -> IndexArray:
        """(n_source,) row of each source neuron: (group, y, x) in C order; the last row is that of no place."""
        _, height, width = self.input_shape
        per_group = self.input_shape[0] // self.groups * height * width
        row = self.place // per_group * (height * width) + self.place % (height * width)
        return np.where(self.place < 0, self.groups * height * width, row).astype(np.int32)

    def rows(self, target_bounds: IntArray) -> SliceRows:
        """Return what each row reaches of the slices between `target_bounds` (k + 1,)."""
        order = NUMBERINGS[self.cut]
        target_stride, source_stride = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.int64)
        places = (self.groups, *self.input_shape[1:])
        for axis in range(3):
            target_stride[axis] = np.prod([self.output_shape[a] for a in order[order.index(axis) + 1 :]])
            source_stride[axis] = np.prod(places[axis + 1 :])
        axes = self._axes
        run_start, run_low, run_high = _runs(axes[order[2]])
        start, slices, synapses = rows_product(
            axes[order[0]].start,
            axes[order[0]].place * target_stride[order[0]],
            axes[order[1]].start,
            axes[order[1]].place * target_stride[order[1]],
            run_start,
            run_low,
            run_high,
            source_stride[list(order)],
            target_bounds,
        )
        return SliceRows(start, slices, synapses)

    def words(self, weight_bits: int, target_bounds: IntArray, rows: SliceRows | None = None) -> IntArray:
        """64-bit words (k,) that each slice stores: the kernels of its output channels, once (docs/model.md)."""
        low, sizes = target_bounds[:-1], np.diff(target_bounds)
        channels, height, width = self.output_shape
        if self.cut == "channels":
            held = (low + sizes - 1) // (height * width) - low // (height * width) + 1
        else:
            held = np.minimum(sizes, channels)
        return self._kernel_words(weight_bits, held)

    def window_words(self, weight_bits: int, window: int) -> int:
        """Most words that any `window` neighbouring target neurons take, wherever they begin."""
        channels, height, width = self.output_shape
        window = min(window, self.n_target)
        held = -(-(window - 1) // (height * width)) + 1 if self.cut == "channels" else window
        return int(self._kernel_words(weight_bits, np.array(min(held, channels))))

    def _kernel_words(self, weight_bits: int, channels: IntArray) -> IntArray:
        if weight_bits == 0:
            return np.zeros(np.shape(channels), dtype=np.int64)
        filled = -(-self.input_shape[0] // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE
        bits = filled * channels * (self.kernel[0] * self.kernel[1] * (weight_bits + SHARED_BITS))
        return np.asarray(-(-bits // (WORD_BITS * self.groups)))

    @cached_property
    def _axes(self) -> tuple[_Axis, _Axis, _Axis]:
        """Along channels (by group), height and width: what each source place reaches."""
        per_group = self.output_shape[0] // self.groups
        channels = _Axis(np.arange(self.groups + 1) * per_group, np.arange(self.output_shape[0]))
        height, width = (self._spatial_axis(a) for a in range(2))
        return channels, height, width

    def _spatial_axis(self, a: int) -> _Axis:
        n_in, n_out = self.input_shape[1 + a], self.output_shape[1 + a]
        stride, padding, dilation = self.stride[a], self.padding[a], self.dilation[a]
        j = np.arange(self.kernel[a])
        if self.transposed:
            source = np.repeat(np.arange(n_in), j.size)
            target = source * stride + np.tile(j, n_in) * dilation - padding
        else:
            target = np.repeat(np.arange(n_out), j.size)
            source = target * stride + np.tile(j, n_out) * dilation - padding
        inside = (source >= 0) & (source < n_in) & (target >= 0) & (target < n_out)
        pairs = np.unique(np.stack([source[inside], target[inside]], axis=1), axis=0)
        start = np.concatenate([[0], np.cumsum(np.bincount(pairs[:, 0], minlength=n_in))])
        return _Axis(start, np.ascontiguousarray(pairs[:, 1]))


def _sizes(key: str, given: Sequence[int], n: int, least: int | None) -> tuple[int, ...]:
    if len(given) != n:
        raise InputError(f"convolution, {key}: expected {n} numbers, got {given!r}")
    return tuple(whole_number(f"convolution, {key}", x, -(2**31) if least is None else least) for x in given)


def _runs(axis: _Axis) -> tuple[IntArray, IntArray, IntArray]:
    """Neighbouring target places of each source place as runs: start (n + 1,), and low and high (ends) of each run."""
    n = axis.start.size - 1
    owner = np.repeat(np.arange(n), axis.degree)
    begins = np.ones(axis.place.size, dtype=bool)
    begins[1:] = (np.diff(axis.place) != 1) | (np.diff(owner) != 0)
    first = np.flatnonzero(begins)
    last = np.append(first[1:], axis.place.size)[: first.size] - 1
    start = np.concatenate([[0], np.cumsum(np.bincount(owner[first], minlength=n))])
    return start, axis.place[first], axis.place[last] + 1


Connectivity = Sparse | Dense | Convolution

#: What a file says of a convolution besides its places.
GEOMETRY = tuple(field.name for field in fields(Convolution) if field.name != "place")
