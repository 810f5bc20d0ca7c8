"""Where the time of a search goes.

    python benchmarks/search_profile.py

Runs mlp_b with NSGA-II and takes the time of evaluation, of annealing runs, of our other operators, of the archive,
and what is left: pymoo's own bookkeeping, given in microseconds per evaluation. Beside it stands pymoo's stock NSGA-II
with its own permutation operators on a problem that costs nothing to evaluate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ox import OrderCrossover
from pymoo.operators.mutation.inversion import InversionMutation
from pymoo.operators.sampling.rnd import PermutationRandomSampling
from pymoo.optimize import minimize

import neuromap_moo as nm
from neuromap_moo.evolution import generation
from neuromap_moo.evolution.memetic import LocalSearch
from neuromap_moo.evolution.operators import MappingCrossover, MappingDuplicates, MappingMutation, MappingRepair

N_EVALUATIONS = 20_000
spent: dict[str, float] = {}


def timed(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

    return wrapped


class Nothing(Problem):
    """Costs nothing to evaluate; as many variables as mlp_b on loihi2."""

    def __init__(self) -> None:
        super().__init__(n_var=135, n_obj=2, xl=0, xu=134, vtype=int)

    def _evaluate(self, X: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = np.stack([X[:, 0], -X[:, 1]], axis=1).astype(float)


def main() -> None:
    network = nm.sparse_mlp([1024, 2048, 2048, 2048, 1024, 1024, 512], 0.03)
    problem = nm.MappingProblem(network, nm.load_system("loihi2"))
    nm.search(problem, evaluations=200, seed=9)  # compiles
    problem = nm.MappingProblem(network, nm.load_system("loihi2"))
    problem.evaluator.evaluate = timed("evaluation", problem.evaluator.evaluate)  # type: ignore[method-assign]
    LocalSearch.improve = timed("annealing runs", LocalSearch.improve)  # type: ignore[method-assign]
    for kind in (MappingCrossover, MappingMutation, MappingRepair, MappingDuplicates):
        kind._do = timed("operators", kind._do)  # type: ignore[method-assign]
    generation.non_dominated_rows = timed("archive", generation.non_dominated_rows)
    start = time.perf_counter()
    nm.search(problem, evaluations=N_EVALUATIONS, seed=0)
    total = time.perf_counter() - start
    spent["operators"] -= spent["annealing runs"]  # part of the mutation
    spent["pymoo and the rest"] = total - sum(spent.values())
    print(f"{N_EVALUATIONS} evaluations of mlp_b with nsga2: {total:.2f} s")
    for label, seconds in spent.items():
        each = 1e6 * seconds / N_EVALUATIONS
        print(f"  {label:20s} {seconds:6.2f} s  {seconds / total:6.1%}  {each:6.1f} us/evaluation")

    stock = NSGA2(
        pop_size=100,
        sampling=PermutationRandomSampling(),
        crossover=OrderCrossover(),
        mutation=InversionMutation(),
        eliminate_duplicates=False,
    )
    start = time.perf_counter()
    minimize(Nothing(), stock, ("n_eval", N_EVALUATIONS), seed=0)
    idle = time.perf_counter() - start
    print(f"stock pymoo on a problem that costs nothing: {idle:.2f} s, {1e6 * idle / N_EVALUATIONS:.1f} us/evaluation")


if __name__ == "__main__":
    main()
