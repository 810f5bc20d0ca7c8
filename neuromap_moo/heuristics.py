"""Constructive mappings: the rules a vendor's tool or an expert would use, as baselines and starting points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from neuromap_moo import kernels
from neuromap_moo.mapping import Mapping
from neuromap_moo.partition import AnyPartitioner, CoreGraph
from neuromap_moo.system import System
from neuromap_moo.topology import Mesh

#: Random layer orders reported beside the vendor's default, whose real order is not deterministic.
N_LAYER_ORDERS = 10

#: `spectral` works on full matrices, in about 2 s with so many slices; with more it is left out.
MAXIMUM_SPECTRAL_SLICES = 1024

#: Eigenvectors of the core graph that `spectral` takes its two axes from, and assignments that it tries at most; with
#: S slices about ASSIGNMENT_WORK / S^2 of them, at least one, since an assignment of 1024 slices takes 0.5 s.
N_EIGENVECTORS, N_ASSIGNMENTS, ASSIGNMENT_WORK = 4, 8, 3 * 2**20

#: How strongly slices that follow each other hold together besides their messages, as a share of the mean messages
#: between two slices, and how much farther apart cores seem per step from id to id, in hops. Both are there to tell
#: apart what is equal: without them an eigenvector could be any of many, and rounding would choose.
SLICE_TIE, CORE_TIE = 1e-3, 1e-6


class Baseline(NamedTuple):
    """A mapping made by a named rule; `note` says where the rule had to be bent."""

    mapping: Mapping
    note: str = ""


def constructive(partitioner: AnyPartitioner, system: System) -> dict[str, Baseline]:
    """Return one mapping per named rule, `vendor_default` first.

    vendor_default
        the vendor's partition in topological order on cores 0, 1, 2, ...
    minimum_packed
        fewest cores, on the routers nearest to one of the most central ones, on as few neighbouring chips as will do
    equal_split
        all usable cores, the same number for every layer as far as memory allows
    strided
        the vendor's partition, one core per router first, then the second core of each, ...
    serpentine
        the vendor's partition, router after router: rows in alternating direction on a mesh, on a graph from one
        router to the nearest that is left
    hilbert
        the vendor's partition along a Hilbert curve over the routers of each chip, the chips along one over the grid
        of chips, all cores of a router before the next; only on a mesh, since a graph has no plane to fill and its
        nearest neighbours are what `serpentine` follows
    spectral
        the vendor's partition where `spectral_cores` puts it; up to MAXIMUM_SPECTRAL_SLICES slices

    `balanced_partitions` gives what an expert would do next.
    """
    counts, notes = partitioner.vendor_slice_counts()
    note = "; ".join(notes)
    order = partitioner.topological_order
    usable = system.usable_cores
    core_in_router = usable % system.topology.cores_per_router
    one_each = np.lexsort((system.router_of_core[usable], core_in_router))
    minimum = partitioner.minimum
    made = {
        "vendor_default": Baseline(_place(counts, order, usable), note),
        "minimum_packed": Baseline(_place(minimum, order, _compact(system, int(minimum.sum())))),
        "equal_split": Baseline(_place(equal_split(partitioner), order, usable)),
        "strided": Baseline(_place(counts, order, usable[one_each]), note),
        "serpentine": Baseline(_place(counts, order, _snake(system)), note),
    }
    if isinstance(system.topology, Mesh):
        made["hilbert"] = Baseline(_place(counts, order, _curve(system)), note)
    if counts.sum() <= MAXIMUM_SPECTRAL_SLICES:
        cores = spectral_cores(partitioner.core_graph(counts.tolist()), system)
        made["spectral"] = Baseline(Mapping(tuple(counts.tolist()), tuple(cores.tolist())), note)
    return made


def vendor_orders(partitioner: AnyPartitioner, system: System, rng: np.random.Generator) -> list[Mapping]:
    """Return the vendor's partition under random orders of the layers.

    The public compiler hands its layers over in no fixed order, so the vendor's default is a family of mappings.
    """
    counts, _ = partitioner.vendor_slice_counts()
    orders = [rng.permutation(len(counts)) for _ in range(N_LAYER_ORDERS)]
    return [_place(counts, order.tolist(), system.usable_cores) for order in orders]


#: Partitions between the fewest cores and all that `balanced_partitions` tries, about, and edges of all their graphs,
#: counted as if all had as many as the smallest.
MOST_BALANCED, MOST_EDGES = 1024, 400_000_000


def balanced_partitions(partitioner: AnyPartitioner, system: System) -> list[Mapping]:
    """Return mappings from fewest cores to all, with loads evened out on the way.

    Starting from the fewest cores, the layer whose fullest core takes longest (`slowest_slice_s`) gets one more, again
    and again; several more on large systems, where there would be more than about `MOST_BALANCED` partitions, or their
    graphs would have more than `MOST_EDGES` edges. A layer that is as fast as it would be on its most cores waits until
    all are: the messages that a core receives, for one, are the same however finely a dense layer is cut. Each
    partition on the way is placed twice, in topological order: on cores 0, 1, 2, ..., and along the columns of routers
    in alternating direction (on a graph, from router to nearest router), which packs a layer more closely.
    """
    counts = partitioner.minimum.astype(np.int64).copy()
    order = partitioner.topological_order
    free = partitioner.n_cores - int(counts.sum())
    edges = int(partitioner.most_edges(counts[None])[0]) if free else 0
    more = 1 + max(free // MOST_BALANCED, free * edges // MOST_EDGES)
    columns = _snake(system, along_x=False)
    placed: list[Mapping] = []

    def place() -> None:
        placed.extend(_place(counts, order, cores) for cores in (system.usable_cores, columns))

    place()
    slowest, fastest = (
        np.array([slowest_slice_s(partitioner, layer, int(k), system) for layer, k in enumerate(cut)])
        for cut in (counts, partitioner.maximum)
    )
    while True:
        free = partitioner.n_cores - int(counts.sum())
        for layer in np.lexsort((slowest, slowest > fastest * (1 + 1e-9)))[::-1]:
            larger = np.flatnonzero(partitioner.fits[layer, counts[layer] + 1 : counts[layer] + 1 + free])
            if larger.size:
                counts[layer] += int(larger[min(more, larger.size) - 1]) + 1
                slowest[layer] = slowest_slice_s(partitioner, int(layer), int(counts[layer]), system)
                place()
                break
        else:
            return placed


def slowest_slice_s(partitioner: AnyPartitioner, layer: int, n_slices: int, system: System) -> float:
    """Time of the slowest of `n_slices` slices of a layer in s, by the terms that no other layer's cut changes.

    These are neuron updates, synaptic operations, reads of synapse memory and the messages received (DESIGN 4.5).
    """
    loads = partitioner.layer_loads(layer, n_slices)
    t_eject_s = system.cost("message_bits") / system.cost("bandwidth_bit_per_s.eject")
    return float(
        max(
            loads.dendops.max() * system.cost("t_dendop_s"),
            loads.synops.max() * system.cost("t_synop_s"),
            loads.synmem_reads.max() * system.cost("t_synmem_s"),
            loads.received.max() * t_eject_s,
        )
    )


def equal_split(partitioner: AnyPartitioner) -> NDArray[np.int64]:
    """Cores per layer (L,): the same share of all cores for every layer, more only where memory demands it."""
    counts = partitioner.minimum.astype(np.int64).copy()
    free = partitioner.n_cores - int(counts.sum())
    while free > 0:
        # the layer with the fewest cores that can still take some and then fits
        for layer in np.argsort(counts, kind="stable"):
            larger = np.flatnonzero(partitioner.fits[layer, counts[layer] + 1 : counts[layer] + 1 + free])
            if larger.size:
                step = int(larger[0]) + 1
                counts[layer] += step
                free -= step
                break
        else:
            break
    return counts


def hilbert_curve(width: int, height: int) -> NDArray[np.int64]:
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


def spectral_cores(graph: CoreGraph, system: System) -> NDArray[np.int32]:
    """Cores (S,) of the slices of a core graph, such that slices with much to tell each other lie together.

    The slices get places on two axes: eigenvectors of the Laplacian of the messages, both ways added up, to the lowest
    eigenvalues but the first (Hall, "An r-dimensional quadratic placement algorithm", Management Science 17(3), 1970).
    The cores get places by classical scaling of the hops between them (Torgerson, "Multidimensional scaling",
    Psychometrika 17(4), 1952), so that any topology will do. On each axis ranks take the place of coordinates, which
    spreads the slices as evenly as the cores, and a linear assignment matches the two by squared distance. Several
    pairs of the first eigenvectors, as they are, turned and mirrored, are tried; the fewest message hops win.

    Fewer slices than usable cores take a compact set of them. Slices between which no messages pass, even by way of
    others, are placed apart: each connected part on the next stretch of a curve over that set, the largest first.
    """
    n = graph.n_slices
    messages = coo_array((graph.messages, (graph.source, graph.target)), shape=(n, n)).toarray()
    np.fill_diagonal(messages, 0.0)
    _, part = connected_components(messages > 0, directed=False)
    size = np.bincount(part)[part]
    slices = np.lexsort((np.arange(n), part, -size))
    linked = int((size > 1).sum())
    compact = _compact(system, n)
    curve = _curve(system)
    cores = np.concatenate([curve[np.isin(curve, compact[:linked])], compact[linked:]])
    placed = np.empty(n, dtype=np.int32)
    placed[slices] = cores  # where it stays for slices on their own
    first = 0
    while first < linked:
        stop = first + int(size[slices[first]])
        own = slices[first:stop]
        placed[own] = cores[first:stop][_match(messages[np.ix_(own, own)], system, cores[first:stop])]
        first = stop
    return placed


def _match(messages: NDArray[np.float64], system: System, cores: NDArray[np.int32]) -> NDArray[np.int64]:
    """Indices (S,) of the cores of S slices, whose core graph `messages` (S, S) is connected, among S cores."""
    n = len(cores)
    router = system.router_of_core[cores]
    hops = system.hops[np.ix_(router, router)]
    near = -0.5 * (hops + hops.T + CORE_TIE * np.abs(np.subtract.outer(cores, cores))) ** 2
    near += near.mean() - near.mean(axis=0) - near.mean(axis=1)[:, None]
    spread, axes = _eigenvectors(near, n - 2, n - 1)
    scale = np.round(np.sqrt(np.maximum(spread[::-1], 0.0) / spread[1]), 6)  # equal distances stay equal
    places = _spread_ranks(axes[:, ::-1], 4) * scale

    both_ways = messages + messages.T
    tie = np.diag(SLICE_TIE * both_ways[both_ways > 0].mean() * np.linspace(1, 2, n - 1), 1)  # no two alike
    both_ways += tie + tie.T
    _, modes = _eigenvectors(np.diag(both_ways.sum(axis=0)) - both_ways, 1, min(N_EIGENVECTORS, n - 1))
    modes = np.hstack([modes, np.zeros((n, max(0, 3 - n)))])  # two slices have one axis, the other is flat
    drafts = [
        _spread_ranks(axes, 6) * scale
        for pair in itertools.combinations(range(modes.shape[1]), 2)
        for turned in (modes[:, pair], _turned(modes[:, pair]))
        for axes in (turned, turned[:, ::-1])
    ]
    source, target = np.nonzero(messages)
    sent = messages[source, target]
    length = np.array([(sent * np.abs(draft[source] - draft[target]).sum(axis=1)).sum() for draft in drafts])
    shortest_first = np.argsort(np.round(length / length.max(), 9), kind="stable")  # rounding must not choose
    flips = _different_flips(places)
    tries = [drafts[i] * flip for i in shortest_first for flip in flips]
    best, fewest = np.arange(n), np.inf
    for draft in tries[: max(1, min(N_ASSIGNMENTS, ASSIGNMENT_WORK // n**2))]:
        _, to = linear_sum_assignment(((draft[:, None] - places) ** 2).sum(axis=2))
        message_hops = (sent * hops[to[source], to[target]]).sum()
        if message_hops < fewest * (1 - 1e-9):
            best, fewest = to, message_hops
    return best


def _spread_ranks(axes: NDArray[np.float64], digits: int) -> NDArray[np.float64]:
    """Ranks on each of the axes (n, 2), from -1/2 to 1/2; what is equal to so many digits shares the mean rank."""
    n = len(axes)
    ranks = np.empty((n, 2))
    for i, axis in enumerate(axes.T):
        _, which, count = np.unique(np.round(axis / (np.abs(axis).max() or 1.0), digits), False, True, True)
        ranks[:, i] = ((np.cumsum(count) - count / 2) / n - 0.5)[which]
    return ranks


def _eigenvectors(
    matrix: NDArray[np.float64], first: int, last: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues first..last of a symmetric matrix, ascending, and their vectors (n, last - first + 1).

    The largest entry of each vector is positive. LAPACK's dense solvers are not used: their threads wait for each other
    at every step, which takes 300 times as long (0.45 s with n = 250) while something else runs on one of two cores.
    """
    size = np.abs(matrix).max()
    reduced = matrix / size
    diagonal, beside, factor = kernels.tridiagonalise(reduced)
    values, vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=(first, last))
    rows = np.ascontiguousarray(vectors.T)
    kernels.reflect(reduced, factor, rows)
    largest = np.round(np.abs(rows) / np.abs(rows).max(axis=1)[:, None], 6).argmax(axis=1)  # of several the first
    signed = rows * np.sign(rows[range(len(rows)), largest])[:, None]
    return values * size, np.asarray(signed.T, dtype=np.float64)


def _turned(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places (n, 2) turned until they fill a square along its sides: to the least sum of fourth powers.

    Eigenvectors to nearly the same eigenvalue, as square meshes have, come at any angle.
    """
    plane = axes[:, 0] + 1j * axes[:, 1]
    plane = plane * np.exp(1j * (np.pi - np.angle((plane**4).sum())) / 4)
    return np.stack([plane.real, plane.imag], axis=1)


def _different_flips(places: NDArray[np.float64]) -> list[tuple[int, ...]]:
    """Signs of the two axes that do not just mirror the places (n, 2) onto each other."""
    different: dict[bytes, tuple[int, ...]] = {}
    for flip in itertools.product((1, -1), repeat=2):
        mirrored = np.round(places * flip, 6) + 0.0  # no -0.0
        different.setdefault(mirrored[np.lexsort(mirrored.T)].tobytes(), flip)
    return list(different.values())


def _compact(system: System, n: int) -> NDArray[np.int32]:
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


def _snake(system: System, along_x: bool = True) -> NDArray[np.int32]:
    """Usable cores along a walk over their routers, on a mesh along rows (or columns) in alternating direction."""
    router = system.router_of_core[system.usable_cores]
    return _cores_along(system, system.topology.walk(np.unique(router), along_x))


def _curve(system: System) -> NDArray[np.int32]:
    """Usable cores along a curve that keeps near what is near: `hilbert` on a mesh, else `serpentine`."""
    mesh = system.topology
    if not isinstance(mesh, Mesh):
        return _snake(system)
    step, chip_step = (
        np.argsort(np.ravel_multi_index(tuple(hilbert_curve(*sides).T[::-1]), sides[::-1]))
        for sides in ((mesh.width, mesh.height), (mesh.chips_x, mesh.chips_y))
    )
    local = np.arange(mesh.n_routers) % (mesh.width * mesh.height)
    return _cores_along(system, np.lexsort((step[local], chip_step[mesh.chip_of_router])))


def _cores_along(system: System, routers: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Usable cores of routers in their order, all of a router before the next; `routers` are all that have any."""
    step = np.empty(system.n_routers, dtype=np.int64)
    step[routers] = np.arange(len(routers))
    return system.usable_cores[np.lexsort((system.usable_cores, step[system.router_of_core[system.usable_cores]]))]


def _place(counts: NDArray[np.int64], order: Sequence[int], cores: NDArray[np.int32]) -> Mapping:
    """Hand out `cores` in turn to the layers in `order`; slices are listed by layer index all the same."""
    first = dict(zip(order, np.concatenate([[0], np.cumsum(counts[list(order)])[:-1]]).tolist(), strict=True))
    placed = [cores[first[i] : first[i] + n] for i, n in enumerate(counts.tolist())]
    return Mapping(tuple(counts.tolist()), tuple(np.concatenate(placed).tolist()))
