"""Where the time of a search goes.

    python benchmarks/search_profile.py [--evaluations 20000]

Runs mlp_b with NSGA-II and takes the time of evaluation, of annealing runs, of our other operators, of the archive,
and what is left: pymoo's own bookkeeping. Beside it stands pymoo's stock NSGA-II with its own permutation operators on
a problem that costs nothing to evaluate. The last line is a row of the table in docs/benchmarks.md. Times are the
processor's, of one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date
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

ANNEALING, REST = "annealing runs", "pymoo and the rest"


class Stopwatch:
    """Seconds of the processor by label."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def attach(self, label: str, of: object, name: str) -> None:
        """Take the time of a function or method from now on."""
        call = getattr(of, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[label] = self.seconds.get(label, 0.0) + time.process_time() - start

        setattr(of, name, timed)


class Nothing(Problem):
    """Costs nothing to evaluate; as many variables as mlp_b on loihi2."""

    def __init__(self) -> None:
        super().__init__(n_var=135, n_obj=2, xl=0, xu=134, vtype=int)

    def _evaluate(self, X: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = np.stack([X[:, 0], -X[:, 1]], axis=1).astype(float)


def mlp_b() -> nm.MappingProblem:
    return nm.MappingProblem(nm.sparse_mlp([1024, 2048, 2048, 2048, 1024, 1024, 512], 0.03), nm.load_system("loihi2"))


def seconds_of(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def of_search(n_evaluations: int) -> dict[str, float]:
    """Seconds of the parts of a search; they add up to the whole."""
    nm.search(mlp_b(), evaluations=200, seed=9)  # compiles
    problem, watch = mlp_b(), Stopwatch()
    watch.attach("evaluation", problem.evaluator, "evaluate")
    watch.attach(ANNEALING, LocalSearch, "improve")
    for kind in (MappingCrossover, MappingMutation, MappingRepair, MappingDuplicates):
        watch.attach("other operators", kind, "_do")
    watch.attach("archive", generation, "non_dominated_rows")
    total = seconds_of(lambda: nm.search(problem, evaluations=n_evaluations, seed=0))
    spent = {label: watch.seconds.get(label, 0.0) for label in ("evaluation", ANNEALING, "other operators", "archive")}
    spent["other operators"] -= spent[ANNEALING]  # part of the mutation
    return {**spent, REST: total - sum(spent.values())}


def of_stock_pymoo(n_evaluations: int) -> float:
    """Seconds of pymoo's own NSGA-II where nothing is evaluated."""
    stock = NSGA2(
        pop_size=100,
        sampling=PermutationRandomSampling(),
        crossover=OrderCrossover(),
        mutation=InversionMutation(),
        eliminate_duplicates=False,
    )
    return seconds_of(lambda: minimize(Nothing(), stock, ("n_eval", n_evaluations), seed=0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=20_000, help="of the search")
    n_evaluations = parser.parse_args().evaluations
    spent = of_search(n_evaluations)
    total = sum(spent.values())
    print(f"{n_evaluations} evaluations of mlp_b with nsga2: {total:.2f} s")
    for label, seconds in spent.items():
        each = 1e6 * seconds / n_evaluations
        print(f"  {label:20s} {seconds:6.2f} s  {seconds / total:6.1%}  {each:6.1f} us/evaluation")
    idle = of_stock_pymoo(n_evaluations)
    each = 1e6 * idle / n_evaluations
    print(f"stock pymoo on a problem that costs nothing: {idle:.2f} s, {each:.1f} us/evaluation\n")
    cells = [f"{100 * s / total:.0f} % ({1e6 * s / n_evaluations:.0f} us)" for s in spent.values()]
    print(f"| {' | '.join([f'{date.today():%Y-%m}', f'{total:.1f} s', *cells, f'{each:.0f} us'])} |")


if __name__ == "__main__":
    main()
