"""What local search works on: tables and cached partitions of one problem, and costs of placements."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neuromap_moo.annealing import tables
from neuromap_moo.annealing.link_tables import make_link_tables
from neuromap_moo.annealing.tables import Cost, MaxTermWeights, Neighbours, State
from neuromap_moo.arrays import IntArray
from neuromap_moo.heuristics.rules import slowest_slice_s
from neuromap_moo.mapping.encoding import Encoding
from neuromap_moo.mapping.legality import Legality
from neuromap_moo.partition.core_graph import LOADS
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

#: Partitions whose neighbour lists are kept, as far as they take no more bytes; numbers of slices to keep states for.
KEPT_PARTITIONS, KEPT_BYTES, KEPT_SIZES = 512, 512 * 2**20, 256


class Scalarisation(NamedTuple):
    """What a run minimises: weights (m,) of the minimised objectives; `is_soft` is explained at `tables.Cost`."""

    weights: tuple[float, ...]
    is_soft: bool = False  # through SOFT_PART of a run


class PartitionTables(NamedTuple):
    """One partition (L,), ready to be moved about: its neighbour lists and its loads by name (LOADS)."""

    cores_per_layer: IntArray
    neighbours: Neighbours
    load: dict[str, float]


class AnnealingCache:
    """What local search needs of one problem: its tables, the partitions lately used, and states to work on.

    Parameters
    ----------
    partitioner
        cuts layers into slices, for the same system.
    system
        where mappings go.
    objectives
        metric columns that scalarisations weigh.
    legality
        where slices may sit; None: anywhere.

    """

    def __init__(
        self,
        partitioner: AnyPartitioner,
        system: System,
        objectives: tuple[str, ...],
        legality: Legality | None = None,
    ) -> None:
        self.partitioner = partitioner
        self.system = system
        self.objectives = objectives
        self.legality = legality
        n_layers = len(partitioner.layer_names)
        allowed = np.ones((n_layers, system.usable_cores.size), dtype=np.bool_)
        stays = np.zeros(n_layers, dtype=np.bool_)
        if legality is not None:
            allowed, stays = legality.tables.allowed, legality.stays
        self.links = make_link_tables(system, allowed, stays)
        self._partitions: OrderedDict[bytes, PartitionTables] = OrderedDict()
        self._bytes = 0  # of all their graphs
        self._states: OrderedDict[int, list[State]] = OrderedDict()
        self._slowest: dict[tuple[int, int], float] = {}

    def partition_tables(self, cores_per_layer: IntArray) -> PartitionTables:
        """Return the tables of one partition (L,)."""
        k = np.array(cores_per_layer, dtype=np.int64)
        key = k.tobytes()
        if key not in self._partitions:
            graphs = self.partitioner.core_graphs(k[None])
            row = np.repeat(np.arange(k.size), k) if self.legality is None else self.legality.row_of_slice(k)
            neighbours = tables.make_neighbours(graphs.source, graphs.target, graphs.messages, row)
            self._partitions[key] = PartitionTables(
                k, neighbours, dict(zip(LOADS, graphs.loads[0].tolist(), strict=True))
            )
            self._bytes += _bytes_of(neighbours)
            while len(self._partitions) > 1 and (len(self._partitions) > KEPT_PARTITIONS or self._bytes > KEPT_BYTES):
                self._bytes -= _bytes_of(self._partitions.popitem(last=False)[1].neighbours)
        self._partitions.move_to_end(key)
        return self._partitions[key]

    def borrow_state(self, n_slices: int) -> State:
        """Return a state for this many slices, to be filled with `tables.put` and given back."""
        kept = self._states.setdefault(n_slices, [])
        self._states.move_to_end(n_slices)
        if len(self._states) > KEPT_SIZES:
            self._states.popitem(last=False)
        return kept.pop() if kept else tables.make_state(self.links, n_slices)

    def give_back(self, state: State) -> None:
        """Take a borrowed state back."""
        self._states.setdefault(state.place.size, []).append(state)

    def slowest_layer(self, cores_per_layer: IntArray) -> int:
        """Index of the layer whose fullest core takes longest."""
        times = []
        for key in enumerate(cores_per_layer.tolist()):
            if key not in self._slowest:
                self._slowest[key] = slowest_slice_s(self.partitioner, *key, self.system)
            times.append(self._slowest[key])
        return int(np.argmax(times))

    def unpriced(self, partition: PartitionTables) -> Cost:
        """Return a cost that is nothing, to set up a state for its loads alone."""
        return self.cost(partition, Scalarisation((0.0,) * len(self.objectives)))._replace(looks_at_links=True)

    def cost(self, partition: PartitionTables, scalarisation: Scalarisation) -> Cost:
        """Return a scalarisation as the cost of placements of one partition."""
        price, load, links = self.system.cost, partition.load, self.links
        local = max(load[f"{way}_max"] / price(f"bandwidth_bit_per_s.{link}") for way, link in WAYS)
        compute = max(load[f"{event}s_max"] * price(f"t_{short}_s") for event, short in EVENTS)
        total = dict.fromkeys(TERMS, 0.0)
        for name, weight in zip(self.objectives, scalarisation.weights, strict=True):
            for term, factor in self._terms(name, partition).items():
                total[term] += weight * factor
        chips = np.arange(links.barrier_s.size, dtype=np.float64)
        step = total["step"] + total["static"] * (
            price("p_chip_w") * chips + price("p_core_w") * float(partition.cores_per_layer.sum())
        )
        pairs = [
            total["joules"] * joules + total["hops"] * hops
            for joules, hops in ((links.joules_x, links.hops_x), (links.joules_y, links.hops_y))
        ]
        return Cost(
            pair_x=pairs[0].ravel(),
            pair_y=pairs[1].ravel(),
            per_crossing=total["crossing"],
            symmetric=all(bool((pair == pair.T).all()) for pair in pairs),
            looks_at_links=bool(step.any() or total["rate"] or total["link"] or total["peak"]),
            chip=total["chips"] * chips + total["barrier"] * links.barrier_s + total["constant"],
            step=step,
            max_terms=MaxTermWeights(
                per_link=total["link"],
                per_peak=total["peak"],
                rate=total["rate"],
                compute_s=compute,
                local_link_s=local * price("message_bits"),
                adds_barrier=self.system.combine == "max_plus_barrier",
            ),
            is_soft=scalarisation.is_soft,
        )

    def _terms(self, column: str, partition: PartitionTables) -> dict[str, float]:
        """Coefficients of TERMS of which a minimised metric column is made (docs/model.md)."""
        price, load = self.system.cost, partition.load
        steps = float(self.partitioner.steps_per_inference)
        events = {f"e_{event}s_j": steps * price(f"e_{short}_j") * load[f"{event}s"] for event, short in EVENTS}
        events["e_messages_j"] = steps * price("e_message_j") * load["messages"]
        ends = steps * sum(price(f"e_link_j.{link}") for _, link in WAYS) * load["messages"]
        constants = {
            **events,
            **{f"t_{event}s_s": load[f"{event}s_max"] * price(f"t_{short}_s") for event, short in EVENTS},
            "messages": load["messages"],
            "cores_used": float(partition.cores_per_layer.sum()),
        }
        if column in constants:
            return {"constant": constants[column]}
        return {
            "latency_s": {"step": steps + self.partitioner.depth - 1.0},
            "step_time_s": {"step": 1.0},
            "throughput_hz": {"rate": 1.0 / steps},
            "t_link_s": {"link": 1.0},
            "t_barrier_s": {"barrier": 1.0},
            "peak_link_messages": {"peak": 1.0},
            "message_hops": {"hops": 1.0},
            "inter_chip_messages": {"crossing": 1.0},
            "chips_used": {"chips": 1.0},
            "e_static_j": {"static": steps},
            "e_links_j": {"joules": steps, "constant": ends},
            "energy_j": {"static": steps, "joules": steps, "constant": sum(events.values()) + ends},
        }[column]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """All that moves through the mappings of one problem need.

    `encoding` says how genotypes read, `system` where cores are, `cache` holds the tables of the moves.
    """

    encoding: Encoding
    system: System
    cache: AnnealingCache

    @classmethod
    def for_problem(
        cls, encoding: Encoding, partitioner: AnyPartitioner, system: System, objectives: tuple[str, ...]
    ) -> SearchSpace:
        """Make the space of mappings that are judged by `objectives` on `system`.

        Parameters
        ----------
        encoding
            how genotypes read.
        partitioner
            cuts layers into slices, for the same system.
        system
            where mappings go.
        objectives
            metric columns that scalarisations weigh.

        """
        return cls(encoding, system, AnnealingCache(partitioner, system, objectives, encoding.legality))


#: What objectives are made of: Cost says how each term follows from a placement.
TERMS = ("step", "rate", "link", "peak", "joules", "hops", "crossing", "chips", "barrier", "static", "constant")
EVENTS = (("dendop", "dendop"), ("synop", "synop"), ("synmem_read", "synmem"))  # load, and the cost of one
WAYS = (("sent", "inject"), ("received", "eject"))


def _bytes_of(neighbours: Neighbours) -> int:
    return sum(x.nbytes for x in neighbours)
