"""Further measurements of mappings on which the front depends.

After the confidence-based dynamic resampling of Syberfeldt, Ng, John and Moore, European Journal of Operational
Research 204(3), 2010: two mappings are compared with confidence or measured again, within an allowance.
"""

from __future__ import annotations

import moocore
import numpy as np

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.boards.noise import CONFIDENCE_Z
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.models.evaluator import MeasuringEvaluator
from neuromap_moo.models.metrics import half_interval, minimised
from neuromap_moo.problem.problem import MappingProblem

AGAIN_SHARE = 0.2  #: further attempts in a generation at most, as a share of the mappings measured in it
MOST_ATTEMPTS = 5  # at one mapping, before the front is confirmed


def measuring_evaluator(problem: MappingProblem) -> MeasuringEvaluator:
    """Return the evaluator of a problem whose objectives are measured; raises TypeError where they are not."""
    if problem.measuring is None:
        raise TypeError(
            f"evaluator: expected one that measures, such as evaluator=device, got '{problem.evaluator.name}'"
        )
    return problem.measuring


def estimated_objectives(problem: MappingProblem, X: Genomes) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return minimised objectives (n, m), their standard errors (n, m) and attempts (n,) of genotypes, from the store.

    Rows of mappings that could not be measured are nan.
    """
    metrics = measuring_evaluator(problem).estimated_metrics(problem.encoding.decode(X))
    F = minimised(metrics, problem.objectives)
    errors = np.stack([half_interval(metrics, name) for name in problem.objectives], axis=1) / CONFIDENCE_Z
    F[~np.isfinite(F).all(axis=1)] = np.nan
    return F, errors, metrics["attempts"]


def undecided(F: FloatArray, errors: FloatArray, attempts: IntArray) -> IntArray:
    """Return the mappings of which it is not certain whether they belong to the front, most urgent first.

    A member of the front and another mapping are an undecided pair where the errors leave open whether one dominates
    the other. They are decided where the member is certainly better in one objective and certainly worse in another, or
    where every objective is certain. Of an undecided pair the mapping with fewer attempts is returned.

    Parameters
    ----------
    F
        Minimised objectives (n, m), nan for mappings without values.
    errors
        Their standard errors (n, m).
    attempts
        Attempts behind each mapping (n,). Mappings with MOST_ATTEMPTS are not returned.

    Returns
    -------
    rows
        (k,): members of the front first, then by fewest attempts.

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


def resolve_ties(problem: MappingProblem, X: Genomes, allowed: int) -> int:
    """Measure undecided mappings once more, the most urgent first.

    Parameters
    ----------
    problem
        Its evaluator has to measure.
    X
        Genotypes (n, V) that were measured.
    allowed
        How many mappings may be measured at most.

    Returns
    -------
    n
        How many were chosen; fewer are measured where the evaluator is stopped.

    """
    evaluator = measuring_evaluator(problem)
    F, errors, attempts = estimated_objectives(problem, X)
    rows = undecided(F, errors, attempts)[:allowed]
    for n in np.unique(attempts[rows]).tolist():
        if evaluator.should_stop():
            break
        again = rows[attempts[rows] == n]
        evaluator.request_attempts(problem.encoding.decode(X[again]).unstack(), n + 1)
    return int(rows.size)


def confirm(problem: MappingProblem, X: Genomes) -> bool:
    """Measure the front among `X` (n, V) until each of its members has as many attempts as the evaluator asks for.

    Returns false where it was stopped before that. Members that fail on the way are left as they are.
    """
    evaluator = measuring_evaluator(problem)
    tried = np.zeros(len(X), dtype=np.bool_)
    while not evaluator.should_stop():
        F, _, attempts = estimated_objectives(problem, X)
        front = moocore.is_nondominated(F, keep_weakly=False)
        few = front & (attempts < evaluator.confirm) & ~tried
        if not few.any():
            return True
        evaluator.request_attempts(problem.encoding.decode(X[few]).unstack(), evaluator.confirm)
        tried |= few
    return False
