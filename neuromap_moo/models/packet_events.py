"""One timestep message by message: the compiled event loop of the packet-level simulator.

`oracles/packet.py` runs the same rules in plain Python and shares no code with this module.

A message is a run of entries of `dest`: the slices that it still has to reach. Communication per destination core makes
a message of every entry; with copies per route one message leaves a core and parts where its routes do. Queues are
numbered as the links that drain them: inject links of the slices, then links between routers, then eject links; the
cores' own inputs come last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.partition.core_graph import Sending


class Fabric(NamedTuple):
    """What a placement of S slices makes of the system: Q = 2 S + n_links links of all kinds."""

    towards: IntArray  # ((n_routers + 1) * S,) queue for each slice at each router; last row: the core's own input
    here: IntArray  # (Q,) row of `towards`, times S, at a link's other end; the last for eject links
    service_s: FloatArray  # (Q,) for which a message occupies the link
    hop_s: FloatArray  # (Q,) after which it is at the other end, at least service_s
    rank: IntArray  # (Q,) in an order in which no route goes back
    room: IntArray  # (Q + S,) messages that a queue holds; empty where any number fits
    t_synmem_s: float
    t_synop_s: float


class Traffic(NamedTuple):
    """What the slices send in one timestep: M messages with N destinations."""

    first: IntArray  # (S + 1,) messages of each slice
    ready_s: FloatArray  # (M,) time of updates before the message leaves, ascending within a slice
    begin: IntArray  # (M + 1,) destinations of each message
    dest: IntArray  # (N,) slices
    words: FloatArray  # (N,) of synapse memory that the message makes the slice read
    synops: FloatArray  # (N,) synaptic operations of the message
    updates_s: FloatArray  # (S,) time of all updates of a slice


def traffic_of(sending: Sending, spikes: IntArray, t_dendop_s: float, shares_routes: bool) -> tuple[Traffic, IntArray]:
    """Turn the spikes of one timestep into messages.

    Parameters
    ----------
    sending
        what each neuron sends where, for one partition.
    spikes
        (n,) messages of each neuron in this timestep.
    t_dendop_s
        time of one neuron update.
    shares_routes
        one message leaves a core for all destinations.

    Returns
    -------
    the traffic, and the slice (N,) that each destination is sent from.

    """
    first, ready_s, begin, dest, words, synops, source = _expand(
        sending.first, sending.updated * t_dendop_s, sending.start, sending.dest, sending.words, sending.synops,
        spikes, shares_routes,
    )  # fmt: skip
    return Traffic(first, ready_s, begin, dest, words, synops, sending.updates * t_dendop_s), source


@njit(cache=True, nogil=True)
def _expand(
    first_neuron: IntArray,
    neuron_ready_s: FloatArray,
    start: IntArray,
    entry_dest: IntArray,
    entry_words: FloatArray,
    entry_synops: FloatArray,
    spikes: IntArray,
    shares_routes: bool,
) -> tuple[IntArray, FloatArray, IntArray, IntArray, FloatArray, FloatArray, IntArray]:
    n_slices = first_neuron.size - 1
    n_messages = n_dest = 0
    for i in range(spikes.size):
        fan_out = start[i + 1] - start[i]
        n_dest += spikes[i] * fan_out
        n_messages += spikes[i] * (min(fan_out, 1) if shares_routes else fan_out)
    first = np.zeros(n_slices + 1, dtype=np.int64)
    ready_s, begin = np.empty(n_messages), np.empty(n_messages + 1, dtype=np.int64)
    dest, source = np.empty(n_dest, dtype=np.int64), np.empty(n_dest, dtype=np.int64)
    words, synops = np.empty(n_dest), np.empty(n_dest)
    m = at = 0
    for b in range(n_slices):
        for i in range(first_neuron[b], first_neuron[b + 1]):
            for _ in range(spikes[i]):
                for e in range(start[i], start[i + 1]):
                    if not shares_routes or e == start[i]:
                        ready_s[m], begin[m] = neuron_ready_s[i], at
                        m += 1
                    dest[at], words[at], synops[at], source[at] = entry_dest[e], entry_words[e], entry_synops[e], b
                    at += 1
        first[b + 1] = m
    begin[m] = at
    return first, ready_s, begin, dest, words, synops, source


#: Time is cut into buckets; after this many they are used again, and events further away wait in a heap.
BUCKETS = 4096


# What is rare in a step is a function, written into it by the compiler (numba's `inline`). The rest stays in one: each
# array handed over is counted, even so, and that costs more here than the work on it.


@njit(inline="always")
def _take_from_heap(at_s: FloatArray, heap: IntArray, n_heaped: int) -> int:
    """Take the first of the heap's events, which are `n_heaped` afterwards."""
    key: int = heap[0]
    moved = heap[n_heaped]
    parent, child = 0, 1
    while child < n_heaped:
        a, b = heap[child], heap[child + 1] if child + 1 < n_heaped else moved
        if at_s[b] < at_s[a] or (at_s[b] == at_s[a] and b < a):
            a = b
            child += 1
        if at_s[moved] < at_s[a] or (at_s[moved] == at_s[a] and moved <= a):
            break
        heap[parent] = a
        parent, child = child, 2 * child + 1
    heap[parent] = moved
    return key


@njit(inline="always")
def _sort_by_rank(
    low: int,
    high: int,
    here_row: int,
    towards: IntArray,
    rank: IntArray,
    dest: IntArray,
    words: FloatArray,
    synops: FloatArray,
) -> None:
    """Bring entries that go on to the same queue side by side, in the order of the ranks."""
    for i in range(low + 1, high):
        d, w, s = dest[i], words[i], synops[i]
        own = rank[towards[here_row + d]]
        j = i - 1
        while j >= low and rank[towards[here_row + dest[j]]] > own:
            dest[j + 1], words[j + 1], synops[j + 1] = dest[j], words[j], synops[j]
            j -= 1
        dest[j + 1], words[j + 1], synops[j + 1] = d, w, s


@njit(cache=True, nogil=True)
def simulate_step(fabric: Fabric, traffic: Traffic, per_s: float, sent: IntArray) -> tuple[float, int]:
    """Run one timestep.

    Parameters
    ----------
    fabric
        links and costs, as the placement makes them.
    traffic
        what is sent.
    per_s
        about how many events a second has; it changes nothing but the speed.
    sent
        (Q,) counted up by the messages over each link.

    Returns
    -------
    when the last event ends, in s, and how many destinations were reached: less than N only where messages block each
    other for good.

    """
    towards, here, service_s, hop_s, rank, room, t_synmem_s, t_synop_s = fabric
    first, ready_s, begin, given_dest, given_words, given_synops, updates_s = traffic
    n_slices, n_dest, n_queues = first.size - 1, given_dest.size, service_s.size
    is_finite = room.size > 0
    dest, words, synops = given_dest.copy(), given_words.copy(), given_synops.copy()  # in order as messages part

    # Messages: their entries of dest, when they arrive, and the one behind in a queue or on a link.
    low, high = np.empty(n_dest, dtype=np.int64), np.empty(n_dest, dtype=np.int64)
    arrives_s = np.empty(n_dest)
    behind = np.empty(n_dest, dtype=np.int64)
    unused, n_unused = np.arange(n_dest), n_dest

    head, tail = np.full(n_queues, -1), np.full(n_queues, -1)  # of each queue
    flying, last_flying = np.full(n_queues, -1), np.full(n_queues, -1)  # on each link
    busy_until = np.zeros(n_queues)
    pending = np.zeros(n_queues, dtype=np.bool_)  # the link will look at its queue, or waits for room ahead
    # Room in queues: places taken, places given back (some in the future), and when.
    n_places = n_queues + n_slices
    taken, given_back = np.zeros(n_places, dtype=np.int64), np.zeros(n_places, dtype=np.int64)
    back_s = np.zeros((n_places, room.max() if is_finite else 1))
    # Who waits for room, first come first served: a link, or the slice b as n_queues + b.
    waiting, last_waiting = np.full(n_places, -1), np.full(n_places, -1)
    next_waiting = np.full(n_places, -1)
    reserved = np.full(n_places, -1)  # entries of the first message up to which there is room ahead; -1: not looked
    wanted = np.zeros(n_places, dtype=np.int64)  # what `reserved` will be once the wait is over

    upcoming = first[:-1].copy()  # next message of each slice
    stalled_s = np.zeros(n_slices)
    read_until, synop_until = np.zeros(n_slices), np.zeros(n_slices)
    n_reached = 0

    # Events by key: a link looks at its queue, a message arrives at a link's end (n_queues + link), a slice sends
    # (2 n_queues + b). At most one of each key is to come; those of one time come in the order of their keys. They lie
    # in a calendar queue (Brown, Communications of the ACM 31(10), 1988), beyond its year in a binary heap.
    n_keys = 2 * n_queues + n_slices
    at_s, after = np.empty(n_keys), np.empty(n_keys, dtype=np.int64)  # time; next key in a bucket
    bucket, heap = np.full(BUCKETS, -1), np.empty(n_keys, dtype=np.int64)
    n_bucketed = n_heaped = number = 0  # number: of the bucket of the last event, counted from time 0
    # What an event brings about: new events, places given back, links that look at their queues at once.
    due_s, due_key, n_due = np.empty(2 * n_places), np.empty(2 * n_places, dtype=np.int64), 0
    freed_s, freed, n_freed = np.empty(n_places), np.empty(n_places, dtype=np.int64), 0
    looks, n_looks, next_look = np.empty(n_places, dtype=np.int64), 0, 0
    for b in range(n_slices):
        if upcoming[b] < first[b + 1]:
            due_s[n_due], due_key[n_due] = ready_s[upcoming[b]], 2 * n_queues + b
            n_due += 1
    waits, awaited = -1, -1  # who has to wait from now on, and the queue in which there is no room; -1: nobody
    now = 0.0
    while True:
        if waits >= 0:
            next_waiting[waits] = -1
            if waiting[awaited] < 0:
                waiting[awaited] = waits
            else:
                next_waiting[last_waiting[awaited]] = waits
            last_waiting[awaited] = waits
            waits = -1
        for i in range(n_freed):
            queue = freed[i]
            back_s[queue, given_back[queue] % room[queue]] = freed_s[i]
            given_back[queue] += 1
            waiter = waiting[queue]
            if waiter >= 0:
                waiting[queue] = next_waiting[waiter]
                taken[queue] += 1
                reserved[waiter] = wanted[waiter]
                due_s[n_due], due_key[n_due] = freed_s[i], waiter if waiter < n_queues else n_queues + waiter
                n_due += 1
        n_freed = 0
        for i in range(n_due):
            key, time = due_key[i], due_s[i]
            at_s[key] = time
            if time * per_s < number + (BUCKETS - 1):
                place = int(time * per_s) % BUCKETS
                n_bucketed += 1
                other = bucket[place]
                if other < 0 or time < at_s[other] or (time == at_s[other] and key < other):
                    bucket[place], after[key] = key, other
                    continue
                while after[other] >= 0 and (
                    at_s[after[other]] < time or (at_s[after[other]] == time and after[other] < key)
                ):
                    other = after[other]
                after[other], after[key] = key, after[other]
            else:
                child = n_heaped
                n_heaped += 1
                while child > 0:
                    parent = (child - 1) >> 1
                    other = heap[parent]
                    if at_s[other] < time or (at_s[other] == time and other < key):
                        break
                    heap[child] = other
                    child = parent
                heap[child] = key
        n_due = 0

        if next_look < n_looks:
            link = looks[next_look]
            next_look += 1
        else:
            n_looks = next_look = 0
            if n_bucketed + n_heaped == 0:
                break
            # The earliest bucket that is not empty; not beyond the heap's first event, after which more may come.
            limit = int(at_s[heap[0]] * per_s) if n_heaped > 0 else np.iinfo(np.int64).max
            if n_bucketed == 0:
                number = limit
            while bucket[number % BUCKETS] < 0 and number < limit:
                number += 1
            key = bucket[number % BUCKETS]
            if key >= 0 and (
                n_heaped == 0 or at_s[key] < at_s[heap[0]] or (at_s[key] == at_s[heap[0]] and key < heap[0])
            ):
                bucket[number % BUCKETS] = after[key]
                n_bucketed -= 1
            else:
                n_heaped -= 1
                key = _take_from_heap(at_s, heap, n_heaped)
            now = at_s[key]
            link = key if key < n_queues else -1
            if key >= 2 * n_queues:  # a slice sends
                b = key - 2 * n_queues
                waiter = n_queues + b
                i = upcoming[b]
                if is_finite:
                    if reserved[waiter] < 0:
                        n = taken[b]
                        if n >= room[b] and given_back[b] <= n - room[b]:
                            waits, awaited, wanted[waiter] = waiter, b, 0
                            continue
                        taken[b] += 1
                        if n >= room[b] and back_s[b, n % room[b]] > now:
                            reserved[waiter] = 0
                            due_s[0], due_key[0], n_due = back_s[b, n % room[b]], key, 1
                            continue
                    else:
                        stalled_s[b] = now - ready_s[i]
                        reserved[waiter] = -1
                upcoming[b] += 1
                if upcoming[b] < first[b + 1]:
                    due_s[0], due_key[0], n_due = max(now, stalled_s[b] + ready_s[upcoming[b]]), key, 1
                entered, m, stop, end = b, -1, begin[i], begin[i + 1]
            elif key >= n_queues:  # a message arrives
                over = key - n_queues
                m = flying[over]
                flying[over] = behind[m]
                if flying[over] >= 0:
                    due_s[0], due_key[0], n_due = arrives_s[flying[over]], key, 1
                entered, stop, end = -1, low[m], high[m]
            else:
                stop, end = 0, 0
            while stop < end:  # part after part of a message enters its queue
                at = stop
                if entered >= 0:
                    queue, stop = entered, end
                else:
                    queue = towards[here[over] + dest[at]]
                    stop += 1
                    while stop < end and towards[here[over] + dest[stop]] == queue:
                        stop += 1
                if m < 0:
                    n_unused -= 1
                    m = unused[n_unused]
                if queue >= n_queues:
                    c = queue - n_queues
                    read_until[c] = max(now, read_until[c]) + words[at] * t_synmem_s
                    synop_until[c] = max(read_until[c], synop_until[c]) + synops[at] * t_synop_s
                    n_reached += 1
                    unused[n_unused] = m
                    n_unused += 1
                    if is_finite:
                        freed[0], freed_s[0], n_freed = queue, read_until[c], 1
                else:
                    low[m], high[m], behind[m] = at, stop, -1
                    if head[queue] < 0:
                        head[queue] = m
                    else:
                        behind[tail[queue]] = m
                    tail[queue] = m
                    if not pending[queue]:
                        pending[queue] = True
                        if busy_until[queue] <= now:
                            looks[n_looks] = queue
                            n_looks += 1
                        else:
                            due_s[n_due], due_key[n_due] = busy_until[queue], queue
                            n_due += 1
                m = -1
            if link < 0:
                continue

        # A link looks at its queue: the first message goes as soon as there is room ahead for all its parts.
        m = head[link]
        if reserved[link] < 0:
            reserved[link] = low[m]
            if high[m] - low[m] > 1:
                _sort_by_rank(low[m], high[m], here[link], towards, rank, dest, words, synops)
        if is_finite:
            begins_s = now
            at = reserved[link]
            while at < high[m]:
                queue = towards[here[link] + dest[at]]
                stop = at + 1
                while stop < high[m] and towards[here[link] + dest[stop]] == queue:
                    stop += 1
                n = taken[queue]
                if n >= room[queue]:
                    if given_back[queue] <= n - room[queue]:
                        waits, awaited, wanted[link] = link, queue, stop
                        break
                    begins_s = max(begins_s, back_s[queue, n % room[queue]])
                taken[queue] += 1
                at = stop
            reserved[link] = at
            if at < high[m]:
                continue
            if begins_s > now:
                due_s[0], due_key[0], n_due = begins_s, link, 1
                continue
            freed[0], freed_s[0], n_freed = link, now + service_s[link], 1
        busy_until[link] = now + service_s[link]
        sent[link] += 1
        reserved[link] = -1
        head[link] = behind[m]
        behind[m] = -1
        arrives_s[m] = now + hop_s[link]
        if flying[link] < 0:
            flying[link] = m
            due_s[n_due], due_key[n_due] = arrives_s[m], n_queues + link
            n_due += 1
        else:
            behind[last_flying[link]] = m
        last_flying[link] = m
        pending[link] = head[link] >= 0
        if pending[link]:
            due_s[n_due], due_key[n_due] = busy_until[link], link
            n_due += 1
    return max(now, (stalled_s + updates_s).max(), read_until.max(), synop_until.max()), n_reached
