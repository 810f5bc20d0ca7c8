"""Annealing of mappings on incremental moves: placement and partition, towards any mix of the objectives.

The cost of a run is the weighted sum of the objectives by the analytic model's own terms with messages per core,
exactly. Where mappings are judged by something else, copies per route or the packet-level evaluator, it is a proposal.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo import moves
from neuromap_moo.heuristics import slowest_slice_s
from neuromap_moo.moves import Cost, Graph, State, Top
from neuromap_moo.partition import LOADS, AnyPartitioner
from neuromap_moo.rules import Rules
from neuromap_moo.system import System
from neuromap_moo.walk import NO_MOVES, walk

if TYPE_CHECKING:
    from neuromap_moo.search.problem import MappingProblem

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Partitions whose neighbour lists are kept, as far as they take no more bytes; numbers of slices to keep states for.
KEPT_PARTITIONS, KEPT_BYTES, KEPT_SIZES = 512, 512 * 2**20, 256

#: Random exchanges that tell how much a move changes.
SAMPLES = 32

#: Placement moves between two proposals to cut layers anew.
ROUND = 1000

#: Part of a run, the hotter one, through which moves are judged by norms over all links; then the busiest link counts.
SOFT_PART = 0.6

#: Last temperature of a run, as a share of the mean change by a random exchange.
COLD = 3e-4


class Aim(NamedTuple):
    """What a run minimises: weights (m,) of the minimised objectives. How it judges moves: see moves.Cost."""

    weights: tuple[float, ...]
    is_soft: bool = False  # through SOFT_PART of a run


class Cut(NamedTuple):
    """One partition (L,), ready to be moved about: its neighbour lists and its loads (see partition.LOADS)."""

    cores_per_layer: IntArray
    graph: Graph
    load: dict[str, float]


class Workbench:
    """What local search needs of one problem: its tables, the partitions lately used, and states to work on."""

    def __init__(
        self,
        partitioner: AnyPartitioner,
        system: System,
        objectives: tuple[str, ...],
        rules: Rules | None = None,
    ) -> None:
        self.partitioner = partitioner
        self.system = system
        self.objectives = objectives
        self.rules = rules
        n_layers = len(partitioner.layer_names)
        allowed = np.ones((n_layers, system.usable_cores.size), dtype=np.bool_)
        stays = np.zeros(n_layers, dtype=np.bool_)
        if rules is not None:
            allowed, stays = rules.tables.allowed, rules.stays
        self.board = moves.make_board(system, allowed, stays)
        self._cuts: OrderedDict[bytes, Cut] = OrderedDict()
        self._bytes = 0  # of all their graphs
        self._states: OrderedDict[int, list[State]] = OrderedDict()
        self._slowest: dict[tuple[int, int], float] = {}

    def cut(self, cores_per_layer: IntArray) -> Cut:
        """Return one partition (L,)."""
        k = np.array(cores_per_layer, dtype=np.int64)
        key = k.tobytes()
        if key not in self._cuts:
            graphs = self.partitioner.core_graphs(k[None])
            row = np.repeat(np.arange(k.size), k) if self.rules is None else self.rules.row_of_slice(k)
            graph = moves.make_graph(graphs.source, graphs.target, graphs.messages, row)
            self._cuts[key] = Cut(k, graph, dict(zip(LOADS, graphs.loads[0].tolist(), strict=True)))
            self._bytes += _bytes_of(graph)
            while len(self._cuts) > 1 and (len(self._cuts) > KEPT_PARTITIONS or self._bytes > KEPT_BYTES):
                self._bytes -= _bytes_of(self._cuts.popitem(last=False)[1].graph)
        self._cuts.move_to_end(key)
        return self._cuts[key]

    def borrow_state(self, n_slices: int) -> State:
        """Return a state for this many slices, to be filled with `moves.put` and given back."""
        kept = self._states.setdefault(n_slices, [])
        self._states.move_to_end(n_slices)
        if len(self._states) > KEPT_SIZES:
            self._states.popitem(last=False)
        return kept.pop() if kept else moves.make_state(self.board, n_slices)

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

    def unpriced(self, cut: Cut) -> Cost:
        """Return a cost that is nothing, to set up a state for its loads alone."""
        return self.cost(cut, Aim((0.0,) * len(self.objectives)))._replace(looks_at_links=True)

    def cost(self, cut: Cut, aim: Aim) -> Cost:
        """Return an aim as the cost of placements of one partition."""
        price, load, board = self.system.cost, cut.load, self.board
        local = max(load[f"{way}_max"] / price(f"bandwidth_bit_per_s.{link}") for way, link in WAYS)
        compute = max(load[f"{event}s_max"] * price(f"t_{short}_s") for event, short in EVENTS)
        total = dict.fromkeys(TERMS, 0.0)
        for name, weight in zip(self.objectives, aim.weights, strict=True):
            for term, factor in self._terms(name, cut).items():
                total[term] += weight * factor
        chips = np.arange(board.barrier_s.size, dtype=np.float64)
        step = total["step"] + total["static"] * (
            price("p_chip_w") * chips + price("p_core_w") * float(cut.cores_per_layer.sum())
        )
        pairs = [
            total["joules"] * joules + total["hops"] * hops
            for joules, hops in ((board.joules_x, board.hops_x), (board.joules_y, board.hops_y))
        ]
        return Cost(
            pair_x=pairs[0].ravel(),
            pair_y=pairs[1].ravel(),
            per_crossing=total["crossing"],
            symmetric=all(bool((pair == pair.T).all()) for pair in pairs),
            looks_at_links=bool(step.any() or total["rate"] or total["link"] or total["peak"]),
            chip=total["chips"] * chips + total["barrier"] * board.barrier_s + total["constant"],
            step=step,
            top=Top(
                per_link=total["link"],
                per_peak=total["peak"],
                rate=total["rate"],
                compute_s=compute,
                local_link_s=local * price("message_bits"),
                adds_barrier=self.system.combine == "max_plus_barrier",
            ),
            is_soft=aim.is_soft,
        )

    def _terms(self, column: str, cut: Cut) -> dict[str, float]:
        """Coefficients of TERMS of which a minimised metric column is made (DESIGN 4.5)."""
        price, load = self.system.cost, cut.load
        steps = float(self.partitioner.steps_per_inference)
        events = {f"e_{event}s_j": steps * price(f"e_{short}_j") * load[f"{event}s"] for event, short in EVENTS}
        events["e_messages_j"] = steps * price("e_message_j") * load["messages"]
        ends = steps * sum(price(f"e_link_j.{link}") for _, link in WAYS) * load["messages"]
        constants = {
            **events,
            **{f"t_{event}s_s": load[f"{event}s_max"] * price(f"t_{short}_s") for event, short in EVENTS},
            "messages": load["messages"],
            "cores_used": float(cut.cores_per_layer.sum()),
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


#: What objectives are made of: Cost says how each term follows from a placement.
TERMS = ("step", "rate", "link", "peak", "joules", "hops", "crossing", "chips", "barrier", "static", "constant")
EVENTS = (("dendop", "dendop"), ("synop", "synop"), ("synmem_read", "synmem"))  # load, and the cost of one
WAYS = (("sent", "inject"), ("received", "eject"))


@dataclass
class AnnealingRun:
    """An annealing run on its way: where it stands, and the best it has met.

    It can be broken off between two calls of `advance` and pickled.
    """

    aim: Aim
    cores_per_layer: IntArray  # (L,)
    place: IntArray  # (S,) positions in System.usable_cores
    total: int  # moves
    first_temperature: float
    last_temperature: float
    best: tuple[IntArray, IntArray]  # cores_per_layer and place
    best_cost: float
    done: int = 0

    @property
    def ended(self) -> bool:
        """True once all its moves are made."""
        return self.done >= self.total


def _bytes_of(graph: Graph) -> int:
    return sum(x.nbytes for x in graph)


def cost_of(problem: MappingProblem, aim: Aim, genome: IntArray) -> float:
    """Return what a genotype (V,) costs under an aim."""
    bench = problem.workbench
    k, place = problem.encoding.split(genome)
    cut = bench.cut(k)
    state = bench.borrow_state(place.size)
    moves.put(bench.board, cut.graph, bench.cost(cut, aim), state, place)
    bench.give_back(state)
    return float(state.sums[moves.COST])


def start_run(
    problem: MappingProblem, aim: Aim, genome: IntArray, total: int, heat: float, rng: np.random.Generator
) -> AnnealingRun:
    """Begin a run of `total` moves at a genotype (V,).

    `heat` is the first temperature as a share of the mean change of cost by a random exchange.
    """
    bench = problem.workbench
    k, place = problem.encoding.split(genome)
    cut = bench.cut(k)
    cost = bench.cost(cut, aim)
    state = bench.borrow_state(place.size)
    moves.put(bench.board, cut.graph, cost, state, place)
    start = float(state.sums[moves.COST])
    walked = np.empty_like(place)
    changes = np.empty(SAMPLES)
    exchanges = np.stack([rng.integers(place.size, size=SAMPLES), rng.integers(state.slice_at.size, size=SAMPLES)], 1)
    before = start
    for i in range(SAMPLES):
        walk(rng, bench.board, cut.graph, cost, state, 1, 1.0, 1.0, exchanges[i : i + 1], walked)
        changes[i] = abs(state.sums[moves.COST] - before)
        before = state.sums[moves.COST]
    bench.give_back(state)
    spread = float(changes.mean()) or 1.0
    return AnnealingRun(aim, k, place, total, spread * heat, spread * COLD, (k, place), start)


def advance(problem: MappingProblem, run: AnnealingRun, n_moves: int, rng: np.random.Generator) -> tuple[int, int]:
    """Make `n_moves` more moves of a run, or what is left of it; return moves made, and those that looked at links.

    After every ROUND placement moves it proposes to cut layers anew, by the same Metropolis rule.
    """
    bench, board = problem.workbench, problem.workbench.board
    cut = bench.cut(run.cores_per_layer)
    cost = bench.cost(cut, run.aim)
    state = bench.borrow_state(run.place.size)
    moves.put(board, cut.graph, cost, state, run.place)
    cooling = (run.last_temperature / run.first_temperature) ** (1.0 / run.total)
    fixed = problem.encoding.has_fixed_partition
    in_rounds = not fixed or (run.aim.is_soft and cost.looks_at_links)
    n_moves = min(n_moves, run.total - run.done)
    made = looked = 0
    walked = np.empty_like(run.place)
    while made < n_moves:
        n = min(n_moves - made, ROUND) if in_rounds else n_moves - made
        temperature = run.first_temperature * cooling ** (run.done + made)
        cost = cost._replace(is_soft=run.aim.is_soft and run.done + made < SOFT_PART * run.total)
        done, seen, best = walk(
            rng, board, cut.graph, cost, state, n, temperature, temperature * cooling**n, NO_MOVES, walked
        )
        made += done
        looked += seen
        if best < run.best_cost:
            run.best, run.best_cost = (cut.cores_per_layer, walked.copy()), best
        proposal = None if fixed else propose_recut(problem, cut.cores_per_layer, state.place, rng)
        if proposal is not None:
            k, place = proposal
            made += 1
            new_cut = bench.cut(k)
            new_cost = bench.cost(new_cut, run.aim)
            new = bench.borrow_state(place.size)
            changed = k != cut.cores_per_layer
            if bench.rules is not None:
                changed = bench.rules.rows_of_layers(changed)
            moves.recut(board, cut.graph, cost, state, new_cut.graph, new_cost, new, place, changed)
            if new.sums[moves.COST] - state.sums[moves.COST] <= -temperature * np.log(1.0 - rng.random()):
                state, new, cut, cost = new, state, new_cut, new_cost
                walked = np.empty_like(place)
                if state.sums[moves.COST] < run.best_cost:
                    run.best, run.best_cost = (k, place), float(state.sums[moves.COST])
            bench.give_back(new)
    run.done += made
    run.cores_per_layer, run.place = cut.cores_per_layer, state.place.copy()
    bench.give_back(state)
    return made, looked


def propose_recut(
    problem: MappingProblem, cores_per_layer: IntArray, place: IntArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray] | None:
    """Take cores from one layer, give some to another, or both; all other slices stay where they are.

    The layer that gets cores is every other time the slowest; new slices come near one of its own. Returns cores per
    layer (L,) and places (S,), or None where the layers drawn cannot change.
    """
    e, rules = problem.encoding, problem.workbench.rules
    k = cores_per_layer.copy()
    before = np.split(place, np.cumsum(k)[:-1])
    parts = list(before)
    takes, gives = ((True, False), (False, True), (True, True))[rng.integers(3)]
    taker = giver = -1
    if takes:
        can_give = np.flatnonzero(k > e.minimum)
        if not can_give.size:
            return None
        giver = int(rng.choice(can_give))
        k[giver] = np.flatnonzero(e.fits[giver, : k[giver]])[-1]
        parts[giver] = parts[giver][np.sort(rng.permutation(parts[giver].size)[: k[giver]])]
    if gives:
        taker = problem.workbench.slowest_layer(k) if rng.random() < 0.5 else int(rng.integers(k.size))
        larger = np.flatnonzero(e.fits[taker, k[taker] + 1 :])
        if taker == giver or not larger.size:
            return None
        k[taker] += larger[0] + 1
        free = np.setdiff1d(np.arange(e.n_cores), np.concatenate(parts))
        if rules is not None:
            free = free[rules.open_to(taker, parts[taker])[free]]
        lacking = k[taker] - parts[taker].size
        if free.size < lacking:
            return None
        board = problem.workbench.board
        own = board.router[rng.choice(parts[taker])]
        away = problem.system.hops[own, board.router[free]] + rng.random(free.size)
        parts[taker] = np.concatenate([parts[taker], free[np.argsort(away)[:lacking]]])
    proposed = k, np.concatenate(parts)
    if rules is None or rules.legal(*proposed):
        return proposed
    # A fixed slice has come to another number than its own.
    k, settled = rules.settled(*proposed)
    after = np.split(settled, np.cumsum(k)[:-1])
    others = np.flatnonzero(k == cores_per_layer)
    return (k, settled) if all(np.array_equal(before[i], after[i]) for i in others) else None
