"""Genotypes: a row of integers [extra cores per layer | permutation of the usable cores] (after arXiv 2602.04717).

Layer l gets minimum[l] + extra[l] cores; the layers take the permutation's entries in order and the tail is unused.
Entries are positions in `System.usable_cores`. Genotypes never leave this package: everything else sees mappings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuromap_moo.arrays import BoolArray, IndexArray, IntArray
from neuromap_moo.mapping.legality import Legality
from neuromap_moo.mapping.mapping import Mapping, MappingBatch
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

Genomes = IntArray


@dataclass(frozen=True, eq=False)
class Encoding:
    """How genotypes (n, L + C) of one problem read; L layers, C usable cores.

    `minimum` (L,) and `fits` (L, C + 1) come from the partitioner, `cores` (C,) are the usable core ids; `legality`
    says where slices may sit, None: anywhere.
    """

    minimum: IntArray
    maximum: IntArray
    fits: BoolArray
    cores: IndexArray
    legality: Legality | None = None

    @classmethod
    def for_problem(cls, partitioner: AnyPartitioner, system: System, legality: Legality | None = None) -> Encoding:
        """Make the encoding of a problem.

        Parameters
        ----------
        partitioner
            cuts layers into slices, for the same system.
        system
            where mappings go.
        legality
            where slices may sit; None: anywhere.

        """
        return cls(
            np.array(partitioner.minimum, dtype=np.int64),
            np.array(partitioner.maximum, dtype=np.int64),
            np.array(partitioner.fits),
            system.usable_cores,
            legality,
        )

    @property
    def n_layers(self) -> int:
        """L."""
        return self.minimum.size

    @property
    def n_cores(self) -> int:
        """C, the usable cores."""
        return self.cores.size

    @property
    def has_fixed_partition(self) -> bool:
        """True where no layer can have more than its minimum."""
        return bool((self.minimum == self.maximum).all()) or int(self.minimum.sum()) == self.n_cores

    def decode(self, X: Genomes) -> MappingBatch:
        """Read genotypes (n, L + C) as mappings."""
        k = self.minimum + X[:, : self.n_layers]
        used = k.sum(axis=1)
        placed = self.cores[X[:, self.n_layers : self.n_layers + int(used.max())]]
        return MappingBatch(k, np.where(np.arange(placed.shape[1]) < used[:, None], placed, np.int32(-1)))

    def encode(self, mappings: Sequence[Mapping]) -> Genomes:
        """Write mappings as genotypes."""
        X = np.empty((len(mappings), self.n_layers + self.n_cores), dtype=np.int64)
        for row, m in zip(X, mappings, strict=True):
            row[:] = self.join(np.array(m.cores_per_layer), np.searchsorted(self.cores, m.core_of_slice))
        return X

    def split(self, genome: IntArray) -> tuple[IntArray, IntArray]:
        """Cores per layer (L,) and places (S,) of one genotype; places are positions in `cores`."""
        k = self.minimum + genome[: self.n_layers]
        return k, genome[self.n_layers : self.n_layers + int(k.sum())].copy()

    def join(self, cores_per_layer: IntArray, place: IntArray) -> Genomes:
        """Genotype (V,) of cores per layer (L,) and places (S,); unused cores follow in ascending order."""
        unused = np.setdiff1d(np.arange(self.n_cores), place)
        return np.concatenate([cores_per_layer - self.minimum, place, unused])

    def keys(self, X: Genomes) -> list[bytes]:
        """Return one key per row, equal exactly where the decoded mappings are equal (the tail does not count)."""
        m = self.decode(np.asarray(X, dtype=np.int64))
        used = m.cores_per_layer.sum(axis=1)
        k = m.cores_per_layer.astype(np.int32)
        return [k[i].tobytes() + m.core_of_slice[i, : used[i]].tobytes() for i in range(len(X))]

    def repair(self, X: NDArray[Any]) -> Genomes:
        """Make every row feasible, whatever integers (or rounded floats) it holds; feasible rows stay as they are."""
        rows = np.array(np.rint(X) if X.dtype.kind == "f" else X, dtype=np.int64)
        repair_rows(rows, self.minimum, self.maximum, self.fits)
        return self.repair_placement(rows)

    def repair_placement(self, X: Genomes) -> Genomes:
        """Bring slices to where they may sit, in place; rows are feasible but for that."""
        if self.legality is not None:
            self.legality.repair(X)
        return X

    def first_infeasible(self, X: Genomes) -> int:
        """Index of the first row that is not feasible, -1 if all are."""
        bad = int(find_infeasible(np.ascontiguousarray(X), self.minimum, self.fits))
        if bad < 0 and self.legality is not None:
            illegal = (i for i, genome in enumerate(X) if not self.legality.legal(*self.split(genome)))
            return next(illegal, -1)
        return bad

    def random(self, n: int, rng: np.random.Generator) -> Genomes:
        """Draw n genotypes.

        The number of cores in use is uniform between fewest and all, shared out at random. Every other placement
        is a random permutation, the rest hand out the cores in order, which mixes good locality with diversity.
        """
        X = np.empty((n, self.n_layers + self.n_cores), dtype=np.int64)
        free = self.n_cores - int(self.minimum.sum())
        shares = rng.dirichlet(np.ones(self.n_layers), size=n)
        X[:, : self.n_layers] = np.floor(shares * rng.integers(0, free + 1, size=(n, 1)))
        order = np.tile(np.arange(self.n_cores), (n, 1))
        order[::2] = rng.permuted(order[::2], axis=1)
        X[:, self.n_layers :] = order
        return self.repair(X)


@njit(cache=True, nogil=True)
def limit_counts(k: IntArray, minimum: IntArray, fits: BoolArray) -> None:
    """Change cores per layer (L,), each at least its minimum, in place until they are feasible.

    While there are too few cores, the layer with the largest surplus gives one back; then a layer whose slices do not
    fit takes the next larger count that does and is affordable, or the next smaller (the minimum always fits).

    Parameters
    ----------
    k
        (L,) cores per layer, changed in place.
    minimum
        (L,) fewest cores of each layer.
    fits
        (L, C + 1) which numbers of cores fit.

    """
    n_cores = fits.shape[1] - 1
    total = k.sum()
    while total > n_cores:
        k[np.argmax(k - minimum)] -= 1
        total -= 1
    for layer in range(k.size):
        up = k[layer]
        while up < n_cores and not fits[layer, up] and total + up - k[layer] < n_cores:
            up += 1
        if not fits[layer, up]:
            up = k[layer]
            while not fits[layer, up]:
                up -= 1
        total += up - k[layer]
        k[layer] = up


@njit(cache=True, nogil=True)
def repartition(order: IntArray, old: IntArray, new: IntArray) -> None:
    """Change the cores per layer of one permutation (C,) in place from `old` to `new` (L,).

    Each layer keeps the cores it had; surplus goes to the end of the unused tail, and what a layer lacks is taken
    from the tail's front (the reordering of arXiv 2602.04717).

    Parameters
    ----------
    order
        (C,) permutation of all places, changed in place.
    old
        (L,) cores per layer so far.
    new
        (L,) cores per layer from now on.

    """
    before = order.copy()
    n_cores = order.size
    used = old.sum()
    # The tail, and behind it what layers give back.
    pool = np.empty(n_cores, dtype=np.int64)
    n_pool = 0
    for i in range(used, n_cores):
        pool[n_pool] = before[i]
        n_pool += 1
    first = 0
    for layer in range(old.size):
        for i in range(first + min(old[layer], new[layer]), first + old[layer]):
            pool[n_pool] = before[i]
            n_pool += 1
        first += old[layer]
    taken = 0
    at = 0
    first = 0
    for layer in range(old.size):
        for i in range(new[layer]):
            if i < old[layer]:
                order[at] = before[first + i]
            else:
                order[at] = pool[taken]
                taken += 1
            at += 1
        first += old[layer]
    for i in range(taken, n_pool):
        order[at] = pool[i]
        at += 1


@njit(cache=True, nogil=True)
def find_infeasible(X: IntArray, minimum: IntArray, fits: BoolArray) -> int:
    """Index of the first row whose counts do not fit or whose order is no permutation, -1 if there is none.

    Parameters
    ----------
    X
        (n, L + C) genotypes.
    minimum
        (L,) fewest cores of each layer.
    fits
        (L, C + 1) which numbers of cores fit.

    """
    n_layers = minimum.size
    n_cores = fits.shape[1] - 1
    seen = np.empty(n_cores, dtype=np.bool_)
    for i in range(len(X)):
        total = 0
        for layer in range(n_layers):
            k = minimum[layer] + X[i, layer]
            if k < 1 or k > n_cores or not fits[layer, k]:
                return i
            total += k
        if total > n_cores:
            return i
        seen[:] = False
        for core in X[i, n_layers:]:
            if core < 0 or core >= n_cores or seen[core]:
                return i
            seen[core] = True
    return -1


@njit(cache=True, nogil=True)
def repair_rows(X: IntArray, minimum: IntArray, maximum: IntArray, fits: BoolArray) -> None:
    """Repair genotypes in place; see Encoding.repair.

    Parameters
    ----------
    X
        (n, L + C) genotypes, changed in place.
    minimum
        (L,) fewest cores of each layer.
    maximum
        (L,) most cores of each layer.
    fits
        (L, C + 1) which numbers of cores fit.

    """
    n_layers = minimum.size
    n_cores = fits.shape[1] - 1
    old = np.empty(n_layers, dtype=np.int64)
    seen = np.empty(n_cores, dtype=np.bool_)
    for row in X:
        order = row[n_layers:]
        seen[:] = False
        broken = False
        for i in range(n_cores):
            if 0 <= order[i] < n_cores and not seen[order[i]]:
                seen[order[i]] = True
            else:
                order[i] = -1
                broken = True
        if broken:
            missing = 0
            for i in range(n_cores):
                if order[i] < 0:
                    while seen[missing]:
                        missing += 1
                    order[i] = missing
                    missing += 1
        # The partition as it stands, read as far as the permutation goes.
        left = n_cores
        for layer in range(n_layers):
            wanted = minimum[layer] + min(max(row[layer], 0), maximum[layer] - minimum[layer])
            row[layer] = wanted
            old[layer] = min(wanted, left)
            left -= old[layer]
        new = row[:n_layers].copy()
        limit_counts(new, minimum, fits)
        if (new != old).any():
            repartition(order, old, new)
        row[:n_layers] = new - minimum
