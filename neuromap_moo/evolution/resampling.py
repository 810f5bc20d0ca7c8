"""What a search does with objectives that were measured: more attempts where the front depends on them.

After the confidence-based dynamic resampling of Syberfeldt, Ng, John and Moore, European Journal of Operational
Research 204(3), 2010: two mappings are compared with confidence or measured again, within an allowance.
"""

from __future__ import annotations

from typing import Any

import moocore
import numpy as np

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.boards.noise import CONFIDENCE_Z
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.models.metrics import Metrics, half_interval, minimised

AGAIN_SHARE = 0.2  #: of the mappings measured in a generation: so many further attempts at most
MOST_ATTEMPTS = 5  # at one mapping, before the front is confirmed


def estimated_objectives(problem: Any, X: Genomes) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return minimised objectives (n, m), their standard errors (n, m) and attempts (n,) of genotypes, from the store.

    Rows of mappings that could not be measured are nan.
    """
    metrics: Metrics = problem.evaluator.estimated_metrics(problem.encoding.decode(X))
    F = minimised(metrics, problem.objectives)
    errors = np.stack([half_interval(metrics, name) for name in problem.objectives], axis=1) / CONFIDENCE_Z
    F[~np.isfinite(F).all(axis=1)] = np.nan
    return F, errors, metrics["attempts"]


def undecided(F: FloatArray, errors: FloatArray, attempts: IntArray) -> IntArray:
    """Return the mappings, in the order of urgency, of which it is not sure whether they belong to the front.

    A pair with a member of the front is undecided where neither dominance nor its absence is certain: it is not for
    sure better in one objective and worse in another, and in some objective it may be either. Of a pair the one with
    fewer attempts is named, members of the front first, then those with fewest attempts.
    """
    front = np.flatnonzero(moocore.is_nondominated(F, keep_weakly=False))
    difference = F[front][:, None] - F[None]
    slack = CONFIDENCE_Z * np.hypot(errors[front][:, None], errors[None])
    better, worse = difference < -slack, difference > slack
    certain = better | worse | (slack == 0.0)
    decided = (better.any(axis=2) & worse.any(axis=2)) | certain.all(axis=2)
    a, b = np.nonzero(~decided)
    a, b = front[a[front[a] != b]], b[front[a] != b]
    named = np.unique(np.where(attempts[a] <= attempts[b], a, b))
    named = named[attempts[named] < MOST_ATTEMPTS]
    order = np.lexsort((named, attempts[named], ~np.isin(named, front)))
    return np.asarray(named[order])


def resolve_ties(problem: Any, X: Genomes, allowed: int) -> int:
    """Measure undecided mappings among `X` (n, V) once more, at most `allowed` of them; return how many."""
    F, errors, attempts = estimated_objectives(problem, X)
    rows = undecided(F, errors, attempts)[:allowed]
    for n in np.unique(attempts[rows]).tolist():
        if problem.evaluator.should_stop():
            break
        again = rows[attempts[rows] == n]
        problem.evaluator.request_attempts(problem.encoding.decode(X[again]).unstack(), n + 1)
    return int(rows.size)


def confirm(problem: Any, X: Genomes) -> bool:
    """Measure the front among `X` until each of its members has as many attempts as the evaluator asks for.

    Returns false where it was stopped before that. Members that fail on the way are left as they are.
    """
    tried = np.zeros(len(X), dtype=np.bool_)
    while not problem.evaluator.should_stop():
        F, _, attempts = estimated_objectives(problem, X)
        front = moocore.is_nondominated(F, keep_weakly=False)
        few = front & (attempts < problem.evaluator.confirm) & ~tried
        if not few.any():
            return True
        problem.evaluator.request_attempts(problem.encoding.decode(X[few]).unstack(), problem.evaluator.confirm)
        tried |= few
    return False
