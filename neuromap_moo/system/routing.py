"""Routing over arbitrary links: deterministic shortest paths as intervals of link numbers."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, shortest_path

from neuromap_moo.arrays import IndexArray
from neuromap_moo.errors import InputError

#: All routes of a graph together; this many take 1 GB.
MAXIMUM_INTERVALS = 2**27


class Links(NamedTuple):
    """Directed links between routers, (n_links,) each; `link_class` is an index into the system's MESH_CLASSES."""

    source: IndexArray
    target: IndexArray
    link_class: IndexArray


class Routes(NamedTuple):
    """Route from router a to router b as intervals of link numbers.

    Pair a * n_routers + b uses the intervals start[pair] to start[pair + 1]; interval j is links first[j] to
    stop[j] - 1.
    """

    start: IndexArray
    first: IndexArray
    stop: IndexArray


class Paths(NamedTuple):
    """Shortest paths between n routers.

    `hops` (n, n) and `next_link` (n, n), the first link of the route from one router to another (any number where there
    is none to take), over `links`, which are numbered anew.
    """

    hops: IndexArray
    next_link: IndexArray
    links: Links

    def routes(self) -> Routes:
        """Return the routes as intervals; time and memory grow with the intervals, not with the hops.

        Raises InputError where there are more than MAXIMUM_INTERVALS.
        """
        n = len(self.hops)
        if n == 1:
            return Routes(np.zeros(2, dtype=np.int32), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))
        hops, link = self.hops.ravel(), self.next_link.ravel()
        pair = np.arange(n * n, dtype=np.int32)
        # What remains of a route after its first interval is the route of another pair, known once nearer pairs are.
        onward = self.links.target[link] * np.int32(n) + pair % np.int32(n)
        rest, stop = onward.copy(), link + np.int32(1)
        count = np.zeros(n * n, dtype=np.int64)
        by_distance = np.argsort(hops, kind="stable")
        bounds = np.searchsorted(hops[by_distance], np.arange(1, hops.max() + 2))
        for low, high in itertools.pairwise(bounds.tolist()):
            pairs = by_distance[low:high]
            ahead = onward[pairs]
            joined = (hops[ahead] > 0) & (link[ahead] == link[pairs] + 1)
            run = pairs[joined]
            rest[run], stop[run] = rest[ahead[joined]], stop[ahead[joined]]
            count[pairs] = 1 + count[rest[pairs]]
        start = np.concatenate([[0], np.cumsum(count)])
        if start[-1] > MAXIMUM_INTERVALS:
            raise InputError(
                f"topology.links: expected routes of at most {MAXIMUM_INTERVALS} intervals of links in all, "
                f"got {start[-1]}; use fewer routers, or number those along a line one after the other"
            )
        first_of, stop_of = np.empty(start[-1], dtype=np.int32), np.empty(start[-1], dtype=np.int32)
        at = pair[hops > 0]
        place = start[at]
        while at.size:
            first_of[place], stop_of[place] = link[at], stop[at]
            at, place = rest[at], place + 1
            going = hops[at] > 0
            at, place = at[going], place[going]
        return Routes(start.astype(np.int32), first_of, stop_of)


def unconnected(n_routers: int, source: IndexArray, target: IndexArray) -> tuple[int, int] | None:
    """Return two routers with no way from the first to the second, None where every router reaches every other."""
    ways = _adjacency(n_routers, source, target)
    for matrix, outward in ((ways, True), (ways.T.tocsr(), False)):
        reached = breadth_first_order(matrix, 0, return_predecessors=False)
        if len(reached) < n_routers:
            other = int(np.setdiff1d(np.arange(n_routers), reached)[0])
            return (0, other) if outward else (other, 0)
    return None


def shortest_paths(n_routers: int, links: Links) -> Paths:
    """Route from every router to every other in the fewest hops, on to the neighbour with the lowest id among equals.

    `links` connect all routers and are sorted by source and then target.
    """
    source, target, link_class = links
    hops = shortest_path(_adjacency(n_routers, source, target), method="D", unweighted=True).astype(np.int32)
    next_link = np.zeros((n_routers, n_routers), dtype=np.int32)
    if not source.size:
        return Paths(hops, next_link, links)
    begin = np.searchsorted(source, np.arange(n_routers + 1))
    for a in range(n_routers):
        own = target[begin[a] : begin[a + 1]]
        # Neighbours ascend, so the first that is nearer has the lowest id.
        next_link[a] = begin[a] + (hops[own] == hops[a] - 1).argmax(axis=0)
    number = _chained(hops, next_link, target)
    order = np.argsort(number)
    return Paths(hops, number[next_link], Links(source[order], target[order], link_class[order]))


def _chained(hops: IndexArray, next_link: IndexArray, target: IndexArray) -> IndexArray:
    """Return a new number for each link, (n_links,), along chains of links that routes take one after the other.

    The pairs of links that follow each other on most routes' first two hops are joined first. A route along one chain
    is one interval, so a message costs the evaluator little however far it goes.
    """
    n_links = target.size
    a, b = np.nonzero(hops >= 2)
    first = next_link[a, b]
    pairs, times = np.unique(first.astype(np.int64) * n_links + next_link[target[first], b], return_counts=True)
    after, before = [-1] * n_links, [-1] * n_links
    begin, end = list(range(n_links)), list(range(n_links))  # of the chain that ends, or begins, with this link
    for pair in pairs[np.lexsort((pairs, -times))].tolist():
        i, j = divmod(pair, n_links)
        if after[i] < 0 and before[j] < 0 and begin[i] != j:
            after[i], before[j] = j, i
            begin[end[j]], end[begin[i]] = begin[i], end[j]
    number = np.empty(n_links, dtype=np.int32)
    count = 0
    for link in range(n_links):
        at = link if before[link] < 0 else -1
        while at >= 0:
            number[at] = count
            count += 1
            at = after[at]
    return number


def _adjacency(n_routers: int, source: IndexArray, target: IndexArray) -> Any:
    return csr_array((np.ones(source.size), (source, target)), shape=(n_routers, n_routers))
