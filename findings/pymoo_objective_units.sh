#!/usr/bin/env bash
# pymoo: the unit of an objective changes the search.
#
# One would assume: an algorithm that normalises objectives does not care whether energy is given in
#   joules or in picojoules. Above all when the factor is a power of two: then every objective value keeps
#   its mantissa, every comparison keeps its answer, and one seed must give one population.
# True: that holds for NSGA-II and for MOEA/D, RVEA and SMS-EMOA as built here. NSGA-III, U-NSGA-III,
#   AGE-MOEA, C-TAEA and SPEA2 end with other designs. The code behind the first three and SPEA2 compares
#   intercepts, ranges and distances with fixed small numbers (1e-3, 1e-6, 1e-8), so from some scale on another
#   branch is taken.
# What it means for a mapper: energies of 1e-9 J and latencies of 1e-6 s lie below those numbers. Two papers
#   that differ only in J and pJ did not run the same algorithm. Scale objectives to about 1 before pymoo
#   sees them, and keep SI units for what is reported.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq pymoo==0.6.2 moocore==0.3.2 numpy==2.4.6 scipy==1.17.1 numba==0.68.1
cat >"$work/show.py" <<'PY'
from importlib.metadata import version

import moocore
import numpy as np
from pymoo.algorithms.moo.age import AGEMOEA
from pymoo.algorithms.moo.ctaea import CTAEA
from pymoo.algorithms.moo.moead import MOEAD
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.moo.rvea import RVEA
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.algorithms.moo.spea2 import SPEA2
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.core.problem import Problem
from pymoo.optimize import minimize
from pymoo.problems import get_problem
from pymoo.util.ref_dirs import get_reference_directions

print("pymoo", version("pymoo"), "moocore", version("moocore"), "numpy", version("numpy"))
directions = get_reference_directions("das-dennis", 3, n_partitions=12)
ideal_front = directions / np.linalg.norm(directions, axis=1)[:, None]


class InOtherUnits(Problem):
    """DTLZ2 with three objectives, the first `n_scaled` of them multiplied by an exact power of two."""

    def __init__(self, exponent: int, n_scaled: int) -> None:
        self.inner = get_problem("dtlz2")
        self.exponents = np.where(np.arange(3) < n_scaled, exponent, 0)
        super().__init__(n_var=self.inner.n_var, n_obj=3, xl=0.0, xu=1.0)

    def _evaluate(self, X, out, *args, **kwargs):
        out["F"] = np.ldexp(self.inner.evaluate(X), self.exponents)


algorithms = {
    "NSGA-II": lambda: NSGA2(92),
    "MOEA/D": lambda: MOEAD(directions),
    "RVEA": lambda: RVEA(directions, pop_size=92),
    "SMS-EMOA": lambda: SMSEMOA(92),
    "NSGA-III": lambda: NSGA3(directions, pop_size=92),
    "U-NSGA-III": lambda: UNSGA3(directions, pop_size=92),
    "AGE-MOEA": lambda: AGEMOEA(92),
    "C-TAEA": lambda: CTAEA(directions),
    "SPEA2": lambda: SPEA2(92),
}
unmoved = {"NSGA-II", "MOEA/D", "RVEA", "SMS-EMOA"}
changed = False
print("all three objectives times 2**k: same final designs as with k = 0? (IGD+ in the old unit, less is better)")
for name, build in algorithms.items():
    first, same = None, {}
    cells = []
    for exponent in (0, -20, -40):
        result = minimize(InOtherUnits(exponent, 3), build(), ("n_gen", 40), seed=1)
        X = result.pop.get("X")
        F = np.ldexp(result.pop.get("F"), -exponent)
        first = X if first is None else first
        same[exponent] = first.shape == X.shape and bool((first == X).all())
        cells.append(f"k={exponent:<4}{'same' if same[exponent] else 'OTHER':6}{moocore.igd_plus(F, ref=ideal_front):.4f}")
    print(f"  {name:11}", "  ".join(cells))
    changed |= all(same.values()) != (name in unmoved)
if changed:
    raise SystemExit("CHANGED: an algorithm no longer behaves as this script's header says")
print("HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py"
