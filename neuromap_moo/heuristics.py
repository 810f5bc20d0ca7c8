"""Constructive mappings: the rules a vendor's tool or an expert would use, as baselines and starting points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.mapping import Mapping
from neuromap_moo.partition import AnyPartitioner
from neuromap_moo.system import System

#: Random layer orders reported beside the vendor's default, whose real order is not deterministic.
N_LAYER_ORDERS = 10


class Baseline(NamedTuple):
    """A mapping made by a named rule; `note` says where the rule had to be bent."""

    mapping: Mapping
    note: str = ""


def constructive(partitioner: AnyPartitioner, system: System) -> dict[str, Baseline]:
    """Return one mapping per named rule, `vendor_default` first.

    vendor_default
        the vendor's partition in topological order on cores 0, 1, 2, ...
    minimum_packed
        fewest cores, on the routers nearest to one of the most central ones
    equal_split
        all usable cores, the same number for every layer as far as memory allows
    strided
        the vendor's partition, one core per router first, then the second core of each, ...
    serpentine
        the vendor's partition, router after router: rows in alternating direction on a mesh, on a graph from one
        router to the nearest that is left

    `balanced_partitions` gives what an expert would do next.
    """
    counts, notes = partitioner.vendor_slice_counts()
    note = "; ".join(notes)
    order = partitioner.topological_order
    usable = system.usable_cores
    router = system.router_of_core[usable]
    core_in_router = usable % system.topology.cores_per_router
    distance = system.hops + system.hops.T  # there and back: links may go one way only
    centre = router[np.argmin((distance @ np.bincount(router, minlength=system.n_routers))[router])]
    compact = np.lexsort((usable, router, distance[router, centre]))
    return {
        "vendor_default": Baseline(_place(counts, order, usable), note),
        "minimum_packed": Baseline(_place(partitioner.minimum, order, usable[compact])),
        "equal_split": Baseline(_place(equal_split(partitioner), order, usable)),
        "strided": Baseline(_place(counts, order, usable[np.lexsort((router, core_in_router))]), note),
        "serpentine": Baseline(_place(counts, order, _snake(system)), note),
    }


def vendor_orders(partitioner: AnyPartitioner, system: System, rng: np.random.Generator) -> list[Mapping]:
    """Return the vendor's partition under random orders of the layers.

    The public compiler hands its layers over in no fixed order, so the vendor's default is a family of mappings.
    """
    counts, _ = partitioner.vendor_slice_counts()
    orders = [rng.permutation(len(counts)) for _ in range(N_LAYER_ORDERS)]
    return [_place(counts, order.tolist(), system.usable_cores) for order in orders]


def balanced_partitions(partitioner: AnyPartitioner, system: System) -> list[Mapping]:
    """Return mappings from fewest cores to all, with loads evened out on the way.

    Starting from the fewest cores, the layer whose fullest core takes longest (`slowest_slice_s`) gets one more, again
    and again. A layer that is as fast as it would be on its most cores waits until all are: the messages that a core
    receives, for one, are the same however finely a dense layer is cut. Each partition on the way is placed twice, in
    topological order: on cores 0, 1, 2, ..., and along the columns of routers in alternating direction (on a graph,
    from router to nearest router), which packs a layer more closely.
    """
    counts = partitioner.minimum.astype(np.int64).copy()
    order = partitioner.topological_order
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
                counts[layer] += int(larger[0]) + 1
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


def _snake(system: System, along_x: bool = True) -> NDArray[np.int32]:
    """Usable cores along a walk over their routers, on a mesh along rows (or columns) in alternating direction."""
    router = system.router_of_core[system.usable_cores]
    walk = system.topology.walk(np.unique(router), along_x)
    step = np.empty(system.n_routers, dtype=np.int64)
    step[walk] = np.arange(len(walk))
    return system.usable_cores[np.lexsort((system.usable_cores, step[router]))]


def _place(counts: NDArray[np.int64], order: Sequence[int], cores: NDArray[np.int32]) -> Mapping:
    """Hand out `cores` in turn to the layers in `order`; slices are listed by layer index all the same."""
    first = dict(zip(order, np.concatenate([[0], np.cumsum(counts[list(order)])[:-1]]).tolist(), strict=True))
    placed = [cores[first[i] : first[i] + n] for i, n in enumerate(counts.tolist())]
    return Mapping(tuple(counts.tolist()), tuple(np.concatenate(placed).tolist()))
