"""One timestep message by message in plain Python: slow, by the rules of docs/packet.md, the oracle of `events.py`."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from neuromap_moo.oracles.analytic import route
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import Mesh


class Delivery(NamedTuple):
    """What one message does at one slice."""

    slice: int
    words: float
    synops: float


class Message(NamedTuple):
    """Leaves its core once `ready_s` of neuron updates are done, for all of its destinations."""

    ready_s: float
    deliveries: tuple[Delivery, ...]


class _Queue:
    """What waits before a link (or what a core has yet to read), and how much room there is."""

    def __init__(self, room: float) -> None:
        self.room = room
        self.messages: deque[list[Delivery]] = deque()
        self.on_link: deque[tuple[float, list[Delivery]]] = deque()
        self.busy_until = 0.0
        self.looking = False
        self.taken = 0
        self.left_s: list[float] = []  # when the first, second, ... message gave its place back, or will
        self.waiting: deque[tuple[int, str]] = deque()  # who waits for a place, and the part that it is for


def simulate(
    system: System, cores: Sequence[int], sending: Sequence[Sequence[Message]], updates_s: Sequence[float], buffer: int
) -> tuple[float, list[int]]:
    """Run a timestep of S slices on `cores`; `sending` lists their messages in the order in which they leave.

    `buffer` is the room of a queue beyond the messages under way to it, 0 for any. Returns when the last event ends, in
    s, and the messages over each link: inject links by slice, links between routers as the system numbers them, eject
    links by slice.
    """
    n, links = len(cores), system.links
    between = {(int(a), int(b)): n + i for i, (a, b) in enumerate(zip(links.source, links.target, strict=True))}
    kinds = ["inject"] * n + [("mesh_x", "mesh_y", "chip")[c] for c in links.link_class] + ["eject"] * n
    n_queues = len(kinds)
    service_s = [system.cost("message_bits") / system.cost(f"bandwidth_bit_per_s.{kind}") for kind in kinds]
    hop_s = [max(s, system.cost(f"t_hop_s.{kind}")) for kind, s in zip(kinds, service_s, strict=True)]
    onward: dict[tuple[int, int], int] = {}  # queue after this one, for this slice
    for b in range(n):
        for c in range(n):
            ways = [between[ends] for ends in _routers_on_the_way(system, cores[b], cores[c])]
            path = [b, *ways, n_queues - n + c, n_queues + c]
            onward |= {(here, c): there for here, there in itertools.pairwise(path)}
    under_way = [math.ceil(hop / own) if own > 0 else 1 for hop, own in zip(hop_s, service_s, strict=True)]
    routers = [int(system.router_of_core[core]) for core in cores]
    source, target = routers + links.source.tolist(), routers + links.target.tolist()  # of inject links and others
    into = {r: max(under_way[i] for i, at in enumerate(target) if at == r) for r in set(target)}
    flight = [1.0] * n + [into.get(r, 1) for r in source[n:]] + [into[r] for r in routers] + under_way[n_queues - n :]
    queues = [_Queue(buffer + room if buffer else math.inf) for room in flight]
    order = {i: i for i in range(n_queues + n)}
    if buffer:
        order |= {n + i: n + rank for i, rank in enumerate(_ranks(system))}

    events: list[tuple[float, int]] = []
    todo = [deque(messages) for messages in sending]
    stalled_s = [0.0] * n
    granted: dict[int, float] = {}  # slices that have a place in their inject queue, from this time on
    reserved: list[dict[int, float]] = [{} for _ in range(n_queues)]  # places that a link has, for its first message
    read_until, synop_until = [0.0] * n, [0.0] * n
    sent = [0] * n_queues
    now = 0.0

    def place(queue: _Queue) -> float | None:
        """Take a place; return from when on it is free, None where that is not known yet."""
        nth = queue.taken - queue.room
        if nth >= 0 and nth >= len(queue.left_s):
            return None
        queue.taken += 1
        return queue.left_s[int(nth)] if nth >= 0 else 0.0

    def leave(queue: _Queue, when: float) -> None:
        """Give a place back, and hand it to the first that waits."""
        queue.left_s.append(when)
        if queue.waiting:
            who, kind = queue.waiting.popleft()
            queue.taken += 1
            if kind == "slice":
                granted[who] = when
                heapq.heappush(events, (when, 2 * n_queues + who))
            else:
                reserved[who][queues.index(queue)] = when
                heapq.heappush(events, (when, who))

    def enter(i: int, message: list[Delivery], looks: list[int]) -> None:
        queue = queues[i]
        queue.messages.append(message)
        if not queue.looking:
            queue.looking = True
            if queue.busy_until <= now:
                looks.append(i)
            else:
                heapq.heappush(events, (queue.busy_until, i))

    def parts(i: int, message: list[Delivery]) -> dict[int, list[Delivery]]:
        """Deliveries by the queue that they go on to, in the order of the ranks."""
        found: dict[int, list[Delivery]] = {}
        for delivery in message:
            found.setdefault(onward[i, delivery.slice], []).append(delivery)
        return {key: found[key] for key in sorted(found, key=order.__getitem__)}

    def look(i: int) -> None:
        """Send the first message on as soon as there is room for all its parts."""
        queue = queues[i]
        message = queue.messages[0]
        begins = now
        for there in parts(i, message):
            if there not in reserved[i]:
                free = place(queues[there])
                if free is None:
                    queues[there].waiting.append((i, "link"))
                    return
                reserved[i][there] = free
            begins = max(begins, reserved[i][there])
        if begins > now:
            heapq.heappush(events, (begins, i))
            return
        queue.messages.popleft()
        reserved[i].clear()
        queue.busy_until = now + service_s[i]
        sent[i] += 1
        if not queue.on_link:
            heapq.heappush(events, (now + hop_s[i], n_queues + i))
        queue.on_link.append((now + hop_s[i], message))
        leave(queue, queue.busy_until)
        queue.looking = bool(queue.messages)
        if queue.looking:
            heapq.heappush(events, (queue.busy_until, i))

    def arrive(i: int, looks: list[int]) -> None:
        _, message = queues[i].on_link.popleft()
        if queues[i].on_link:
            heapq.heappush(events, (queues[i].on_link[0][0], n_queues + i))
        for there, part in parts(i, message).items():
            if there < n_queues:
                enter(there, part, looks)
                continue
            (delivery,) = part
            c = delivery.slice
            read_until[c] = max(now, read_until[c]) + delivery.words * system.cost("t_synmem_s")
            synop_until[c] = max(read_until[c], synop_until[c]) + delivery.synops * system.cost("t_synop_s")
            leave(queues[there], read_until[c])

    def send(b: int, looks: list[int]) -> None:
        if b in granted:
            del granted[b]
            stalled_s[b] = now - todo[b][0].ready_s
        else:
            free = place(queues[b])
            if free is None:
                queues[b].waiting.append((b, "slice"))
                return
            if free > now:
                granted[b] = free
                heapq.heappush(events, (free, 2 * n_queues + b))
                return
        enter(b, list(todo[b].popleft().deliveries), looks)
        if todo[b]:
            heapq.heappush(events, (max(now, stalled_s[b] + todo[b][0].ready_s), 2 * n_queues + b))

    for b in range(n):
        if todo[b]:
            heapq.heappush(events, (todo[b][0].ready_s, 2 * n_queues + b))
    while events:
        now, key = heapq.heappop(events)
        looks: list[int] = []
        if key >= 2 * n_queues:
            send(key - 2 * n_queues, looks)
        elif key >= n_queues:
            arrive(key - n_queues, looks)
        else:
            looks.append(key)
        for i in looks:
            look(i)
    ends = [stall + own for stall, own in zip(stalled_s, updates_s, strict=True)]
    return max(now, *ends, *read_until, *synop_until), sent


def _ranks(system: System) -> list[int]:
    """Rank of each link between routers, rising along every route; of several possible links the lowest comes first."""
    k = system.topology.cores_per_router
    between = {(int(a), int(b)): i for i, (a, b) in enumerate(zip(*system.links[:2], strict=True))}
    after: list[set[int]] = [set() for _ in between]
    for a in range(system.n_routers):
        for b in range(system.n_routers):
            path = [between[ends] for ends in _routers_on_the_way(system, a * k, b * k)]
            for here, there in itertools.pairwise(path):
                after[here].add(there)
    before = [sum(i in others for others in after) for i in range(len(after))]
    ready = [i for i, count in enumerate(before) if count == 0]
    rank = [-1] * len(after)
    for n in range(len(after)):
        i = min(ready)
        ready.remove(i)
        rank[i] = n
        for there in after[i]:
            before[there] -= 1
            if before[there] == 0:
                ready.append(there)
    return rank


def _routers_on_the_way(system: System, source: int, target: int) -> list[tuple[int, int]]:
    """Links between routers of a route from core to core, as pairs of routers."""
    pairs = []
    for link in route(system, source, target)[1:-1]:
        ends = link[1:]
        if isinstance(system.topology, Mesh):
            xy = system.topology.router_xy.tolist()
            ends = tuple(xy.index(list(end)) for end in ends)
        pairs.append(ends)
    return pairs
