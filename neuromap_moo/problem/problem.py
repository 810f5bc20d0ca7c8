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
from neuromap_moo.heuristics.rules import Baseline
from neuromap_moo.mapping.check import check
from neuromap_moo.mapping.encoding import Encoding
from neuromap_moo.mapping.legality import Legality
from neuromap_moo.mapping.mapping import Mapping, MappingBatch, stack
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.evaluator import Evaluator, MeasuringEvaluator
from neuromap_moo.models.metrics import Metrics, check_objectives, minimised, rows_of
from neuromap_moo.models.packet import PacketEvaluator
from neuromap_moo.network.network import Network
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.core_graph import CoreGraph
from neuromap_moo.partition.fixed import partitioner_for
from neuromap_moo.partition.map_numbering import numbered_for
from neuromap_moo.partition.partitioner import rows_that_fit
from neuromap_moo.problem.baselines import balanced_baselines, named_baselines
from neuromap_moo.problem.evaluators import evaluator_for
from neuromap_moo.problem.reference import measured_rows, reference_point
from neuromap_moo.system.system import System

#: Key under which pymoo keeps the metrics of an individual.
METRICS = "metrics"

#: Why a search ends that is stopped while its evaluator measures the first mappings.
NOTHING_YET = "stopped before the first mappings were all measured, so there are no results yet; measurements are kept"

#: Properties of a problem that are another's on another system; its baselines stay, as mappings to begin with.
OF_SYSTEM = ("space", "baseline_metrics", "reference_point")


class MappingProblem(Problem):
    """Map a network (or a core graph, whose partition is fixed) onto a system: a pymoo Problem.

    Variables are the integers of `mapping/encoding.py`; objectives are minimised metric columns, `throughput_hz` with
    its sign changed. `evaluate` takes feasible genotypes and refuses others: operators of one's own need the repair of
    `nm.operators`.

    Parameters
    ----------
    network
        A Network or a CoreGraph.
    system
        Where it is mapped to.
    objectives
        Metric columns, m of them: any numeric column of front.csv.
    evaluator
        An evaluator, the name of one, or a dict of its name and options; None is the analytic model.
    constraints
        Constraints, a dict in their YAML form, or the path of a YAML file; None: anywhere.
    cut
        How feature maps are numbered, which decides how slices cut them: "auto" for few cores and few messages on this
        system, "as_given" as they are, or what `network.cut` of a configuration says. `problem.network` is the network
        so numbered; one without feature maps stays the same object.

    Raises
    ------
    InputError
        Where the network cannot fit the system, or not under the constraints, or where an objective is no column.
    TypeError
        Where network or system are something else.

    Examples
    --------
    >>> import neuromap_moo as nm
    >>> problem = nm.MappingProblem(nm.sparse_mlp([64, 96, 64], density=0.3), nm.load_system("loihi2"))
    >>> problem.n_obj, problem.n_var  # three layers and 128 cores
    (2, 131)

    """

    def __init__(
        self,
        network: Network | CoreGraph,
        system: System,
        objectives: Sequence[str] = ("latency_s", "energy_j"),
        evaluator: Evaluator | str | abc.Mapping[str, Any] | None = None,
        constraints: Constraints | abc.Mapping[str, Any] | str | os.PathLike[str] | None = None,
        cut: str | abc.Mapping[str, str] | None = "auto",
    ) -> None:
        if not isinstance(network, (Network, CoreGraph)):
            raise TypeError(f"network: expected a Network or a CoreGraph, got {type(network).__name__}")
        if not isinstance(system, System):
            raise TypeError(f"system: expected a System, got {type(system).__name__}; use nm.load_system('loihi2')")
        self.network = network if isinstance(network, CoreGraph) else numbered_for(network, system, cut)
        self.system = system
        self.objectives = check_objectives(objectives)
        self.constraints = Constraints.from_config(constraints)
        self.partitioner = partitioner_for(self.network, system, self.constraints)
        self.legality = Legality.for_problem(self.constraints, self.partitioner, system)
        self.evaluator = evaluator_for(evaluator, self.partitioner, system)
        self.encoding = Encoding.for_problem(self.partitioner, system, self.legality)
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
        out[METRICS] = rows_of(metrics)  # stays with each individual, so that nothing is evaluated twice

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
        for i in np.flatnonzero(legal) if self.legality is not None else ():
            place = np.searchsorted(self.encoding.cores, cores[i, used[i]])
            legal[i] = self.legality.legal(k[i], place)  # type: ignore[union-attr]
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

    @property
    def measuring(self) -> MeasuringEvaluator | None:
        """The evaluator where it measures, None where it computes."""
        return self.evaluator if isinstance(self.evaluator, MeasuringEvaluator) else None

    @cached_property
    def balanced(self) -> list[Baseline]:
        """Balanced mappings from fewest cores to all, which give baselines and starting points."""
        return balanced_baselines(self.partitioner, self.system, self.legality)

    @cached_property
    def named_baselines(self) -> dict[str, Baseline]:
        """Baselines by name with their notes; see `problem/baselines.py`."""
        return named_baselines(
            self.partitioner, self.system, self.legality, self.objectives, self.balanced, self._judged
        )

    def _judged(self, mappings: Sequence[Mapping]) -> FloatArray:
        """Minimised objectives (n, m) by which baselines are chosen: the model's where others cost measurements."""
        if self.measuring is None:
            return minimised(self.evaluate_mappings(mappings), self.objectives)
        metrics = AnalyticEvaluator(self.partitioner, self.system).evaluate(stack(mappings))
        return minimised(metrics, self.objectives)

    @cached_property
    def baseline_metrics(self) -> Metrics:
        """Every metric column of the baselines, (n,) each; of an evaluator that measures, as they were at first."""
        return self.evaluate_mappings([b.mapping for b in self.named_baselines.values()])

    @cached_property
    def reference_point(self) -> FloatArray:
        """(m,) minimised objectives; see `problem/reference.py`."""
        F = minimised(self.baseline_metrics, self.objectives)
        if self.measuring is not None:
            if self.measuring.should_stop():
                raise KeyboardInterrupt(NOTHING_YET)
            F = measured_rows(self.objectives, F)
        return reference_point(self.objectives, F)

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
