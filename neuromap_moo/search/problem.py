"""Mapping as a pymoo Problem."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping as MappingABC
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.core.problem import Problem

from neuromap_moo import heuristics
from neuromap_moo.constraints import Constraints
from neuromap_moo.errors import InputError
from neuromap_moo.evaluate import Evaluator, Measuring, Metrics, check_objectives, minimised
from neuromap_moo.evaluate.analytic import AnalyticEvaluator
from neuromap_moo.evaluate.choice import evaluator_for
from neuromap_moo.evaluate.packet import PacketEvaluator
from neuromap_moo.heuristics import Baseline
from neuromap_moo.mapping import Mapping, MappingBatch, check, stack
from neuromap_moo.network import Network
from neuromap_moo.partition import CoreGraph, partitioner_for, rows_that_fit
from neuromap_moo.rules import Rules
from neuromap_moo.search.encoding import Encoding
from neuromap_moo.search.local import Workbench
from neuromap_moo.search.operators import (
    MappingCrossover,
    MappingDuplicates,
    MappingMutation,
    MappingRepair,
    MappingSampling,
    Variation,
)
from neuromap_moo.system import System

#: The reference point is this much worse than the vendor's default in every objective, and by MARGIN worse than every
#: baseline.
REFERENCE_FACTOR, MARGIN = 1.5, 1.1

#: Balanced partitions among the first mappings of a search.
N_BALANCED_SEEDS = 30

#: Share of a search's work that goes to annealing runs.
LOCAL_SHARE = 0.9

#: Properties of a problem that are another's on another system; its baselines stay, as mappings to begin with.
OF_SYSTEM = ("workbench", "reference_point")

#: Seed of the random layer orders among the baselines: they belong to the problem, not to a run.
LAYER_ORDER_SEED = 0


#: Why a search ends that is stopped while its evaluator measures the first mappings.
NOTHING_YET = "stopped before the first mappings were all measured, so there are no results yet; measurements are kept"


class MappingProblem(Problem):
    """Map a network (or a core graph, whose partition is fixed) onto a system.

    Variables are the integers of `search/encoding.py`; objectives are metric columns, minimised (throughput_hz
    maximised). `constraints` are Constraints, a dict in their YAML form or the path of a YAML. Raises InputError at
    once when the network cannot fit the system, or not under the constraints. `evaluate` takes feasible genotypes and
    refuses others: foreign operators need the repair of `operators`.
    """

    def __init__(
        self,
        network: Network | CoreGraph,
        system: System,
        objectives: Sequence[str] = ("latency_s", "energy_j"),
        evaluator: Evaluator | str | MappingABC[str, Any] | None = None,
        constraints: Constraints | MappingABC[str, Any] | str | os.PathLike[str] | None = None,
    ) -> None:
        """Take a network or core graph, a system and objective columns.

        `evaluator`: an object, the name of one, or a dict of name and options; None is the analytic model.
        """
        if not isinstance(network, (Network, CoreGraph)):
            raise TypeError(f"network: expected a Network or a CoreGraph, got {type(network).__name__}")
        if not isinstance(system, System):
            raise TypeError(f"system: expected a System, got {type(system).__name__}; use nm.load_system('loihi2')")
        self.network = network
        self.system = system
        self.objectives = check_objectives(objectives)
        self.constraints = Constraints.of(constraints)
        self.partitioner = partitioner_for(network, system, self.constraints)
        self.rules = Rules.of(self.constraints, self.partitioner, system)
        self.evaluator = evaluator_for(evaluator, self.partitioner, system)
        self.encoding = Encoding.of(self.partitioner, system, self.rules)
        e = self.encoding
        super().__init__(
            n_var=e.n_layers + e.n_cores,
            n_obj=len(self.objectives),
            xl=np.zeros(e.n_layers + e.n_cores),
            xu=np.concatenate([e.maximum - e.minimum, np.full(e.n_cores, e.n_cores - 1)]),
            vtype=int,
        )

    def _evaluate(self, X: NDArray[Any], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        genomes = X.astype(np.int64)
        bad = self.encoding.first_infeasible(genomes)
        if bad >= 0:
            raise InputError(
                f"genotype {bad}: breaks the rules of the encoding; repair it first "
                "(nm.operators(problem)['repair'], or problem.encoding.repair)"
            )
        metrics = self.evaluator.evaluate(self.encoding.decode(genomes))
        out["F"] = minimised(metrics, self.objectives)

    def evaluate_mappings(self, mappings: Sequence[Mapping]) -> Metrics:
        """Return every metric column of n mappings, (n,) each; raises InputError for one that breaks a rule."""
        batch = stack(mappings)
        same_layers = batch.cores_per_layer.shape[1] == self.encoding.n_layers
        for mapping in [] if same_layers and self.is_legal(batch).all() else mappings:
            check(mapping, self)  # says which rule is broken
        return self.evaluator.evaluate(batch)

    def is_legal(self, batch: MappingBatch) -> NDArray[np.bool_]:
        """Tell which mappings (n,) break no rule; `check` says which rule one breaks."""
        k, cores = batch
        used = cores >= 0
        legal = rows_that_fit(self.encoding.fits, k) & (k.sum(axis=1) == used.sum(axis=1))
        legal &= (np.isin(cores, self.encoding.cores) | ~used).all(axis=1)
        ordered = np.sort(cores, axis=1)
        legal &= ~((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
        for i in np.flatnonzero(legal) if self.rules is not None else ():
            place = np.searchsorted(self.encoding.cores, cores[i, used[i]])
            legal[i] = self.rules.legal(k[i], place)  # type: ignore[union-attr]
        return np.asarray(legal)

    @property
    def is_modelled(self) -> bool:
        """True where the analytic model, which local search works on, stands for what the evaluator computes."""
        return isinstance(self.evaluator, (AnalyticEvaluator, PacketEvaluator))

    def modelled(self, system: System) -> MappingProblem:
        """Return the same problem judged by the analytic model, on a system that differs in costs alone."""
        _ = self.named_baselines  # or each would make its own, and a resumed search other ones than an unbroken one
        other = copy.copy(self)
        for name in OF_SYSTEM:
            other.__dict__.pop(name, None)
        other.system = system
        other.evaluator = AnalyticEvaluator(self.partitioner, system)
        return other

    @cached_property
    def workbench(self) -> Workbench:
        """Tables and states of local search."""
        return Workbench(self.partitioner, self.system, self.objectives, self.rules)

    @cached_property
    def balanced(self) -> list[Mapping]:
        """Balanced mappings from fewest cores to all, which give baselines and starting points."""
        return [b.mapping for b in self._balanced]

    @cached_property
    def _balanced(self) -> list[Baseline]:
        made = heuristics.balanced_partitions(self.partitioner, self.system)
        bent = [self._bent(Baseline(mapping)) for mapping in made]
        return bent if self.rules is None else list({b.mapping: b for b in bent}.values())

    def _bent(self, baseline: Baseline) -> Baseline:
        """Return a baseline that keeps to the constraints; its note says what had to change."""
        if self.rules is None:
            return baseline
        mapping, note = self.rules.bent(baseline.mapping)
        return Baseline(mapping, "; ".join(part for part in (baseline.note, note) if part))

    @cached_property
    def named_baselines(self) -> dict[str, Baseline]:
        """Baselines with their notes.

        Of the balanced partitions the best in each objective is taken, of the vendor's random layer orders the ones of
        least, median and most cost: ranked by the first objective, then the next; the median of ten is the fifth.
        """
        made = heuristics.constructive(self.partitioner, self.system)
        named = {name: self._bent(baseline) for name, baseline in made.items()}
        balanced = self.balanced
        F = self._judged(balanced)
        for i, name in enumerate(self.objectives):
            best = self._balanced[int(F[:, i].argmin())]
            text = f"best {name} of {len(balanced)} balanced mappings"
            named[f"balanced_{name}"] = Baseline(best.mapping, f"{text}; {best.note}" if best.note else text)
        drawn = heuristics.vendor_orders(self.partitioner, self.system, np.random.default_rng(LAYER_ORDER_SEED))
        cut_note = made["vendor_default"].note
        orders = [self._bent(Baseline(mapping, cut_note)) for mapping in drawn]
        F = self._judged([b.mapping for b in orders])
        rank = np.lexsort(F.T[::-1])
        for which, place in (("min", 0), ("median", (len(rank) - 1) // 2), ("max", len(rank) - 1)):
            text = f"{which} {self.objectives[0]} of {len(rank)} random layer orders"
            mapping, note = orders[rank[place]]
            named[f"vendor_order_{which}"] = Baseline(mapping, f"{text}; {note}" if note else text)
        return named

    def _judged(self, mappings: Sequence[Mapping]) -> NDArray[np.float64]:
        """Minimised objectives (n, m) by which baselines are chosen: the model's where others cost measurements."""
        if isinstance(self.evaluator, Measuring):
            metrics = AnalyticEvaluator(self.partitioner, self.system).evaluate(stack(mappings))
            return minimised(metrics, self.objectives)
        return minimised(self.evaluate_mappings(mappings), self.objectives)

    @cached_property
    def reference_point(self) -> NDArray[np.float64]:
        """(m,) minimised objectives: vendor_default made worse by REFERENCE_FACTOR, or the worst baseline by MARGIN.

        The worse of the two, so that every baseline, from fewest cores to all, lies within. Where it is 0, 1.
        """
        named = self.named_baselines
        F = minimised(self.evaluate_mappings([b.mapping for b in named.values()]), self.objectives)
        if isinstance(self.evaluator, Measuring):
            F = self._measured_baselines(F)
        if not np.isfinite(F).all():
            raise InputError(
                f"objectives {list(self.objectives)}: baselines have {F.max(axis=0)}; an objective without a finite "
                "value cannot be searched (are all costs of the system zero?)"
            )
        worse = [
            np.where(value > 0, value * by, value / by)
            for value, by in ((F[0], REFERENCE_FACTOR), (F.max(axis=0), MARGIN))
        ]
        point = np.maximum(*worse)
        return np.where(point != 0, point, 1.0)

    def _measured_baselines(self, F: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rows of baselines that could be measured; the first is vendor_default's."""
        if self.evaluator.should_stop():  # type: ignore[attr-defined]
            raise KeyboardInterrupt(NOTHING_YET)
        unmeasured = [name for name, x in zip(self.objectives, F.T, strict=True) if not np.isfinite(x).any()]
        if unmeasured and len(unmeasured) < self.n_obj:
            raise InputError(
                f"objectives {list(self.objectives)}: no board measures {', '.join(unmeasured)}; leave it out, as in "
                "objectives=[latency_s,cores_used]"
            )
        if not np.isfinite(F[0]).all():
            raise InputError(
                f"objectives {list(self.objectives)}: vendor_default could not be measured; all is compared with it, "
                "look into the workers' logs and task=measurements"
            )
        return F[np.isfinite(F).all(axis=1)]

    def normalised(self, F: NDArray[np.float64]) -> NDArray[np.float64]:
        """Objectives (n, m) in units of the reference point: it becomes (1, ..., 1); a minimised zero stays 0."""
        r = self.reference_point
        return np.asarray(1.0 + (F - r) / np.abs(r))

    def hypervolume(self, F: NDArray[np.float64]) -> float:
        """Hypervolume of minimised objectives (n, m), in units of the reference point."""
        return float(moocore.hypervolume(self.normalised(F), ref=np.ones(self.n_obj)))


def baselines(problem: MappingProblem) -> dict[str, Mapping]:
    """Return the mappings of all baselines by name, `vendor_default` first."""
    return {name: b.mapping for name, b in problem.named_baselines.items()}


def operators(
    problem: MappingProblem, local_share: float = LOCAL_SHARE, first: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Keyword arguments for a pymoo algorithm: fresh sampling, crossover, mutation, repair, eliminate_duplicates.

    `local_share` (0 to 0.99) of the work goes to annealing runs, which `nm.search` starts from its archive; in plain
    pymoo there is none, and the share is 0 in effect.

    The initial population begins with the genotypes `first` (n, V), then come the baselines, balanced partitions from
    fewest cores to all, in order and on random cores, and random genotypes.
    """
    encode = problem.encoding.encode
    balanced = problem.balanced
    spread = np.unique(np.linspace(0, len(balanced) - 1, N_BALANCED_SEEDS).round().astype(int))
    seeds = encode([*baselines(problem).values(), *(balanced[i] for i in spread)])
    if first is not None:
        seeds = np.concatenate([first, seeds])
    variation = Variation(local_share if problem.is_modelled else 0.0, seeds)
    return {
        "sampling": MappingSampling(seeds, encode(balanced)),
        "crossover": MappingCrossover(variation),
        "mutation": MappingMutation(variation),
        "repair": MappingRepair(),
        "eliminate_duplicates": MappingDuplicates(problem),
    }
