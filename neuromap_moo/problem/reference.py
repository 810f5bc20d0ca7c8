"""The reference point of a problem, by which hypervolumes are measured."""

from __future__ import annotations

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError

#: The reference point is this much worse than the vendor's default in every objective, and by MARGIN worse than every
#: baseline.
REFERENCE_FACTOR, MARGIN = 1.5, 1.1


def reference_point(objectives: tuple[str, ...], F: FloatArray) -> FloatArray:
    """Return the reference point (m,): vendor_default made worse by REFERENCE_FACTOR, or the worst baseline by MARGIN.

    The worse of the two, so that every baseline, from fewest cores to all, lies within. Where it is 0, it is set to 1.

    Parameters
    ----------
    objectives
        Metric columns, m of them.
    F
        Minimised objectives (n, m) of the baselines, vendor_default first.

    Raises
    ------
    InputError
        Where a baseline has no finite value.

    """
    if not np.isfinite(F).all():
        raise InputError(
            f"objectives {list(objectives)}: baselines have {F.max(axis=0)}; an objective without a finite "
            "value cannot be searched (are all costs of the system zero?)"
        )
    worse = [
        np.where(value > 0, value * by, value / by) for value, by in ((F[0], REFERENCE_FACTOR), (F.max(axis=0), MARGIN))
    ]
    point = np.maximum(*worse)
    return np.where(point != 0, point, 1.0)


def measured_rows(objectives: tuple[str, ...], F: FloatArray) -> FloatArray:
    """Return the rows of minimised objectives (n, m) of baselines that were measured; the first is vendor_default's.

    Raises InputError where an objective was measured nowhere, or vendor_default not at all.
    """
    unmeasured = [name for name, x in zip(objectives, F.T, strict=True) if not np.isfinite(x).any()]
    if unmeasured and len(unmeasured) < len(objectives):
        raise InputError(
            f"objectives {list(objectives)}: no board measures {', '.join(unmeasured)}; leave it out, as in "
            "objectives=[latency_s,cores_used]"
        )
    if not np.isfinite(F[0]).all():
        raise InputError(
            f"objectives {list(objectives)}: vendor_default could not be measured; all is compared with it, "
            "look into the workers' logs and task=measurements"
        )
    return F[np.isfinite(F).all(axis=1)]
