"""Mappings (partition + placement): in memory, checked independently, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neuromap_moo.arrays import IndexArray, IntArray
from neuromap_moo.errors import InputError

LARGEST = 2**31  # core ids are 32-bit integers


@dataclass(frozen=True)
class Mapping:
    """How many cores each layer gets and the physical core of each slice, slices of layer 0 first.

    Any sequences of integers may be given; they are kept as tuples.
    """

    cores_per_layer: tuple[int, ...]
    core_of_slice: tuple[int, ...]

    def __post_init__(self) -> None:
        """Turn arrays and lists into tuples, so that mappings compare and hash by value."""
        for key in ("cores_per_layer", "core_of_slice"):
            given = getattr(self, key)
            try:
                array = np.asarray(given)
            except ValueError:  # lists of different lengths
                array = np.empty(0)
            whole = array.ndim == 1 and array.size > 0 and array.dtype.kind in "iuf"
            if not whole or not (np.abs(array) < LARGEST).all() or (array != np.rint(array)).any():
                raise InputError(f"mapping, {key}: expected a list of whole numbers, got {given!r:.80}")
            object.__setattr__(self, key, tuple(int(v) for v in array))

    @property
    def cores_used(self) -> int:
        """Cores that hold a slice."""
        return len(self.core_of_slice)


class MappingBatch(NamedTuple):
    """n mappings as arrays: cores_per_layer (n, L) and core_of_slice (n, S), -1 beyond a mapping's slices."""

    cores_per_layer: IntArray
    core_of_slice: IndexArray

    def unstack(self) -> list[Mapping]:
        """Return the mappings one by one."""
        pairs = zip(self.cores_per_layer, self.core_of_slice, strict=True)
        return [Mapping(tuple(k.tolist()), tuple(c[: int(k.sum())].tolist())) for k, c in pairs]


def stack(mappings: Sequence[Mapping]) -> MappingBatch:
    """Put mappings of one problem together as arrays."""
    widths = {len(m.cores_per_layer) for m in mappings}
    if len(widths) != 1:
        raise InputError(
            f"mappings: expected one or more of the same problem, got {len(mappings)} with {widths} layers"
        )
    n_slices = max(m.cores_used for m in mappings)
    core_of_slice = np.full((len(mappings), n_slices), -1, dtype=np.int32)
    for row, m in zip(core_of_slice, mappings, strict=True):
        row[: m.cores_used] = m.core_of_slice
    return MappingBatch(np.array([m.cores_per_layer for m in mappings], dtype=np.int64), core_of_slice)
