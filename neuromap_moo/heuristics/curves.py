"""Cores along curves that fill the mesh."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import IndexArray, IntArray
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import Mesh


def hilbert_curve(width: int, height: int) -> IntArray:
    """Cells (width * height, 2) of a grid as x, y along a Hilbert curve from (0, 0) to the far end of a longer side.

    Hilbert's curve (Math. Annalen 38, 1891) for any rectangle, after the idea of J. Cerveny
    (https://github.com/jakubcerveny/gilbert): a long rectangle is two in a row; any other one is three: up in its first
    half, all the way across, down again in its second half. The parts have even sides where possible. Each cell is a
    neighbour of the one before; one step is diagonal where the longer side is odd and the shorter one even, since no
    path between these ends can then do without.
    """
    cells: list[complex] = []

    def fill(start: complex, along: complex, n: int, across: complex, m: int) -> None:
        """Go through n by m cells from the corner `start`, to end at the far end of the side `along`."""
        half, rise = n // 2, m // 2
        if m == 1 or n == 1:
            cells.extend(start + i * along + j * across for i in range(n) for j in range(m))
        elif 2 * n > 3 * m:
            half += half % 2 if n > 2 else 0
            fill(start, along, half, across, m)
            fill(start + half * along, along, n - half, across, m)
        else:
            rise += rise % 2 if m > 2 else 0
            fill(start, across, rise, along, half)
            fill(start + rise * across, along, n, across, m - rise)
            fill(start + (n - 1) * along + (rise - 1) * across, -across, rise, -along, n - half)

    if width >= height:
        fill(0, 1, width, 1j, height)
    else:
        fill(0, 1j, height, 1, width)
    plane = np.array(cells)
    return np.stack([plane.real, plane.imag], axis=1).astype(np.int64)


def compact_cores(system: System, n: int) -> IndexArray:
    """Usable cores (n,) on a few chips next to each other, nearest to one of their most central routers first."""
    usable = system.usable_cores
    router = system.router_of_core[usable]
    chip = system.chip_of_router[router]
    distance = system.hops + system.hops.T  # there and back: links may go one way only
    room = np.bincount(chip, minlength=system.n_chips)
    taken = np.zeros(system.n_chips, dtype=bool)
    apart = np.zeros(system.n_routers)  # hops to all usable cores of the chips taken
    while room[taken].sum() < n:
        nearest = np.bincount(chip, apart[router], system.n_chips) / np.maximum(room, 1)
        # the first is the one with the most cores
        nearest = np.where(taken | (room == 0), np.inf, nearest if taken.any() else -room)
        new = int(nearest.argmin())
        taken[new] = True
        routers, cores = np.unique(router[chip == new], return_counts=True)
        apart += distance[:, routers] @ cores
    own = taken[chip]
    usable, router = usable[own], router[own]
    centre = router[apart[router].argmin()]
    return usable[np.lexsort((usable, router, distance[router, centre]))][:n]


def snake(system: System, along_x: bool = True) -> IndexArray:
    """Usable cores along a walk over their routers, on a mesh along rows (or columns) in alternating direction."""
    router = system.router_of_core[system.usable_cores]
    return _cores_along(system, system.topology.walk(np.unique(router), along_x))


def curve_through(system: System) -> IndexArray:
    """Usable cores along a curve that keeps near what is near: `hilbert` on a mesh, else `serpentine`."""
    mesh = system.topology
    if not isinstance(mesh, Mesh):
        return snake(system)
    step, chip_step = (
        np.argsort(np.ravel_multi_index(tuple(hilbert_curve(*sides).T[::-1]), sides[::-1]))
        for sides in ((mesh.width, mesh.height), (mesh.chips_x, mesh.chips_y))
    )
    local = np.arange(mesh.n_routers) % (mesh.width * mesh.height)
    return _cores_along(system, np.lexsort((step[local], chip_step[mesh.chip_of_router])))


def _cores_along(system: System, routers: NDArray[np.integer[Any]]) -> IndexArray:
    """Usable cores of routers in their order, all of a router before the next; `routers` are all that have any."""
    step = np.empty(system.n_routers, dtype=np.int64)
    step[routers] = np.arange(len(routers))
    return system.usable_cores[np.lexsort((system.usable_cores, step[system.router_of_core[system.usable_cores]]))]
