"""Placement constraints of one problem as tables: which slice may sit where, and how a mapping is made legal.

Where slices may sit is a bipartite graph between slices and places. Augmenting paths find every slice a place whenever
there is one for each, so a mapping can always be made legal: slices move and, at worst, layers give up some of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuromap_moo.arrays import BoolArray, IndexArray, IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

#: Assignments of same_chip groups to chips that are tried before the search for one is given up.
MOST_TRIED = 20_000

UNSEEN, START = -2, -1  # marks of rows in a search for an augmenting path


class Tables(NamedTuple):
    """L layers, F fixed slices, G groups, C places (positions in System.usable_cores); R = L + F rows."""

    allowed: BoolArray  # (R, C) may a slice of that row sit there; the layers first, then a row per fixed slice
    group: IntArray  # (R,) same_chip group, -1 for none
    fixed_layer: IntArray  # (F,)
    fixed_slice: IntArray  # (F,) index within the layer
    minimum: IntArray  # (L,) fewest cores
    fits: BoolArray  # (L, C + 1) which numbers of cores fit
    router: IntArray  # (C,) router of each place
    chip: IntArray  # (C,) chip of each place
    away: IntArray  # (routers, routers) hops there and back
    chips: IntArray  # (G,) chips on which every group has its fewest cores
    n_chips: int


@dataclass(frozen=True, eq=False)
class Legality:
    """Placement constraints of one problem."""

    tables: Tables
    cores: IndexArray

    @classmethod
    def for_problem(cls, constraints: Constraints, partitioner: AnyPartitioner, system: System) -> Legality | None:
        """Table the constraints of a problem; None where slices may sit anywhere.

        Parameters
        ----------
        constraints
            where layers and slices may sit, by name.
        partitioner
            cuts layers into slices, for the same system.
        system
            where mappings go.

        Raises
        ------
        InputError
            where no mapping meets the constraints.

        """
        names = partitioner.layer_names
        regions = constraints.places(names, system)[:, system.usable_cores]
        fixed = [(i, j, c) for i, n in enumerate(names) if n in constraints.layers for j, c in _fixed(constraints, n)]
        groups = constraints.groups(names) if system.n_chips > 1 else []
        if regions.all() and not groups:
            return None
        own = np.searchsorted(system.usable_cores, [core for _, _, core in fixed])
        group = np.full(len(names), -1)
        for g, members in enumerate(groups):
            group[members] = g
        fixed_layer = np.array([i for i, _, _ in fixed], dtype=np.int64)
        router = system.router_of_core[system.usable_cores].astype(np.int64)
        tables = Tables(
            # C order, as without constraints: kernels are compiled for one layout.
            allowed=np.ascontiguousarray(np.concatenate([regions, own[:, None] == np.arange(router.size)])),
            group=np.concatenate([group, group[fixed_layer]]).astype(np.int64),
            fixed_layer=fixed_layer,
            fixed_slice=np.array([j for _, j, _ in fixed], dtype=np.int64),
            minimum=np.array(partitioner.minimum, dtype=np.int64),
            fits=np.ascontiguousarray(partitioner.fits),
            router=router,
            chip=system.chip_of_router[router].astype(np.int64),
            away=(system.hops + system.hops.T).astype(np.int64),
            chips=np.full(len(groups), -1, dtype=np.int64),
            n_chips=system.n_chips,
        )
        short = short_rows(tables, tables.chips)
        if short.any():
            layers = np.flatnonzero(short[: len(names)])
            joint = int(tables.allowed[layers].any(axis=0).sum())
            # Slices that are fixed have their places apart.
            need = int(tables.minimum[layers].sum() - np.isin(fixed_layer, layers).sum())
            raise InputError(
                f"constraints: layers {_quoted(names, layers)} need at least {need} cores together and can have only "
                f"{joint}; widen where one of them may sit"
            )
        return cls(tables._replace(chips=_chips_for_groups(tables, groups, names)), system.usable_cores)

    @property
    def stays(self) -> BoolArray:
        """(R,) rows whose slices must not leave their chip one by one."""
        return np.asarray(self.tables.group >= 0)

    def row_of_slice(self, cores_per_layer: IntArray) -> IntArray:
        """(S,) row of each slice: its layer, or its own row where it is fixed."""
        rows: IntArray = row_of_slice(self.tables, cores_per_layer)
        return rows

    def rows_of_layers(self, layers: BoolArray) -> BoolArray:
        """(R,) the rows that belong to the layers (L,) marked."""
        return np.concatenate([layers, layers[self.tables.fixed_layer]])

    def open_to(self, layer: int, place: IntArray) -> BoolArray:
        """(C,) where a new slice of a layer may sit whose slices have the places given."""
        t = self.tables
        near: BoolArray = (t.group[layer] < 0) | (t.chip == t.chip[place[0]])
        return np.asarray(near & t.allowed[layer])

    def repair(self, X: IntArray) -> None:
        """Make genotypes (n, L + C) legal in place whose partitions fit; legal ones stay as they are."""
        repair_rows(self.tables, X)

    def legal(self, cores_per_layer: IntArray, place: IntArray) -> bool:
        """Tell whether the places (S,) of a partition (L,) that fits keep to the constraints."""
        return bool(is_legal(self.tables, cores_per_layer, place))

    def settled(self, cores_per_layer: IntArray, place: IntArray) -> tuple[IntArray, IntArray]:
        """Return the legal partition and places nearest to the given ones, which stay as they are if legal."""
        k = np.array(cores_per_layer, dtype=np.int64)
        unused = np.setdiff1d(np.arange(self.cores.size), place)
        order = np.concatenate([place, unused]).astype(np.int64)
        if not is_legal(self.tables, k, order):
            place_in_allowed(self.tables, k, order)
        return k, order[: int(k.sum())]

    def repaired(self, mapping: Mapping) -> tuple[Mapping, str]:
        """Return a mapping made legal, and a note that says how much of it had to change; "" for nothing."""
        place = np.searchsorted(self.cores, mapping.core_of_slice)
        k, settled = self.settled(np.array(mapping.cores_per_layer), place)
        made = Mapping(tuple(k.tolist()), tuple(self.cores[settled].tolist()))
        if made == mapping:
            return mapping, ""
        if made.cores_used < mapping.cores_used:
            return made, f"constraints: {made.cores_used} of {mapping.cores_used} cores, moved to where they may be"
        moved = int((settled != place).sum())
        return made, f"constraints: {moved} of {place.size} slices moved to where they may be"


def _fixed(constraints: Constraints, name: str) -> list[tuple[int, int]]:
    return list(constraints.layers[name].fixed.items())


def _quoted(names: tuple[str, ...], layers: NDArray[np.intp] | list[int]) -> str:
    return ", ".join(f"'{names[i]}'" for i in layers)


def _chips_for_groups(tables: Tables, groups: list[list[int]], names: tuple[str, ...]) -> IntArray:
    """(G,) a chip for each same_chip group such that every layer finds its fewest cores; the largest group first."""
    demand = [int(tables.minimum[members].sum()) for members in groups]
    most = []
    for g, members in enumerate(groups):
        seats = tables.allowed[tables.group == g].any(axis=0)
        room = np.bincount(tables.chip[seats], minlength=tables.n_chips)
        most.append(int(room.max()))
        if demand[g] > most[g]:
            raise InputError(
                f"constraints: layers {_quoted(names, members)} of same_chip need {demand[g]} cores together, a chip "
                f"has at most {most[g]} for them; take some out of the group or larger chips"
            )
    chips = np.full(len(groups), -1, dtype=np.int64)
    largest_first = sorted(range(len(groups)), key=lambda g: -demand[g])
    tried = 0

    def assign(at: int) -> bool:
        nonlocal tried
        if at == len(groups):
            return True
        g = largest_first[at]
        for chip in range(tables.n_chips):
            tried += 1
            chips[g] = chip
            if tried <= MOST_TRIED and not short_rows(tables, chips).any() and assign(at + 1):
                return True
        chips[g] = -1
        return False

    if not assign(0):
        listed = ", ".join(f"{_quoted(names, members)} {k}" for members, k in zip(groups, demand, strict=True))
        what = "no assignment" if tried <= MOST_TRIED else f"none of {MOST_TRIED} assignments"
        raise InputError(
            f"constraints: {what} to chips gives every same_chip group its cores on one chip ({listed}; a chip has at "
            f"most {max(most)} for them); split a group, relax where layers may sit, or take more chips"
        )
    return chips


@njit(cache=True, nogil=True)
def row_of_slice(t: Tables, counts: IntArray) -> IntArray:
    """(S,) row of each slice of a partition (L,)."""
    row = np.empty(counts.sum(), dtype=np.int64)
    first = np.zeros(counts.size, dtype=np.int64)
    at = 0
    for layer in range(counts.size):
        first[layer] = at
        row[at : at + counts[layer]] = layer
        at += counts[layer]
    for i in range(t.fixed_layer.size):
        row[first[t.fixed_layer[i]] + t.fixed_slice[i]] = counts.size + i
    return row


@njit(cache=True, nogil=True)
def is_legal(t: Tables, counts: IntArray, order: IntArray) -> bool:
    """Tell whether slices at the first places of `order` keep to the constraints.

    Parameters
    ----------
    t
        the constraints as tables.
    counts
        (L,) cores per layer.
    order
        (C,) places, those of the slices first; or these alone.

    """
    # Fields are read once: numba counts references whenever a tuple's field is touched.
    allowed, group, chip = t.allowed, t.group, t.chip
    row = row_of_slice(t, counts)
    chips = np.full(t.chips.size, -1, dtype=np.int64)
    for s in range(row.size):
        if not allowed[row[s], order[s]]:
            return False
        g = group[row[s]]
        if g >= 0 and chips[g] < 0:
            chips[g] = chip[order[s]]
        if g >= 0 and chips[g] != chip[order[s]]:
            return False
    return True


@njit(cache=True, nogil=True)
def repair_rows(t: Tables, X: IntArray) -> None:
    """Make genotypes legal in place; see Legality.repair."""
    n_layers = t.minimum.size
    for genome in X:
        counts = t.minimum + genome[:n_layers]
        if not is_legal(t, counts, genome[n_layers:]):
            place_in_allowed(t, counts, genome[n_layers:])
            genome[:n_layers] = counts - t.minimum


@njit(cache=True, nogil=True)
def place_in_allowed(t: Tables, counts: IntArray, order: IntArray) -> None:
    """Make a mapping legal in place: cores per layer (L,) that fit, and a permutation of all places (C,).

    Each group goes to the chip that has room for it and most of its slices. Slices that may stay do; the others take
    the nearest free place, or one that others make free by moving on. Slices beyond a layer's fewest that find none
    are given up. The order of unused places stays.

    Parameters
    ----------
    t
        the constraints as tables.
    counts
        (L,) cores per layer that fit, lowered in place where slices are given up.
    order
        (C,) permutation of all places, changed in place.

    """
    chips = _choose_chips(t, counts, order)
    row = row_of_slice(t, counts)
    spare = np.empty(row.size, dtype=np.bool_)
    s = 0
    for layer in range(counts.size):
        for j in range(counts[layer]):
            spare[s] = j >= t.minimum[layer]
            s += 1
    place = np.full(row.size, -1, dtype=np.int64)
    slice_at = np.full(order.size, -1, dtype=np.int64)
    allowed, group, chip = t.allowed, t.group, t.chip
    for s in range(row.size):
        g = group[row[s]]
        if allowed[row[s], order[s]] and (g < 0 or chips[g] == chip[order[s]]):
            place[s] = order[s]
            slice_at[order[s]] = s
    came_from = np.empty(t.group.size, dtype=np.int64)
    full = np.zeros(t.group.size, dtype=np.bool_)  # rows for which no path is left, and none will be
    for turn in range(2):
        for s in range(row.size):
            if place[s] >= 0 or spare[s] != (turn == 1) or full[row[s]]:
                continue
            if _augment(t, chips, row, spare, place, slice_at, s, order[s], False, came_from):
                continue
            if turn == 0:
                _augment(t, chips, row, spare, place, slice_at, s, order[s], True, came_from)
            else:
                full |= came_from != UNSEEN
    settled = np.empty(row.size, dtype=np.int64)
    at = 0
    s = 0
    for layer in range(counts.size):
        first = at
        for _ in range(counts[layer]):
            if place[s] >= 0:
                settled[at] = place[s]
                at += 1
            s += 1
        while not t.fits[layer, at - first]:
            at -= 1
        counts[layer] = at - first
    before = order.copy()
    used = np.zeros(order.size, dtype=np.bool_)
    for i in range(at):
        order[i] = settled[i]
        used[settled[i]] = True
    for p in before:
        if not used[p]:
            order[at] = p
            at += 1


@njit(cache=True, nogil=True)
def short_rows(t: Tables, chips: IntArray) -> BoolArray:
    """(R,) rows that cannot all have their fewest slices, none where all can; `chips` (G,), -1 for any."""
    row = row_of_slice(t, t.minimum)
    spare = np.zeros(row.size, dtype=np.bool_)
    place = np.full(row.size, -1, dtype=np.int64)
    slice_at = np.full(t.router.size, -1, dtype=np.int64)
    came_from = np.empty(t.group.size, dtype=np.int64)
    for s in range(row.size):
        if not _augment(t, chips, row, spare, place, slice_at, s, 0, False, came_from):
            return np.asarray(came_from != UNSEEN)
    return np.zeros(t.group.size, dtype=np.bool_)


@njit(cache=True, nogil=True)
def _augment(
    t: Tables,
    chips: IntArray,
    row: IntArray,
    spare: BoolArray,
    place: IntArray,
    slice_at: IntArray,
    s: int,
    wanted: int,
    evicts: bool,
    came_from: IntArray,
) -> bool:
    """Give slice s the free place nearest to `wanted`, or one that others leave along a shortest augmenting path.

    With `evicts`, places of spare slices count as free, and the spare slice loses its own. `came_from` (R,) is left
    with the rows that the search saw: where it fails, these need more places than they have.
    """
    allowed, group, chip, router, away = t.allowed, t.group, t.chip, t.router, t.away
    came_from[:] = UNSEEN
    queue = np.empty(came_from.size, dtype=np.int64)
    left = np.empty(came_from.size, dtype=np.int64)  # place that a slice of the row would leave
    queue[0] = row[s]
    came_from[row[s]] = START
    left[row[s]] = wanted
    head, tail = 0, 1
    while head < tail:
        r = queue[head]
        head += 1
        g = group[r]
        only = chips[g] if g >= 0 else -1
        found = -1
        nearest = 0
        for p in range(slice_at.size):
            if not allowed[r, p] or (only >= 0 and chip[p] != only):
                continue
            o = slice_at[p]
            if o < 0 or (evicts and spare[o]):
                hops = away[router[left[r]], router[p]]
                if found < 0 or hops < nearest:
                    found, nearest = p, hops
            elif came_from[row[o]] == UNSEEN:
                came_from[row[o]] = r
                left[row[o]] = p
                queue[tail] = row[o]
                tail += 1
        if found >= 0:
            if slice_at[found] >= 0:
                place[slice_at[found]] = -1
            while came_from[r] != START:
                mover = slice_at[left[r]]
                place[mover] = found
                slice_at[found] = mover
                found = left[r]
                r = came_from[r]
            place[s] = found
            slice_at[found] = s
            return True
    return False


@njit(cache=True, nogil=True)
def _choose_chips(t: Tables, counts: IntArray, order: IntArray) -> IntArray:
    """(G,) a chip for each group, the largest first: one with room for it, then the one with most of its slices."""
    n_groups = t.chips.size
    chips = np.full(n_groups, -1, dtype=np.int64)
    here = np.zeros((n_groups, t.n_chips), dtype=np.int64)
    room = np.zeros(t.n_chips, dtype=np.int64)
    for c in t.chip:
        room[c] += 1
    row = row_of_slice(t, counts)
    for s in range(row.size):
        g = t.group[row[s]]
        if g >= 0:
            here[g, t.chip[order[s]]] += 1
    demand = here.sum(axis=1)
    for g in np.argsort(-demand, kind="mergesort"):
        tried = np.zeros(t.n_chips, dtype=np.bool_)
        while True:
            chosen = -1
            for c in range(t.n_chips):
                if tried[c]:
                    continue
                has_room = room[c] >= demand[g]
                if chosen < 0 or (has_room, here[g, c]) > (room[chosen] >= demand[g], here[g, chosen]):
                    chosen = c
            if chosen < 0:
                return t.chips.copy()
            chips[g] = chosen
            if not short_rows(t, chips).any():
                break
            tried[chosen] = True
        room[chips[g]] -= demand[g]
    return chips
