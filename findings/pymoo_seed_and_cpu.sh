#!/usr/bin/env bash
# pymoo + numpy: one seed, one machine, two results, by the vector instructions numpy may use.
#
# One would assume: a fixed seed, the same wheels and objectives that are exact integers give the same
#   front on every x86 processor: nothing is rounded, so nothing can differ.
# True: numpy picks its sorting code by the processor (vectorised from AVX2 on), and the default `argsort` leaves
#   the order of EQUAL keys to that code. Crowding distances are full of equal keys (every extreme point is
#   infinite, integer objectives repeat), and pymoo cuts the population there. From the first cut with a tie
#   on, the runs part.
# What it means for a mapper: hop counts and core counts are integers, so ties are the rule. "Same seed, same
#   front" is true per processor family only: a golden file made on a laptop fails on a server, and a resumed
#   cluster job may continue another run. Sort with kind="stable" in operators of one's own, and name the
#   processor beside the seed. A test needs no second machine: NPY_DISABLE_CPU_FEATURES plays the older ones.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq pymoo==0.6.2 numpy==2.4.6 scipy==1.17.1
cat >"$work/show.py" <<'PY'
import hashlib

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.pntx import TwoPointCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.sampling.rnd import BinaryRandomSampling
from pymoo.optimize import minimize


class TwoCounts(Problem):
    """Sixty bits, two integer objectives that are sums of small whole numbers."""

    def __init__(self) -> None:
        super().__init__(n_var=60, n_obj=2, xl=0, xu=1, vtype=bool)
        self.a, self.b = np.arange(60) % 4, (np.arange(60) * 7 + 3) % 5

    def _evaluate(self, X, out, *args, **kwargs):
        ones = X.astype(np.int64)
        out["F"] = np.stack([ones @ self.a, (1 - ones) @ self.b], axis=1).astype(float)


operators = dict(sampling=BinaryRandomSampling(), crossover=TwoPointCrossover(), mutation=BitflipMutation())
result = minimize(TwoCounts(), NSGA2(100, **operators), ("n_gen", 30), seed=1)
ties = np.argsort(np.array([0, 1] * 50))[:6]
digest = hashlib.sha256(np.packbits(result.pop.get("X").astype(bool)).tobytes()).hexdigest()[:12]
random = hashlib.sha256(np.random.default_rng(1).random(1000).tobytes()).hexdigest()[:12]
print(digest, "random numbers", random, "argsort of 0 1 0 1 ... begins", *ties)
PY
"$work/venv/bin/python" -c 'import numpy, pymoo; print("numpy", numpy.__version__, "pymoo", pymoo.__version__)'
found=$("$work/venv/bin/python" -W ignore -c 'import numpy; print(*numpy.show_config("dicts")["SIMD Extensions"].get("found", []))')
echo "numpy found: $found"
case " $found " in *" X86_V3 "*) ;; *) echo "this processor has no AVX2: nothing can be shown here"; exit 2 ;; esac
runs=()
for hidden in "" "X86_V4 AVX512_ICL AVX512_SPR" "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"; do
    line=$(NPY_DISABLE_CPU_FEATURES="$hidden" nice "$work/venv/bin/python" -W ignore "$work/show.py")
    again=$(NPY_DISABLE_CPU_FEATURES="$hidden" nice "$work/venv/bin/python" -W ignore "$work/show.py")
    [ "$line" = "$again" ] || { echo "CHANGED: not even repeatable on one setting"; exit 1; }
    echo "hidden: ${hidden:-nothing}"
    echo "  population $line"
    runs+=("${line%% *}")
done
[ "${runs[0]}" != "${runs[2]}" ] || { echo "CHANGED: with and without vector instructions the population is the same"; exit 1; }
echo "HOLDS"
