"""One timestep message by message in plain Python, by the rules of docs/packet.md; slow.

The oracle of models/packet_events.py.
"""

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
    """Run a timestep of S slices.

    Parameters
    ----------
    system
        whose links, routes and costs count.
    cores
        core of each slice.
    sending
        messages of each slice in the order in which they leave.
    updates_s
        time of all neuron updates of each slice.
    buffer
        room of a queue beyond the messages under way to it, 0 for any.

    Returns
    -------
    when the last event ends, in s, and the messages over each link: inject links by slice, links between routers as the
    system numbers them, eject links by slice.

    """
    return _Timestep(_Links(system, cores, buffer), sending).run(updates_s)


class _Links:
    """All links of S slices on their cores, and where messages go on from them."""

    def __init__(self, system: System, cores: Sequence[int], buffer: int) -> None:
        n, links = len(cores), system.links
        between = {(int(a), int(b)): n + i for i, (a, b) in enumerate(zip(links.source, links.target, strict=True))}
        kinds = ["inject"] * n + [("mesh_x", "mesh_y", "chip")[c] for c in links.link_class] + ["eject"] * n
        self.n_slices, self.n_queues = n, len(kinds)
        self.t_synmem_s, self.t_synop_s = system.cost("t_synmem_s"), system.cost("t_synop_s")
        self.service_s = [system.cost("message_bits") / system.cost(f"bandwidth_bit_per_s.{kind}") for kind in kinds]
        self.hop_s = [max(s, system.cost(f"t_hop_s.{kind}")) for kind, s in zip(kinds, self.service_s, strict=True)]
        self.onward: dict[tuple[int, int], int] = {}  # queue after this one, for this slice
        for b in range(n):
            for c in range(n):
                ways = [between[ends] for ends in _routers_on_the_way(system, cores[b], cores[c])]
                path = [b, *ways, self.n_queues - n + c, self.n_queues + c]
                self.onward |= {(here, c): there for here, there in itertools.pairwise(path)}
        self.rooms = [buffer + room if buffer else math.inf for room in self._under_way(system, cores)]
        self.order = {i: i for i in range(self.n_queues + n)}
        if buffer:
            self.order |= {n + i: n + rank for i, rank in enumerate(_ranks(system))}

    def _under_way(self, system: System, cores: Sequence[int]) -> list[float]:
        """Messages that can be under way to each queue at full rate, the cores' own inputs last."""
        n, links = self.n_slices, system.links
        under_way = [math.ceil(hop / s) if s > 0 else 1 for hop, s in zip(self.hop_s, self.service_s, strict=True)]
        routers = [int(system.router_of_core[core]) for core in cores]
        source, target = routers + links.source.tolist(), routers + links.target.tolist()  # of inject links and others
        into = {r: max(under_way[i] for i, at in enumerate(target) if at == r) for r in set(target)}
        between = [into.get(r, 1) for r in source[n:]]
        return [1.0] * n + between + [into[r] for r in routers] + under_way[self.n_queues - n :]

    def parts(self, i: int, message: list[Delivery]) -> dict[int, list[Delivery]]:
        """Deliveries by the queue that they go on to from link i, in the order of the ranks."""
        found: dict[int, list[Delivery]] = {}
        for delivery in message:
            found.setdefault(self.onward[i, delivery.slice], []).append(delivery)
        return {key: found[key] for key in sorted(found, key=self.order.__getitem__)}


class _Timestep:
    """Events of one timestep; by key: link i looks at its queue, a message is over link i - Q, slice i - 2 Q sends."""

    def __init__(self, links: _Links, sending: Sequence[Sequence[Message]]) -> None:
        n, self.links = links.n_slices, links
        self.queues = [_Queue(room) for room in links.rooms]
        self.events: list[tuple[float, int]] = []
        self.todo = [deque(messages) for messages in sending]
        self.stalled_s = [0.0] * n
        self.granted: dict[int, float] = {}  # slices that have a place in their inject queue, from this time on
        # Places that a link has, for its first message.
        self.reserved: list[dict[int, float]] = [{} for _ in range(links.n_queues)]
        self.read_until, self.synop_until = [0.0] * n, [0.0] * n
        self.sent = [0] * links.n_queues
        self.now = 0.0

    def run(self, updates_s: Sequence[float]) -> tuple[float, list[int]]:
        """Run all events; see `simulate`."""
        n_queues = self.links.n_queues
        for b, messages in enumerate(self.todo):
            if messages:
                self.schedule(messages[0].ready_s, 2 * n_queues + b)
        while self.events:
            self.now, key = heapq.heappop(self.events)
            looks: list[int] = []
            if key >= 2 * n_queues:
                self.send(key - 2 * n_queues, looks)
            elif key >= n_queues:
                self.arrive(key - n_queues, looks)
            else:
                looks.append(key)
            for i in looks:
                self.look(i)
        ends = [stall + own for stall, own in zip(self.stalled_s, updates_s, strict=True)]
        return max(self.now, *ends, *self.read_until, *self.synop_until), self.sent

    def schedule(self, when: float, key: int) -> None:
        """Let an event happen."""
        heapq.heappush(self.events, (when, key))

    @staticmethod
    def place(queue: _Queue) -> float | None:
        """Take a place; return from when on it is free, None where that is not known yet."""
        nth = queue.taken - queue.room
        if nth >= 0 and nth >= len(queue.left_s):
            return None
        queue.taken += 1
        return queue.left_s[int(nth)] if nth >= 0 else 0.0

    def leave(self, queue: _Queue, when: float) -> None:
        """Give a place back, and hand it to the first that waits."""
        queue.left_s.append(when)
        if queue.waiting:
            who, kind = queue.waiting.popleft()
            queue.taken += 1
            if kind == "slice":
                self.granted[who] = when
                self.schedule(when, 2 * self.links.n_queues + who)
            else:
                self.reserved[who][self.queues.index(queue)] = when
                self.schedule(when, who)

    def enter(self, i: int, message: list[Delivery], looks: list[int]) -> None:
        """Put a message into a queue."""
        queue = self.queues[i]
        queue.messages.append(message)
        if not queue.looking:
            queue.looking = True
            if queue.busy_until <= self.now:
                looks.append(i)
            else:
                self.schedule(queue.busy_until, i)

    def look(self, i: int) -> None:
        """Send the first message on as soon as there is room for all its parts."""
        queue, reserved = self.queues[i], self.reserved[i]
        message = queue.messages[0]
        begins = self.now
        for there in self.links.parts(i, message):
            if there not in reserved:
                free = self.place(self.queues[there])
                if free is None:
                    self.queues[there].waiting.append((i, "link"))
                    return
                reserved[there] = free
            begins = max(begins, reserved[there])
        if begins > self.now:
            self.schedule(begins, i)
            return
        queue.messages.popleft()
        reserved.clear()
        queue.busy_until = self.now + self.links.service_s[i]
        self.sent[i] += 1
        arrives = self.now + self.links.hop_s[i]
        if not queue.on_link:
            self.schedule(arrives, self.links.n_queues + i)
        queue.on_link.append((arrives, message))
        self.leave(queue, queue.busy_until)
        queue.looking = bool(queue.messages)
        if queue.looking:
            self.schedule(queue.busy_until, i)

    def arrive(self, i: int, looks: list[int]) -> None:
        """Take a message from a link to the queues after it, or into its core."""
        _, message = self.queues[i].on_link.popleft()
        if self.queues[i].on_link:
            self.schedule(self.queues[i].on_link[0][0], self.links.n_queues + i)
        for there, part in self.links.parts(i, message).items():
            if there < self.links.n_queues:
                self.enter(there, part, looks)
                continue
            (delivery,) = part
            c = delivery.slice
            self.read_until[c] = max(self.now, self.read_until[c]) + delivery.words * self.links.t_synmem_s
            self.synop_until[c] = max(self.read_until[c], self.synop_until[c]) + delivery.synops * self.links.t_synop_s
            self.leave(self.queues[there], self.read_until[c])

    def send(self, b: int, looks: list[int]) -> None:
        """Let the next message of a slice leave, once its inject queue has room."""
        todo = self.todo[b]
        if b in self.granted:
            del self.granted[b]
            self.stalled_s[b] = self.now - todo[0].ready_s
        else:
            free = self.place(self.queues[b])
            if free is None:
                self.queues[b].waiting.append((b, "slice"))
                return
            if free > self.now:
                self.granted[b] = free
                self.schedule(free, 2 * self.links.n_queues + b)
                return
        self.enter(b, list(todo.popleft().deliveries), looks)
        if todo:
            self.schedule(max(self.now, self.stalled_s[b] + todo[0].ready_s), 2 * self.links.n_queues + b)


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
