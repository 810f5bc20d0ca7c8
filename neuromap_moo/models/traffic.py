"""Compiled traffic on the links between routers."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuromap_moo.arrays import FloatArray, IndexArray, IntArray


@njit(cache=True, nogil=True)
def link_messages(
    source: IndexArray,
    target: IndexArray,
    messages: FloatArray,
    router_of_slice: IndexArray,
    n_routers: int,
    route_start: IndexArray,
    route_first: IndexArray,
    route_stop: IndexArray,
    difference: FloatArray,
) -> None:
    """Add the messages of one placement to `difference` (n_links + 1,), whose running sum is the load of each link.

    A route is a few intervals of consecutive link numbers (two on a mesh: along x, then along y), so an edge costs
    the same however many hops it makes.

    Parameters
    ----------
    source
        (E,) slice that sends, of each edge.
    target
        (E,) slice that receives.
    messages
        (E,) messages per timestep.
    router_of_slice
        (S,).
    n_routers
        R.
    route_start
        (R * R + 1,) intervals of each route; see Routes.
    route_first
        first link of each interval.
    route_stop
        link after its last.
    difference
        (n_links + 1,) added to.

    """
    for e in range(source.size):
        m = messages[e]
        pair = router_of_slice[source[e]] * n_routers + router_of_slice[target[e]]
        for j in range(route_start[pair], route_start[pair + 1]):
            difference[route_first[j]] += m
            difference[route_stop[j]] -= m


@njit(cache=True, nogil=True)
def traffic(
    graph_of_placement: IntArray,
    edge_start: IntArray,
    source: IndexArray,
    target: IndexArray,
    messages: FloatArray,
    router_of_slice: IndexArray,
    chip_of_router: IndexArray,
    n_chips: int,
    route_start: IndexArray,
    route_first: IndexArray,
    route_stop: IndexArray,
    seconds_per_message: FloatArray,
    joules_per_message: FloatArray,
) -> FloatArray:
    """Route the messages of n placements over the links between routers; O(edges + links) each.

    Parameters
    ----------
    graph_of_placement
        (n,) core graph of each placement.
    edge_start
        (graphs + 1,) where the edges of each graph begin.
    source
        (E,) slice that sends, of each edge.
    target
        (E,) slice that receives.
    messages
        (E,) messages per timestep.
    router_of_slice
        (n, S), negative beyond a placement's slices.
    chip_of_router
        (R,).
    n_chips
        of the system.
    route_start
        (R * R + 1,) intervals of each route; see Routes.
    route_first
        first link of each interval.
    route_stop
        link after its last.
    seconds_per_message
        (n_links,).
    joules_per_message
        (n_links,).

    Returns
    -------
    (n, 6): largest link time in s, link energy in J, message hops, largest link load in messages, messages between
    chips, chips used.

    """
    n = graph_of_placement.size
    n_links = seconds_per_message.size
    n_routers = chip_of_router.size
    out = np.zeros((n, 6))
    difference = np.empty(n_links + 1)
    chip_used = np.empty(n_chips, dtype=np.bool_)
    for i in range(n):
        g = graph_of_placement[i]
        first, stop = edge_start[g], edge_start[g + 1]
        router = router_of_slice[i]
        difference[:] = 0.0
        link_messages(
            source[first:stop],
            target[first:stop],
            messages[first:stop],
            router,
            n_routers,
            route_start,
            route_first,
            route_stop,
            difference,
        )
        running = 0.0
        for link in range(n_links):
            running += difference[link]
            out[i, 0] = max(out[i, 0], running * seconds_per_message[link])
            out[i, 1] += running * joules_per_message[link]
            out[i, 2] += running
            out[i, 3] = max(out[i, 3], running)
        if n_chips == 1:
            out[i, 5] = 1.0
            continue
        for e in range(first, stop):
            if chip_of_router[router[source[e]]] != chip_of_router[router[target[e]]]:
                out[i, 4] += messages[e]
        chip_used[:] = False
        for s in range(router.size):
            if router[s] >= 0:
                chip_used[chip_of_router[router[s]]] = True
        out[i, 5] = chip_used.sum()
    return out


@njit(cache=True, nogil=True)
def tree_loads(
    first: IntArray,
    start: IntArray,
    dest: IntArray,
    activity: FloatArray,
    router: IndexArray,
    next_link: IndexArray,
    link_target: IndexArray,
) -> tuple[FloatArray, FloatArray]:
    """Messages on each link (n_links,) and sent by each slice (S,), where the routes of a neuron share copies.

    Neuron i, in slice b for first[b] <= i < first[b + 1], sends to the slices dest[start[i]:start[i + 1]]: one message
    over each link that a route to any of them takes. O(destinations * hops).

    Parameters
    ----------
    first
        (S + 1,) first neuron of each slice.
    start
        (neurons + 1,) where the destinations of each neuron begin.
    dest
        slices.
    activity
        (neurons,) messages per timestep.
    router
        (S,) router of each slice.
    next_link
        (R, R) link to take at a router towards another.
    link_target
        (n_links,) router at its end.

    """
    loads, sent = np.zeros(link_target.size), np.zeros(first.size - 1)
    last = np.full(link_target.size, -1)  # neuron counted last on each link
    for b in range(sent.size):
        for i in range(first[b], first[b + 1]):
            if activity[i] > 0.0 and start[i + 1] > start[i]:
                sent[b] += activity[i]
                for e in range(start[i], start[i + 1]):
                    here, there = router[b], router[dest[e]]
                    while here != there:
                        link = next_link[here, there]
                        if last[link] != i:
                            last[link] = i
                            loads[link] += activity[i]
                        here = link_target[link]
    return loads, sent
