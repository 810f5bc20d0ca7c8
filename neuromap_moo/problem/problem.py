"""Mapping as a pymoo Problem."""

from __future__ import annotations

import copy
import os
from collections import abc
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.core.problem import Problem

from neuromap_moo.annealing.space import SearchSpace
from neuromap_moo.arrays import BoolArray, FloatArray
from neuromap_moo.errors import InputError
from neuromap_moo.heuristics.rules import Baseline, balanced_partitions, constructive, vendor_orders
from neuromap_moo.mapping.check import check
from neuromap_moo.mapping.encoding import Encoding
from neuromap_moo.mapping.legality import Rules
from neuromap_moo.mapping.mapping import Mapping, MappingBatch, stack
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.evaluator import Evaluator, MeasuringEvaluator
from neuromap_moo.models.metrics import Metrics, check_objectives, minimised
from neuromap_moo.models.packet import PacketEvaluator
from neuromap_moo.network.network import Network
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.core_graph import CoreGraph
from neuromap_moo.partition.fixed import partitioner_for
from neuromap_moo.partition.partitioner import rows_that_fit
from neuromap_moo.problem.evaluators import evaluator_for
from neuromap_moo.system.system import System

#: The reference point is this much worse than the vendor's default in every objective, and by MARGIN worse than every
#: baseline.
REFERENCE_FACTOR, MARGIN = 1.5, 1.1

#: Properties of a problem that are another's on another system; its baselines stay, as mappings to begin with.
OF_SYSTEM = ("space", "reference_point")

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
        evaluator: Evaluator | str | abc.Mapping[str, Any] | None = None,
        constraints: Constraints | abc.Mapping[str, Any] | str | os.PathLike[str] | None = None,
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
        self.constraints = Constraints.from_config(constraints)
        self.partitioner = partitioner_for(network, system, self.constraints)
        self.rules = Rules.for_problem(self.constraints, self.partitioner, system)
        self.evaluator = evaluator_for(evaluator, self.partitioner, system)
        self.encoding = Encoding.for_problem(self.partitioner, system, self.rules)
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

    def is_legal(self, batch: MappingBatch) -> BoolArray:
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
    def space(self) -> SearchSpace:
        """All that moves through the mappings need."""
        return SearchSpace.for_problem(self.encoding, self.partitioner, self.system, self.objectives)

    @cached_property
    def balanced(self) -> list[Mapping]:
        """Balanced mappings from fewest cores to all, which give baselines and starting points."""
        return [b.mapping for b in self._balanced]

    @cached_property
    def _balanced(self) -> list[Baseline]:
        made = balanced_partitions(self.partitioner, self.system)
        repaired = [self._repaired(Baseline(mapping)) for mapping in made]
        return repaired if self.rules is None else list({b.mapping: b for b in repaired}.values())

    def _repaired(self, baseline: Baseline) -> Baseline:
        """Return a baseline that keeps to the constraints; its note says what had to change."""
        if self.rules is None:
            return baseline
        mapping, note = self.rules.repaired(baseline.mapping)
        return Baseline(mapping, "; ".join(part for part in (baseline.note, note) if part))

    @cached_property
    def named_baselines(self) -> dict[str, Baseline]:
        """Baselines with their notes.

        Of the balanced partitions the best in each objective is taken, of the vendor's random layer orders the ones of
        least, median and most cost: ranked by the first objective, then the next; the median of ten is the fifth.
        """
        made = constructive(self.partitioner, self.system)
        named = {name: self._repaired(baseline) for name, baseline in made.items()}
        balanced = self.balanced
        F = self._judged(balanced)
        for i, name in enumerate(self.objectives):
            best = self._balanced[int(F[:, i].argmin())]
            text = f"best {name} of {len(balanced)} balanced mappings"
            named[f"balanced_{name}"] = Baseline(best.mapping, f"{text}; {best.note}" if best.note else text)
        drawn = vendor_orders(self.partitioner, self.system, np.random.default_rng(LAYER_ORDER_SEED))
        cut_note = made["vendor_default"].note
        orders = [self._repaired(Baseline(mapping, cut_note)) for mapping in drawn]
        F = self._judged([b.mapping for b in orders])
        rank = np.lexsort(F.T[::-1])
        for which, place in (("min", 0), ("median", (len(rank) - 1) // 2), ("max", len(rank) - 1)):
            text = f"{which} {self.objectives[0]} of {len(rank)} random layer orders"
            mapping, note = orders[rank[place]]
            named[f"vendor_order_{which}"] = Baseline(mapping, f"{text}; {note}" if note else text)
        return named

    def _judged(self, mappings: Sequence[Mapping]) -> FloatArray:
        """Minimised objectives (n, m) by which baselines are chosen: the model's where others cost measurements."""
        if isinstance(self.evaluator, MeasuringEvaluator):
            metrics = AnalyticEvaluator(self.partitioner, self.system).evaluate(stack(mappings))
            return minimised(metrics, self.objectives)
        return minimised(self.evaluate_mappings(mappings), self.objectives)

    @cached_property
    def reference_point(self) -> FloatArray:
        """(m,) minimised objectives: vendor_default made worse by REFERENCE_FACTOR, or the worst baseline by MARGIN.

        The worse of the two, so that every baseline, from fewest cores to all, lies within. Where it is 0, 1.
        """
        named = self.named_baselines
        F = minimised(self.evaluate_mappings([b.mapping for b in named.values()]), self.objectives)
        if isinstance(self.evaluator, MeasuringEvaluator):
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

    def _measured_baselines(self, F: FloatArray) -> FloatArray:
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

    def normalised(self, F: FloatArray) -> FloatArray:
        """Objectives (n, m) in units of the reference point: it becomes (1, ..., 1); a minimised zero stays 0."""
        r = self.reference_point
        return np.asarray(1.0 + (F - r) / np.abs(r))

    def hypervolume(self, F: FloatArray) -> float:
        """Hypervolume of minimised objectives (n, m), in units of the reference point."""
        return float(moocore.hypervolume(self.normalised(F), ref=np.ones(self.n_obj)))


def baselines(problem: MappingProblem) -> dict[str, Mapping]:
    """Return the mappings of all baselines by name, `vendor_default` first."""
    return {name: b.mapping for name, b in problem.named_baselines.items()}
