"""Survivals of SMS-EMOA, AGE-MOEA-II and SPEA2: pymoo's rules, for fronts of few distinct points and many objectives.

Mappings often share objective values: all have one latency, or the whole front is one point. There pymoo 0.6.2 divides
by zero (SPEA2, AGE-MOEA-II, the latter with an exception), and its SMS-EMOA stops at one objective. Apart from what the
classes say these follow the same rules, in less time. Objectives come in units of the problem's reference point.
"""

from __future__ import annotations

import heapq
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.age import normalize
from pymoo.algorithms.moo.age2 import AGEMOEA2Survival
from pymoo.core.population import Population
from pymoo.core.survival import Survival
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from scipy.spatial.distance import cdist

from neuromap_moo.arrays import FloatArray

#: In units of the reference point; an objective that varies less than this is constant but for rounding.
SMALLEST_SPAN = 1e-9

#: Distance of SMS-EMOA's reference point from the front, in spans of the front; pymoo's value.
BEYOND = 10.0

CLOSEST = 1e-8  # distance below which AGE-MOEA-II takes points for one; pymoo's value


def bounds(F: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ideal point (m,) and span (m,) of objectives (n, m); 1 where an objective does not vary."""
    ideal = F.min(axis=0)
    span = F.max(axis=0) - ideal
    return ideal, np.where(span > SMALLEST_SPAN, span, 1.0)


class HypervolumeSurvival(Survival):
    """SMS-EMOA's: of the front that does not fit, the mapping that costs least hypervolume goes, one by one.

    Beume, Naujoks and Emmerich, EJOR 181(3), 2007. Objectives are scaled by that front alone: by the population of
    before, as in pymoo, a mapping that opens up the front would lie beyond the reference point and be lost.
    """

    def _do(self, problem: Any, pop: Any, *args: Any, n_survive: int = 0, **kwargs: Any) -> Population:
        F = pop.get("F")
        kept: list[int] = []
        for rank, front in enumerate(NonDominatedSorting().do(F, n_stop_if_ranked=n_survive)):
            pop[front].set("rank", rank)
            kept.extend(front[keep_hypervolume(F[front], n_survive - len(kept))])
        return pop[kept]


def keep_hypervolume(F: FloatArray, n: int) -> NDArray[np.intp]:
    """Rows of a front (k, m) that stay when those of least hypervolume contribution go until n are left.

    Exactly what removing the least of all contributions again and again gives, but contributions only grow as others
    go, so old values are lower bounds and few have to be computed again: from four objectives on, many times faster.
    """
    ideal, span = bounds(F)
    points = (F - ideal) / span
    reference = np.full(F.shape[1], 1.0 + BEYOND)
    alive = np.ones(len(F), dtype=bool)

    def contribution(i: int) -> float:
        alive[i] = False
        others = np.maximum(points[alive], points[i])
        alive[i] = True
        box = float(np.prod(reference - points[i]))
        return box - moocore.hypervolume(others, ref=reference) if len(others) else box

    left = len(F)
    if left > n:
        queue = [(contribution(i), i, left) for i in range(len(F))]
        heapq.heapify(queue)
        while left > n:
            _, i, counted_at = heapq.heappop(queue)
            if counted_at == left:
                alive[i] = False
                left -= 1
            else:
                heapq.heappush(queue, (contribution(i), i, left))
    return np.flatnonzero(alive)


class GeometrySurvival(AGEMOEA2Survival):
    """AGE-MOEA-II's: the first front is scored by proximity and diversity on the manifold that fits it.

    Panichella, GECCO 2022, https://doi.org/10.1145/3512290.3528732. As its author's own code does, and unlike pymoo's,
    it ranks every later front by its distance from the ideal point, the last one too.
    """

    def _do(self, problem: Any, pop: Any, *args: Any, n_survive: int = 0, **kwargs: Any) -> Population:
        F = pop.get("F")
        fronts = NonDominatedSorting().do(F, n_stop_if_ranked=n_survive)
        crowding = np.zeros(len(F))
        ideal, _ = bounds(F[fronts[0]])
        crowding[fronts[0]], p, span = self.survival_score(F[fronts[0]], ideal)
        for rank, front in enumerate(fronts):
            pop[front].set("rank", rank)
            if rank > 0:
                crowding[front] = 1.0 / np.maximum(p_norm((F[front] - ideal) / span, p), CLOSEST)
        pop.set("crowding", crowding)
        *whole, last = fronts
        n_left = n_survive - sum(len(front) for front in whole)
        best = last[np.argsort(-crowding[last], kind="stable")[:n_left]]
        return pop[np.concatenate([*whole, best])]

    def survival_score(self, front: FloatArray, ideal_point: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        """Score of each point of the first front (n,), exponent of its manifold, and span of each objective (m,)."""
        _, span = bounds(front)
        varies = front.max(axis=0) - ideal_point > SMALLEST_SPAN
        n, m = len(front), int(varies.sum())
        crowding = np.zeros(n)
        if m < 2 or n <= m:  # nothing to fit a manifold to
            return crowding, 1.0, span
        points = (front - ideal_point)[:, varies]
        corners = corner_points(points)
        points, span[varies] = normalize(points, corners)
        p = float(self.compute_geometry(points, corners, m))
        length = p_norm(points, p)
        distances = np.maximum(self.pairwise_distances(points, p), CLOSEST)
        distances /= np.where(length < CLOSEST, 1.0, length)[:, None]
        # Farthest first: the point with the largest sum of distances to its two nearest among those chosen.
        nearest, second = np.full(n, np.inf), np.full(n, np.inf)
        chosen = np.zeros(n, dtype=bool)
        crowding[corners] = np.inf
        order = list(corners)
        while True:
            for i in order:
                chosen[i] = True
                second = np.minimum(second, np.maximum(nearest, distances[i]))
                nearest = np.minimum(nearest, distances[i])
            if chosen.all():
                return crowding, p, span
            sums = np.where(chosen, -np.inf, nearest + second)
            order = [int(sums.argmax())]
            crowding[order] = sums[order]

    @staticmethod
    def pairwise_distances(front: FloatArray, p: float) -> FloatArray:
        """Geodesic distances (n, n), approximated, between points (n, m) projected on the manifold of exponent p."""
        points = on_manifold(front, p)
        if 0.95 < p < 1.05:  # flat
            return np.asarray(cdist(points, points))
        half = np.empty((len(points), len(points)))
        for i, point in enumerate(points):  # all at once would take gigabytes for large populations
            half[i] = np.linalg.norm(point - on_manifold((point + points) / 2, p), axis=1)
        return half + half.T


def corner_points(points: FloatArray) -> list[int]:
    """For each axis the point (of n, m) nearest to it that no earlier axis has taken."""
    corners: list[int] = []
    for axis in 1e-6 + np.eye(points.shape[1]):
        along = np.outer(points @ axis / (axis @ axis), axis)
        away = ((points - along) ** 2).sum(axis=1)
        away[corners] = np.inf
        corners.append(int(away.argmin()))
    return corners


def p_norm(points: FloatArray, p: float) -> FloatArray:
    """p-norms (n,) of points (n, m) >= 0, by the largest of each point so that no power overflows."""
    largest = points.max(axis=1)
    scaled = points / np.where(largest > 0, largest, 1.0)[:, None]
    return np.asarray(largest * (scaled**p).sum(axis=1) ** (1 / p))


def on_manifold(points: FloatArray, p: float) -> FloatArray:
    """Project points (n, m) on the manifold whose p-norm is 1; the origin, which has no direction, stays."""
    length = p_norm(points, p)
    return np.asarray(points / np.where(length > 0, length, 1.0)[:, None])


class StrengthSurvival(Survival):
    """SPEA2's: by strength of the dominators and density; too many non-dominated are truncated by nearest neighbours.

    Zitzler, Laumanns and Thiele, TIK report 103, ETH Zurich, 2001. Distances are in spans of the non-dominated.
    """

    def _do(self, problem: Any, pop: Any, *args: Any, n_survive: int = 0, **kwargs: Any) -> Population:
        F = pop.get("F")
        at_most = (F[:, None] <= F).all(axis=2)
        dominates = at_most & ~at_most.T
        raw = dominates.sum(axis=1) @ dominates
        best = np.flatnonzero(raw == 0)
        ideal, span = bounds(F[best])
        points = (F - ideal) / span
        distances = cdist(points, points)
        np.fill_diagonal(distances, np.inf)
        k = min(int(np.sqrt(len(F))), len(F) - 1)
        fitness = raw + 1.0 / (np.sort(distances, axis=1)[:, k] + 2.0)
        pop.set("SPEA_F", fitness)
        if len(best) > n_survive:
            return pop[best[truncate(distances[np.ix_(best, best)], n_survive)]]
        return pop[np.argsort(fitness, kind="stable")[:n_survive]]


def truncate(distances: FloatArray, n: int) -> NDArray[np.intp]:
    """Rows of a distance matrix (k, k; inf on its diagonal) that stay when the most crowded go until n are left.

    The most crowded is nearest to its nearest neighbour; ties are broken by the second nearest, and so on.
    """
    distances = distances.copy()
    alive = np.ones(len(distances), dtype=bool)
    copy_of = ((distances == 0) | np.eye(len(distances), dtype=bool)).argmax(axis=1)
    for _ in range(len(distances) - n):
        nearest = np.where(alive, distances.min(axis=1), np.inf)
        ties = np.flatnonzero(alive & (nearest == nearest.min()))
        ties = ties[np.unique(copy_of[ties], return_index=True)[1]]  # copies of one point are as crowded as each other
        gone = min(ties, key=lambda i: np.sort(distances[i]).tolist()) if len(ties) > 1 else ties[0]
        alive[gone] = False
        distances[gone] = distances[:, gone] = np.inf
    return np.flatnonzero(alive)
