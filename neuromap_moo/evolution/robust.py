"""How much of a front depends on constants that nobody knows exactly."""

from __future__ import annotations

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.mapping.mapping import MappingBatch
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.metrics import minimised
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.system.system import System

#: An assumed constant without a bracket may be off by this factor either way.
ASSUMED_FACTOR = 2.0


def sampled_costs(system: System, rng: np.random.Generator) -> dict[str, float]:
    """Draw the costs that are not known exactly; return them by name.

    Costs with a bracket (`low`, `high`) are drawn log-uniformly within it, or uniformly where `low` is 0. Assumed costs
    without a bracket are drawn within ASSUMED_FACTOR; other costs without one are known. Costs of one family with the
    same value and bracket, such as those of mesh_x and mesh_y, are drawn as one.
    """
    drawn: dict[tuple[object, ...], float] = {}
    costs = {}
    for name, c in sorted(system.costs.items()):
        if c.low is not None and c.high is not None:
            low, high = c.low, c.high
        elif c.kind == "assumed":
            low, high = c.value / ASSUMED_FACTOR, c.value * ASSUMED_FACTOR
        else:
            continue
        key = name.partition(".")[0], c.value, low, high
        if key not in drawn:
            drawn[key] = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if low > 0 else rng.uniform(low, high)
        costs[name] = drawn[key]
    return costs


def robustness(problem: MappingProblem, batch: MappingBatch, n_samples: int, rng: np.random.Generator) -> FloatArray:
    """Return the share of drawn systems on which each mapping is non-dominated among those given.

    Mappings that are not given, and that are dominated today, could be non-dominated there too.

    Parameters
    ----------
    problem
        Gives system and objectives; its evaluator is not used, but the analytic model.
    batch
        n mappings.
    n_samples
        Number of systems, whose costs are drawn by `sampled_costs`.
    rng
        Draws the costs.

    Returns
    -------
    shares
        (n,), 0 to 1.

    """
    stays = np.zeros(len(batch.cores_per_layer))
    for _ in range(n_samples):
        system = problem.system.with_costs(sampled_costs(problem.system, rng))
        metrics = AnalyticEvaluator(problem.partitioner, system).evaluate(batch)
        stays += non_dominated_rows(minimised(metrics, problem.objectives))
    return stays / n_samples
