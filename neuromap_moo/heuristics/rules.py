"""Constructive mappings: the rules a vendor's tool or an expert would use, as baselines and starting points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neuromap_moo.arrays import IndexArray, IntArray
from neuromap_moo.heuristics.curves import compact_cores, curve_through, snake
from neuromap_moo.heuristics.spectral import MAXIMUM_SPECTRAL_SLICES, spectral_cores
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import Mesh

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
        "minimum_packed": Baseline(_place(minimum, order, compact_cores(system, int(minimum.sum())))),
        "equal_split": Baseline(_place(equal_split(partitioner), order, usable)),
        "strided": Baseline(_place(counts, order, usable[one_each]), note),
        "serpentine": Baseline(_place(counts, order, snake(system)), note),
    }
    if isinstance(system.topology, Mesh):
        made["hilbert"] = Baseline(_place(counts, order, curve_through(system)), note)
    if counts.sum() <= MAXIMUM_SPECTRAL_SLICES:
        cores = spectral_cores(partitioner.core_graph(counts.tolist()), system)
        made["spectral"] = Baseline(Mapping(tuple(counts.tolist()), tuple(cores.tolist())), note)
    return made


def vendor_orders(partitioner: AnyPartitioner, system: System, rng: np.random.Generator) -> list[Mapping]:
    """Return the vendor's partition under random orders of the layers.

    The public compiler hands its layers over in no fixed order, so the vendor's default is a family of mappings.

    Parameters
    ----------
    partitioner
        cuts layers into slices, for the same system.
    system
        where mappings go.
    rng
        draws the orders.

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
    columns = snake(system, along_x=False)
    placed: list[Mapping] = []

    def place() -> None:
        placed.extend(_place(counts, order, cores) for cores in (system.usable_cores, columns))

    place()
    slowest, fastest = (
        np.array([slowest_slice_s(partitioner, layer, int(k), system) for layer, k in enumerate(cores)])
        for cores in (counts, partitioner.maximum)
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

    These are neuron updates, synaptic operations, reads of synapse memory and messages received (docs/model.md).

    Parameters
    ----------
    partitioner
        cuts layers into slices, for the same system.
    layer
        index of the layer.
    n_slices
        into which it is cut.
    system
        whose costs count.

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


def equal_split(partitioner: AnyPartitioner) -> IntArray:
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


def _place(counts: IntArray, order: Sequence[int], cores: IndexArray) -> Mapping:
    """Hand out `cores` in turn to the layers in `order`; slices are listed by layer index all the same."""
    first = dict(zip(order, np.concatenate([[0], np.cumsum(counts[list(order)])[:-1]]).tolist(), strict=True))
    placed = [cores[first[i] : first[i] + n] for i, n in enumerate(counts.tolist())]
    return Mapping(tuple(counts.tolist()), tuple(np.concatenate(placed).tolist()))
