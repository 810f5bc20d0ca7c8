"""Tables of a system for moves: where slices can sit, and over which links messages travel."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit

from neuromap_moo.arrays import BoolArray, FloatArray, IndexArray, IntArray
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import Mesh

Pieces: TypeAlias = tuple[IndexArray, IndexArray, IndexArray, IndexArray]

BLOCK = 64  # links per block, where a topology has no rows and columns
NEAR = 9  # routers around a router, itself included, that count as near it


class LinkTables(NamedTuple):
    """Where slices can sit and how messages travel; R routers, C places, W slots.

    A slot is a link, or the end of a block: block b has slots block_start[b] to block_start[b + 1] - 1, the last of
    which is no link. Routers lie on two axes. A mesh's are its columns and rows, and routes follow from them; any
    other topology has all its routers on the first, and routes are tabled as pieces, each within one block.
    """

    router: IntArray  # (C,) router of each place
    first_place: IntArray  # (R + 1,) into places
    places: IntArray  # (C,) grouped by router
    near: IntArray  # (R, K) nearest routers that have places, itself first where it has some
    chip: IntArray  # (R,)
    is_mesh: bool
    x: IntArray  # (R,) on the first axis, of X
    y: IntArray  # (R,) on the second, of Y
    piece_start: IndexArray  # (R * R + 1,) pieces of the route from router to router; (1,) on a mesh
    piece_first: IndexArray  # slots piece_first to piece_stop - 1
    piece_stop: IndexArray
    piece_block: IndexArray
    slot: IntArray  # (n_links,) slot of each link
    block_start: IntArray  # (blocks + 1,)
    seconds: FloatArray  # (W,) link time of a message; 0 where no link is
    barrier_s: FloatArray  # (chips + 1,) by chips used
    joules_x: FloatArray  # (X, X) link energy of a message from router to router is the sum over both axes
    joules_y: FloatArray  # (Y, Y)
    hops_x: FloatArray
    hops_y: FloatArray
    allowed: BoolArray  # (rows, C) may a slice of that row sit there
    stays: BoolArray  # (rows,) a slice of that row must not leave its chip
    is_restricted: bool  # by any of these two


def make_link_tables(system: System, allowed: BoolArray, stays: BoolArray) -> LinkTables:
    """Table a system, and where the slices of each row may go, for moves; O(R^2).

    Parameters
    ----------
    system
        where mappings go.
    allowed
        (rows, C) may a slice of that row (see Legality) sit at that place.
    stays
        (rows,) a slice of that row must not leave its chip.

    """
    links, topology, n_routers = system.links, system.topology, system.n_routers
    n_links = links.source.size
    none = np.zeros(0, dtype=np.int32)
    pieces: Pieces = np.zeros(1, dtype=np.int32), none, none, none
    if isinstance(topology, Mesh):
        x, y = topology.router_xy.T.astype(np.int64)
        columns, rows = int(x.max()) + 1, int(y.max()) + 1
        widths = np.repeat([columns, rows], [2 * rows, 2 * columns])  # links of each block, and its end
    else:
        x, y = np.arange(n_routers), np.zeros(n_routers, dtype=np.int64)
        widths = np.minimum(BLOCK, n_links - np.arange(0, max(n_links, 1), BLOCK)) + 1
        pieces = _pieces(system)
    block_start = np.concatenate([[0], np.cumsum(widths)])
    slot = np.setdiff1d(np.arange(block_start[-1]), block_start[1:] - 1)
    seconds = np.zeros(block_start[-1])
    seconds[slot] = system.cost("message_bits") / system.per_link("bandwidth_bit_per_s")
    hops = system.hops.astype(np.float64)
    router = system.router_of_core[system.usable_cores].astype(np.int64)
    has_places = np.bincount(router, minlength=n_routers) > 0
    away = np.where(has_places, hops + hops.T, np.inf)
    n_near = min(NEAR, int(has_places.sum()))
    barrier = system.barrier_s(np.maximum(np.arange(system.n_chips + 1.0), 1.0))
    return LinkTables(
        router,
        np.concatenate([[0], np.cumsum(np.bincount(router, minlength=n_routers))]),
        np.argsort(router, kind="stable"),
        np.argsort(away, axis=1, kind="stable")[:, :n_near].astype(np.int64),
        system.chip_of_router.astype(np.int64),
        isinstance(topology, Mesh),
        x.copy(),
        y.copy(),
        *pieces,
        slot,
        block_start,
        seconds,
        barrier,
        *_by_axis(_energies(system), x, y),
        *_by_axis(hops, x, y),
        allowed,
        stays,
        bool(stays.any() or not allowed.all()),
    )


def _pieces(system: System) -> Pieces:
    """Cut the intervals of routes (see Routes) where blocks end: start, first and stop slots, and blocks."""
    start, first, stop = system.routes
    n = (stop - 1) // BLOCK - first // BLOCK + 1
    before = np.concatenate([[0], np.cumsum(n)])
    interval = np.repeat(np.arange(first.size), n)
    block = first[interval] // BLOCK + np.arange(before[-1]) - before[interval]
    low = np.maximum(first[interval], block * BLOCK) + block
    high = np.minimum(stop[interval], (block + 1) * BLOCK) + block
    return before[start].astype(np.int32), low.astype(np.int32), high.astype(np.int32), block.astype(np.int32)


def _energies(system: System) -> FloatArray:
    """Return the link energy of a message from router to router, (R, R)."""
    start, first, stop = system.routes
    total = np.concatenate([[0.0], np.cumsum(system.per_link("e_link_j"))])
    # Summed route by route: differences of one running sum over all routes would lose digits on large systems.
    along = np.append(total[stop] - total[first], 0.0)
    joules: FloatArray = np.add.reduceat(along, np.minimum(start[:-1], first.size))
    return np.reshape(np.where(np.diff(start) > 0, joules, 0.0), (system.n_routers, system.n_routers))


def _by_axis(table: FloatArray, x: IntArray, y: IntArray) -> tuple[FloatArray, FloatArray]:
    """Split what a message takes from router to router, (R, R), into one table for each axis, whose sum it is.

    On a mesh it is the same in every row, and in every column. What differs by rounding between there and back is
    made equal: walks are quicker so.
    """
    parts = []
    for along, across in ((x, y), (y, x)):
        own = np.flatnonzero(across == 0)
        own = own[np.argsort(along[own])]
        part = table[np.ix_(own, own)]
        if np.allclose(part, part.T, rtol=1e-9, atol=1e-9 * float(table.max(initial=0.0))):
            part = (part + part.T) / 2
        parts.append(part)
    return parts[0], parts[1]


@njit(cache=True, nogil=True)
def along_x(xa: int, xb: int, y: int, columns: int, rows: int) -> tuple[int, int, int]:
    """Block, first and stop slot of a mesh's links along row y from column xa to xb; east, then west.

    Parameters
    ----------
    xa
        column where the way begins.
    xb
        column where it ends.
    y
        row.
    columns
        of the mesh.
    rows
        of the mesh.

    """
    block = y if xb >= xa else rows + y
    return block, block * columns + min(xa, xb), block * columns + max(xa, xb)


@njit(cache=True, nogil=True)
def along_y(ya: int, yb: int, x: int, columns: int, rows: int) -> tuple[int, int, int]:
    """Block, first and stop slot of a mesh's links along column x from row ya to yb; south, then north.

    Parameters
    ----------
    ya
        row where the way begins.
    yb
        row where it ends.
    x
        column.
    columns
        of the mesh.
    rows
        of the mesh.

    """
    line = x if yb >= ya else columns + x
    first = 2 * rows * columns + line * rows
    return 2 * rows + line, first + min(ya, yb), first + max(ya, yb)
