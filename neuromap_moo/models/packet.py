"""Packet-level evaluator: timesteps message by message, a second opinion on the analytic model's maxima.

What a step is (every rule in docs/packet.md): neurons of a core are updated one after another, one that is active sends
a message per destination core; links pass messages on first come first served; the receiver reads synapse rows and does
synaptic operations in order; the barrier ends the step.
"""

from __future__ import annotations

import hashlib
import os
from collections import abc
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError, did_you_mean, first_line, whole_number
from neuromap_moo.mapping.mapping import MappingBatch
from neuromap_moo.models.metrics import Metrics, StepLoads, energy_terms, join_loads, metrics_of, step_times, time_terms
from neuromap_moo.models.packet_events import Fabric, Traffic, simulate_step, traffic_of
from neuromap_moo.network.files import READ_ERRORS
from neuromap_moo.network.network import Network
from neuromap_moo.partition.fixed import AnyPartitioner, FixedPartitioner
from neuromap_moo.system.system import System

#: Timesteps simulated for each mapping, the seed of their activity, and messages that fit the queue before a link.
STEPS, SEED, BUFFER_MESSAGES = 8, 0, 8

CONFIDENCE = 0.95


class PacketEvaluator:
    """Metrics of mappings from simulated timesteps; a pure function of the mapping, the spikes and the buffers.

    Timesteps are drawn once from the activity, so all mappings meet the same spikes: a neuron of activity a sends
    floor(a) messages, and one more with probability a - floor(a). Beside the columns of every evaluator there are
    `latency_ci95_s` and `energy_ci95_j`, half of the 95 % confidence interval of the mean over the steps (Student's t;
    infinite for one).

    Parameters
    ----------
    partitioner
        cuts layers into slices, for the same system.
    system
        where mappings go.
    steps
        timesteps to draw.
    seed
        of the draws.
    buffer_messages
        room before each link and each core's input; 0 means any.
    spikes
        counts by layer name, (steps, size) each, or the path of an .npz that holds them, in place of drawn ones.

    Raises
    ------
    InputError
        for spikes that do not fit the network, and for finite buffers where routes depend on each other in a circle,
        since messages could then block each other for good (Dally and Seitz, IEEE Trans. Computers C-36(5), 1987).

    """

    def __init__(
        self,
        partitioner: AnyPartitioner,
        system: System,
        *,
        steps: int = STEPS,
        seed: int = SEED,
        buffer_messages: int = BUFFER_MESSAGES,
        spikes: abc.Mapping[str, NDArray[Any]] | str | os.PathLike[str] | None = None,
    ) -> None:
        self.partitioner = partitioner
        self.system = system
        self.buffer_messages = whole_number("evaluator.buffer_messages", buffer_messages)
        n_steps = whole_number("evaluator.steps", steps, 1)
        seed = whole_number("evaluator.seed", seed)
        if spikes is None:
            self.spikes = drawn_spikes(partitioner.activity, n_steps, seed)
            told = f"steps={n_steps}, seed={seed}"
        elif isinstance(partitioner, FixedPartitioner):
            raise InputError("evaluator.spikes: a core graph has no neurons that could replay spikes; leave it out")
        else:
            self.spikes = _given_spikes(partitioner.network, spikes)
            told = f"spikes={hashlib.sha256(self.spikes.tobytes()).hexdigest()[:12]}"
        self.name = f"packet({told}, buffer_messages={self.buffer_messages})"
        self._rank = _ranks(system, self.buffer_messages > 0)

    def evaluate(self, mappings: MappingBatch) -> Metrics:
        """Return every metric column for n mappings, (n,) each."""
        pairs = zip(*mappings, strict=True)
        loads = join_loads([self._simulate(k, cores[cores >= 0].astype(np.int64)) for k, cores in pairs])
        system, steps, depth = self.system, self.partitioner.steps_per_inference, self.partitioner.depth
        step_s = step_times(loads, system, time_terms(loads, system))
        return {
            **metrics_of(loads, system, steps, depth),
            "latency_ci95_s": (steps + depth - 1) * _half_interval(step_s),
            "energy_ci95_j": _half_interval(energy_terms(loads, system, steps, step_s).sum(axis=0)),
        }

    def _simulate(self, cores_per_layer: IntArray, cores: IntArray) -> StepLoads:
        """Run every timestep with one mapping: cores per layer (L,) and core of each slice (S,)."""
        system, cost = self.system, self.system.cost
        sending, fabric = self.partitioner.sending(cores_per_layer), self._fabric(cores)
        n, n_steps, n_links = cores.size, len(self.spikes), system.links.target.size
        chip = system.chip_of_router[system.router_of_core[cores]]
        end_s = np.empty(n_steps)
        sent = np.zeros((n_steps, fabric.service_s.size), dtype=np.int64)
        # Each step's most of a slice, and its sum: words read, synaptic operations.
        most, total = np.empty((n_steps, 2)), np.empty((n_steps, 2))
        delivered, inter_chip = np.empty(n_steps), np.empty(n_steps)
        for step, spikes in enumerate(self.spikes):
            traffic, source = traffic_of(sending, spikes, cost("t_dendop_s"), system.copies == "per_route")
            per_s = _events_per_s(fabric, traffic)
            end_s[step], reached = simulate_step(fabric, traffic, per_s, sent[step])
            if reached < traffic.dest.size:
                raise RuntimeError(
                    f"step {step}: {traffic.dest.size - reached} of {traffic.dest.size} messages are stuck"
                )
            for i, load in enumerate((traffic.words, traffic.synops)):
                of_slice = np.bincount(traffic.dest, load, n)
                most[step, i], total[step, i] = of_slice.max(), of_slice.sum()
            delivered[step] = reached
            inter_chip[step] = np.count_nonzero(chip[source] != chip[traffic.dest])
        between = sent[:, n : n + n_links]
        link_j = np.concatenate(
            [np.full(n, cost("e_link_j.inject")), system.per_link("e_link_j"), np.full(n, cost("e_link_j.eject"))]
        )
        return StepLoads(
            dendops_max=np.array([sending.updates.max()]),
            synops_max=np.array([most[:, 1].mean()]),
            synmem_reads_max=np.array([most[:, 0].mean()]),
            t_link_s=np.array([(sent * fabric.service_s).max(axis=1).mean()]),
            dendops=np.full((1, n_steps), sending.updates.sum()),
            synops=total[None, :, 1],
            synmem_reads=total[None, :, 0],
            messages=delivered[None],
            links_j=(sent @ link_j)[None],
            message_hops=np.array([between.sum(axis=1).mean()]),
            peak_link_messages=np.array([between.mean(axis=0).max(initial=0.0)]),
            inter_chip_messages=np.array([inter_chip.mean()]),
            cores_used=np.array([n]),
            chips_used=np.array([np.unique(chip).size]),
            busy_s=end_s[None],
        )

    def _fabric(self, cores: IntArray) -> Fabric:
        system, cost, n = self.system, self.system.cost, cores.size
        bits = cost("message_bits")

        def per_queue(key: str) -> FloatArray:
            inject, eject = (np.full(n, cost(f"{key}.{way}")) for way in ("inject", "eject"))
            return np.concatenate([inject, system.per_link(key), eject])

        service_s = bits / per_queue("bandwidth_bit_per_s")
        hop_s = np.maximum(service_s, per_queue("t_hop_s"))
        n_links, n_routers = system.links.target.size, system.n_routers
        router = system.router_of_core[cores].astype(np.int64)
        at = np.arange(n_routers)[:, None]
        eject = n + n_links + np.arange(n)
        towards = np.where(router == at, eject, n + system.next_link[:, router])
        here = np.concatenate([router, system.links.target, np.full(n, n_routers)])
        room = np.zeros(0, dtype=np.int64)
        if self.buffer_messages:
            # A queue also holds what is under way to it, or hops could not be passed at full rate.
            flight = np.ones(service_s.size + n)
            into = np.concatenate([towards, n_links + 2 * n + np.arange(n)[None]])
            under_way = np.ceil(hop_s / np.where(service_s > 0, service_s, np.inf))
            np.maximum.at(flight, into[here].T, np.broadcast_to(under_way, (n, service_s.size)))
            room = self.buffer_messages + flight.astype(np.int64)
        return Fabric(
            towards=np.concatenate([towards, eject[None] + n]).ravel().astype(np.int64),
            here=here * n,
            service_s=service_s,
            hop_s=hop_s,
            rank=np.concatenate([np.arange(n), n + self._rank, n + n_links + np.arange(n)]),
            room=room,
            t_synmem_s=cost("t_synmem_s"),
            t_synop_s=cost("t_synop_s"),
        )


def _events_per_s(fabric: Fabric, traffic: Traffic) -> float:
    """Roughly, from the time that no step can be shorter than and about a dozen events for every message."""
    n = traffic.updates_s.size
    received = np.bincount(traffic.dest, minlength=n).max(initial=0) * fabric.service_s[-1]
    least_s = max(traffic.updates_s.max(), received, traffic.synops.sum() / n * fabric.t_synop_s)
    return float(12 * max(traffic.dest.size, 1) / least_s) if least_s > 0 else 1e9


def drawn_spikes(activity: FloatArray, n_steps: int, seed: int) -> IntArray:
    """Spike counts (steps, n): floor(a) for an activity a, and one more with probability a - floor(a).

    Parameters
    ----------
    activity
        (n,) mean messages per timestep of each neuron.
    n_steps
        timesteps to draw.
    seed
        of the draws.

    """
    whole = np.floor(activity)
    drawn = np.random.default_rng(seed).random((n_steps, activity.size)) < activity - whole
    return (whole + drawn).astype(np.int64)


def _half_interval(values: FloatArray) -> FloatArray:
    """Half of the confidence interval of the mean of each row (n, s); infinite for one value."""
    s = values.shape[1]
    if s == 1:
        return np.full(len(values), np.inf)
    from scipy.stats import t as student_t  # takes long to import

    return np.asarray(student_t.ppf(0.5 + CONFIDENCE / 2, s - 1) * values.std(axis=1, ddof=1) / np.sqrt(s))


def _given_spikes(network: Network, spikes: abc.Mapping[str, NDArray[Any]] | str | os.PathLike[str]) -> IntArray:
    """Spike counts of all neurons, (steps, n), from arrays by layer name or an .npz of them."""
    where = "evaluator.spikes"
    if isinstance(spikes, (str, os.PathLike)):
        where = f"evaluator.spikes '{os.fspath(spikes)}'"
        try:
            with np.load(spikes, allow_pickle=False) as data:
                spikes = {name: data[name] for name in data.files}
        except READ_ERRORS as error:
            raise InputError(
                f"{where}: expected an .npz with an array (steps, size) for each layer, got something else "
                f"({first_line(error)})"
            ) from error
    for name in spikes:
        if name not in network.layer_index:
            raise InputError(f"{where}: no layer '{name}'{did_you_mean(name, network.layer_index)}")
    parts: list[IntArray] = []
    for layer in network.layers:
        if layer.name not in spikes:
            raise InputError(f"{where}: missing layer '{layer.name}'; expected counts (steps, {layer.size})")
        counts = np.asarray(spikes[layer.name])
        if counts.dtype.kind not in "biu" or counts.ndim != 2 or counts.shape[1] != layer.size or not len(counts):
            raise InputError(
                f"{where}, layer '{layer.name}': expected whole counts of shape (steps, {layer.size}), "
                f"got {counts.dtype} {counts.shape}"
            )
        if counts.size and counts.min() < 0:
            raise InputError(f"{where}, layer '{layer.name}': expected counts >= 0, got {counts.min()}")
        if parts and len(counts) != len(parts[0]):
            raise InputError(
                f"{where}, layer '{layer.name}': expected {len(parts[0])} steps as the layers before, got {len(counts)}"
            )
        parts.append(counts.astype(np.int64))
    return np.concatenate(parts, axis=1)


def _ranks(system: System, needed: bool) -> IntArray:
    """Number the links (n_links,) so that every route takes them in ascending order; as they are where it matters not.

    Raises InputError where no such order exists.
    """
    n_links, target, next_link = system.links.target.size, system.links.target, system.next_link
    if not needed:
        return np.arange(n_links)
    a, b = np.nonzero(system.hops >= 2)
    here = next_link[a, b].astype(np.int64)
    pairs = np.unique(here * n_links + next_link[target[here], b])
    follows = nx.DiGraph()
    follows.add_nodes_from(range(n_links))
    follows.add_edges_from(zip((pairs // n_links).tolist(), (pairs % n_links).tolist(), strict=True))
    if not nx.is_directed_acyclic_graph(follows):
        raise InputError(
            f"evaluator.buffer_messages: the routes of system '{system.name}' depend on each other in a circle, so "
            "messages in finite buffers could block each other for good; set evaluator.buffer_messages=0"
        )
    rank = np.empty(n_links, dtype=np.int64)
    rank[list(nx.lexicographical_topological_sort(follows))] = np.arange(n_links)
    return rank
