"""Mapping as a pymoo Problem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.problem import Problem

from neuromap_moo import heuristics
from neuromap_moo.errors import InputError
from neuromap_moo.evaluate import Evaluator, Metrics, check_objectives, minimised
from neuromap_moo.evaluate.analytic import AnalyticEvaluator
from neuromap_moo.heuristics import Baseline
from neuromap_moo.mapping import Mapping, check, stack
from neuromap_moo.network import Network
from neuromap_moo.partition import CoreGraph, partitioner_for
from neuromap_moo.search.encoding import Encoding
from neuromap_moo.search.operators import (
    LayerCrossover,
    MappingDuplicates,
    MappingMutation,
    MappingRepair,
    MappingSampling,
)
from neuromap_moo.system import System

#: The reference point is this much worse than the vendor's default in every objective.
REFERENCE_FACTOR = 1.5

#: Seed of the random layer orders among the baselines: they belong to the problem, not to a run.
LAYER_ORDER_SEED = 0


class MappingProblem(Problem):
    """Map a network (or a core graph, whose partition is fixed) onto a system.

    Variables are the integers of `search/encoding.py`; objectives are metric columns, minimised (throughput_hz
    maximised). Raises InputError at once when the network cannot fit the system.
    """

    def __init__(
        self,
        network: Network | CoreGraph,
        system: System,
        objectives: Sequence[str] = ("latency_s", "energy_j"),
        evaluator: Evaluator | None = None,
    ) -> None:
        if not isinstance(network, (Network, CoreGraph)):
            raise TypeError(f"network: expected a Network or a CoreGraph, got {type(network).__name__}")
        if not isinstance(system, System):
            raise TypeError(f"system: expected a System, got {type(system).__name__}; use nm.load_system('loihi2')")
        self.network = network
        self.system = system
        self.objectives = check_objectives(objectives)
        self.partitioner = partitioner_for(network, system)
        self.evaluator = evaluator or AnalyticEvaluator(self.partitioner, system)
        self.encoding = Encoding.of(self.partitioner, system)
        e = self.encoding
        super().__init__(
            n_var=e.n_layers + e.n_cores,
            n_obj=len(self.objectives),
            xl=np.zeros(e.n_layers + e.n_cores),
            xu=np.concatenate([e.maximum - e.minimum, np.full(e.n_cores, e.n_cores - 1)]),
            vtype=int,
        )

    def _evaluate(self, X: NDArray[Any], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        metrics = self.evaluator.evaluate(self.encoding.decode(X.astype(np.int64)))
        out["F"] = minimised(metrics, self.objectives)

    def evaluate_mappings(self, mappings: Sequence[Mapping]) -> Metrics:
        """Return every metric column of n mappings, (n,) each; raises InputError for one that breaks a rule."""
        batch = stack(mappings)
        k, cores = batch
        layers = np.arange(k.shape[1])
        legal = k.shape[1] == self.encoding.n_layers and bool(
            ((k >= 1) & (k <= self.encoding.n_cores)).all()
            and self.encoding.fits[layers, k].all()
            and (k.sum(axis=1) == (cores >= 0).sum(axis=1)).all()
            and np.isin(cores[cores >= 0], self.encoding.cores).all()
            and all(len(set(m.core_of_slice)) == m.cores_used for m in mappings)
        )
        if not legal:
            for mapping in mappings:
                check(mapping, self)
        return self.evaluator.evaluate(batch)

    @cached_property
    def named_baselines(self) -> dict[str, Baseline]:
        """Baselines with their notes; the vendor's random layer orders as the ones of least, median and most cost.

        Orders are ranked by the first objective; the median of ten is the fifth.
        """
        named = heuristics.constructive(self.partitioner, self.system)
        orders = heuristics.vendor_orders(self.partitioner, self.system, np.random.default_rng(LAYER_ORDER_SEED))
        rank = np.argsort(minimised(self.evaluate_mappings(orders), self.objectives)[:, 0], kind="stable")
        note = named["vendor_default"].note
        for which, place in (("min", 0), ("median", (len(rank) - 1) // 2), ("max", len(rank) - 1)):
            text = f"{which} {self.objectives[0]} of {len(rank)} random layer orders"
            named[f"vendor_order_{which}"] = Baseline(orders[rank[place]], f"{text}; {note}" if note else text)
        return named

    @cached_property
    def reference_point(self) -> NDArray[np.float64]:
        """(m,) minimised objectives of `vendor_default`, made worse by REFERENCE_FACTOR.

        Where the vendor's value is 0 the largest baseline takes its place, and 1 if that is 0 too.
        """
        named = self.named_baselines
        F = minimised(self.evaluate_mappings([b.mapping for b in named.values()]), self.objectives)
        value = np.where(F[0] != 0, F[0], F.max(axis=0))
        value = np.where(value != 0, value, 1.0)
        if not np.isfinite(value).all():
            raise InputError(
                f"objectives {list(self.objectives)}: vendor_default has {value}; an objective without a finite value "
                "cannot be searched (are all costs of the system zero?)"
            )
        return np.where(value > 0, value * REFERENCE_FACTOR, value / REFERENCE_FACTOR)

    def normalised(self, F: NDArray[np.float64]) -> NDArray[np.float64]:
        """Objectives (n, m) in units of the reference point: it becomes (1, ..., 1); a minimised zero stays 0."""
        r = self.reference_point
        return np.asarray(1.0 + (F - r) / np.abs(r))


def baselines(problem: MappingProblem) -> dict[str, Mapping]:
    """Return the mappings of all baselines by name, `vendor_default` first."""
    return {name: b.mapping for name, b in problem.named_baselines.items()}


def operators(problem: MappingProblem) -> dict[str, Any]:
    """Keyword arguments for a pymoo algorithm: fresh sampling, crossover, mutation, repair, eliminate_duplicates.

    The initial population begins with the baselines.
    """
    return {
        "sampling": MappingSampling(problem.encoding.encode(list(baselines(problem).values()))),
        "crossover": LayerCrossover(),
        "mutation": MappingMutation(),
        "repair": MappingRepair(),
        "eliminate_duplicates": MappingDuplicates(problem),
    }
