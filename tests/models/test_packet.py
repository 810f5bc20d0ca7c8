"""The packet-level evaluator: by hand, against plain Python, against the analytic model, and never stuck."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.metrics import COLUMNS
from neuromap_moo.models.packet import PacketEvaluator
from neuromap_moo.models.packet_events import simulate_step, traffic_of
from neuromap_moo.oracles.packet import Delivery, Message, simulate
from neuromap_moo.partition.fixed import partitioner_for

seeds = st.integers(0, 2**32 - 1)
NS = 1e-9
COSTS = {
    "t_dendop_s": 10 * NS,
    "t_synop_s": 3 * NS,
    "t_synmem_s": 2 * NS,
    "message_bits": 1.0,
    "bandwidth_bit_per_s": {"mesh_x": 1 / (2 * NS), "mesh_y": 1 / (4 * NS), "chip": 1 / (50 * NS)}
    | {"inject": 1 / NS, "eject": 1 / (3 * NS)},
    "t_hop_s": {"mesh_x": 7 * NS, "mesh_y": 1 * NS, "chip": 100 * NS, "inject": 5 * NS, "eject": 2 * NS},
    "t_barrier_s": 0.0,
}


def one_to_one(n, activity=1.0, weight_bits=8):
    """Return a network of two layers, neuron i to neuron i."""
    layers = [nm.Layer(name, n, "relu", np.full(n, activity)) for name in "ab"]
    return nm.Network("pairs", layers, [nm.Projection("a", "b", nm.Sparse.from_matrix(np.eye(n)), weight_bits)])


def evaluator(network, system, **options):
    return PacketEvaluator(partitioner_for(network, system), system, **options)


def one(network, system, mapping, **options):
    """Return the metrics of one mapping as plain numbers."""
    metrics = evaluator(network, system, **options).evaluate(stack([mapping]))
    return {key: column[0].item() for key, column in metrics.items()}


# ------------------------------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize("buffer", [0, 1, 8])
@pytest.mark.parametrize(
    ("system", "cores", "hops_ns"),
    [
        (nm.mesh_system(4, 3, **COSTS), (0, 11), 3 * 7 + 2 * 4),  # along y the link takes longer than the hop
        (nm.mesh_system(4, 3, **COSTS), (11, 0), 3 * 7 + 2 * 4),
        (nm.mesh_system(4, 3, 2, **COSTS), (4, 5), 0),  # two cores of one router
        (nm.mesh_system(2, 1, chips_x=2, **COSTS), (0, 3), 7 + 100 + 7),
        (nm.System.from_networkx(nx.star_graph(3), **COSTS), (1, 3), 2 * 7),
    ],
)
def test_one_message_takes_the_hops_of_its_route(system, cores, hops_ns, buffer):
    m = one(one_to_one(1), system, nm.Mapping((1, 1), cores), buffer_messages=buffer)
    # One update, hops in and out, one row of one word, one operation.
    assert m["step_time_s"] == pytest.approx((10 + 5 + hops_ns + 3 + 2 + 3) * NS, rel=1e-12)
    assert m["messages"] == 1
    assert m["latency_ci95_s"] == 0.0


@pytest.mark.parametrize("buffer", [0, 1, 8])
def test_a_saturated_link_takes_the_time_of_the_analytic_model(buffer):
    n = 300
    system = nm.mesh_system(3, 1, **COSTS | {"t_dendop_s": 0.0, "t_synop_s": 0.0, "t_synmem_s": 0.0})
    m = one(one_to_one(n), system, nm.Mapping((1, 1), (0, 2)), buffer_messages=buffer)
    # Eject is the slowest link; all else is the way to it and the last hop.
    assert m["t_link_s"] == pytest.approx(n * 3 * NS, rel=1e-12)
    assert m["step_time_s"] == pytest.approx(((n - 1) * 3 + 5 + 7 + 7 + 3) * NS, rel=1e-9)


def test_two_flows_share_a_link_first_come_first_served():
    # Slices a and c send 10 messages each at once over the link from router 1 to router 2; it passes one in 2 ns.
    G = nx.DiGraph([("a", "b", {"messages": 10}), ("c", "d", {"messages": 10})])
    graph = nm.CoreGraph.from_networkx(G)
    system = nm.mesh_system(3, 1, 2, **COSTS | {"bandwidth_bit_per_s": {"mesh_x": 1 / (2 * NS), "eject": 1e12}})
    m = one(graph, system, nm.Mapping((1, 1, 1, 1), (0, 4, 1, 5)), steps=1)
    assert m["step_time_s"] == pytest.approx((5 + 7 + 19 * 2 + 7 + 2) * NS, rel=1e-9)
    assert m["peak_link_messages"] == 20


def test_back_pressure_stalls_the_updates_of_the_sender():
    # A receiver that reads 100 ns a message holds up a sender that would be done after 10 updates of 10 ns.
    system = nm.mesh_system(2, 1, **COSTS | {"t_synmem_s": 100 * NS, "t_synop_s": 0.0, "t_hop_s": 0.0})
    network, mapping = one_to_one(40), nm.Mapping((1, 1), (0, 1))
    free, tight = (one(network, system, mapping, buffer_messages=b)["step_time_s"] for b in (0, 1))
    # Reading begins when the first message has been updated and has passed the three links; then it never pauses.
    assert free == pytest.approx((10 + 1 + 2 + 3 + 40 * 100) * NS, rel=1e-9)
    assert tight == pytest.approx(free, rel=1e-9)
    slow = replace(system, costs=nm.mesh_system(2, 1, **COSTS | {"t_synmem_s": 100 * NS, "t_dendop_s": 1 * NS}).costs)
    n_slots = 4 * 2  # queues of inject, mesh, eject link and input, two messages each at least
    stalled = one(network, slow, mapping, buffer_messages=1)
    # The last update waits until all messages but those that fit the queues have been read.
    assert stalled["step_time_s"] > (40 - n_slots) * 100 * NS


def test_the_barrier_is_compared_or_added():
    for combine, expected in (("max", 1e-6), ("max_plus_barrier", 1e-6 + 30 * NS)):
        system = nm.mesh_system(4, 3, combine=combine, **COSTS | {"t_barrier_s": 1e-6})
        m = one(one_to_one(1), system, nm.Mapping((1, 1), (0, 1)))
        assert m["step_time_s"] == pytest.approx(expected, rel=1e-12)


def test_routes_that_are_shared_carry_one_copy():
    # One neuron to three slices in a row: 0 -> 1 -> 2 -> 3.
    layers = [nm.Layer("a", 1, "relu", np.ones(1)), nm.Layer("b", 3, "relu", np.ones(3))]
    network = nm.Network("fan", layers, [nm.Projection("a", "b", nm.Dense(1, 3))])
    mapping = nm.Mapping((1, 3), (0, 1, 2, 3))
    for copies, hops, injected in (("per_core", 1 + 2 + 3, 3), ("per_route", 3, 1)):
        system = nm.mesh_system(
            4, 1, copies=copies, **COSTS | {"e_link_j": {"mesh_x": 1.0, "inject": 100.0, "eject": 0.0}}
        )
        for m in (one(network, system, mapping), analytic(network, system, mapping)):
            assert m["message_hops"] == hops
            assert m["messages"] == 3
            assert m["peak_link_messages"] == (3 if copies == "per_core" else 1)
            assert m["e_links_j"] == pytest.approx(hops + 100 * injected)


def analytic(network, system, mapping):
    metrics = nm.MappingProblem(network, system).evaluate_mappings([mapping])
    return {key: column[0].item() for key, column in metrics.items()}


# ------------------------------------------------------------------------------------------------------------- oracle


def random_case(rng, random_network, random_system, random_mapping):
    network, system = random_network(rng), random_system(rng)
    if len(network.layers) > system.usable_cores.size:
        system = nm.mesh_system(2, 2, **COSTS)
    if rng.random() < 0.3:  # many events at the same time
        costs = COSTS | {"bandwidth_bit_per_s": 1 / NS, "t_hop_s": NS, "t_dendop_s": NS * int(rng.integers(2))}
        system = nm.mesh_system(3, 3, 2, **costs)
    system = replace(system, copies=str(rng.choice(["per_core", "per_route"])))
    return network, system, random_mapping(rng, network, system)


def assert_equals_oracle(network, system, mapping, spikes, buffer):
    made = evaluator(network, system, buffer_messages=buffer)
    sending = made.partitioner.sending(mapping.cores_per_layer)
    fabric = made._fabric(np.array(mapping.core_of_slice))
    shares = system.copies == "per_route"
    traffic, _ = traffic_of(sending, spikes, system.cost("t_dendop_s"), shares)
    sent = np.zeros(fabric.service_s.size, dtype=np.int64)
    end_s, reached = simulate_step(fabric, traffic, 1e9, sent)

    messages = [[] for _ in mapping.core_of_slice]
    for b in range(len(messages)):
        for i in range(sending.first[b], sending.first[b + 1]):
            where = range(sending.start[i], sending.start[i + 1])
            parts = [Delivery(int(sending.dest[e]), sending.words[e], sending.synops[e]) for e in where]
            ready_s = sending.updated[i] * system.cost("t_dendop_s")
            for _ in range(spikes[i]):
                if shares and parts:
                    messages[b].append(Message(ready_s, tuple(parts)))
                elif not shares:
                    messages[b] += [Message(ready_s, (part,)) for part in parts]
    updates_s = (sending.updates * system.cost("t_dendop_s")).tolist()
    expected_s, expected = simulate(system, mapping.core_of_slice, messages, updates_s, buffer)
    assert reached == traffic.dest.size == sum(len(m.deliveries) for part in messages for m in part)
    assert sent.tolist() == expected
    assert end_s == pytest.approx(expected_s, rel=1e-12)


@examples(120)
@given(seeds)
def test_a_step_equals_the_oracle(random_network, random_system, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system, mapping = random_case(rng, random_network, random_system, random_mapping)
    spikes = rng.integers(0, 3, network.n_neurons)
    assert_equals_oracle(network, system, mapping, spikes, int(rng.choice([0, 1, 3])))


@examples(60)
@given(seeds)
def test_a_step_equals_the_oracle_on_graphs(random_network, random_graph_system, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), random_graph_system(rng)
    if len(network.layers) > system.usable_cores.size:
        network = random_network(rng, max_layers=1)
    system = replace(system, copies=str(rng.choice(["per_core", "per_route"])))
    spikes = rng.integers(0, 3, network.n_neurons)
    assert_equals_oracle(network, system, random_mapping(rng, network, system), spikes, 0)


@examples(20)
@given(seeds, st.sampled_from([1e3, 1e7, 1e8, 1e10, 1e13]))
def test_the_estimate_of_events_makes_no_difference(random_network, random_system, random_mapping, seed, per_s):
    rng = np.random.default_rng(seed)
    network, system, mapping = random_case(rng, random_network, random_system, random_mapping)
    made = evaluator(network, system, buffer_messages=1)
    fabric = made._fabric(np.array(mapping.core_of_slice))
    spikes = rng.integers(0, 3, network.n_neurons)
    traffic, _ = traffic_of(made.partitioner.sending(mapping.cores_per_layer), spikes, 1e-9, False)
    found = []
    for estimate in (1e9, per_s):
        sent = np.zeros(fabric.service_s.size, dtype=np.int64)
        found.append((*simulate_step(fabric, traffic, estimate, sent), sent.tolist()))
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------- against the analytic model


@examples(60)
@given(seeds)
def test_counts_of_whole_activities_are_those_of_the_analytic_model(
    random_network, random_system, random_mapping, seed
):
    rng = np.random.default_rng(seed)
    network, system, mapping = random_case(rng, random_network, random_system, random_mapping)
    layers = [replace(layer, activity=rng.integers(0, 3, layer.size).astype(float)) for layer in network.layers]
    network = replace(network, layers=tuple(layers))
    exact = analytic(network, system, mapping)
    m = one(network, system, mapping, steps=2, buffer_messages=int(rng.choice([0, 1])))
    assert list(m)[: len(COLUMNS)] == list(COLUMNS)
    for key in COLUMNS:
        if key not in ("bottleneck", "latency_s", "step_time_s", "throughput_hz", "e_static_j", "energy_j"):
            assert m[key] == pytest.approx(exact[key], rel=1e-9, abs=1e-18), key
    assert m["step_time_s"] >= exact["step_time_s"] * (1 - 1e-12)  # the bound holds
    assert m["energy_j"] - m["e_static_j"] == pytest.approx(exact["energy_j"] - exact["e_static_j"], rel=1e-9)
    assert (m["latency_ci95_s"], m["energy_ci95_j"]) == (0.0, 0.0)


@pytest.mark.parametrize("copies", ["per_core", "per_route"])
def test_mean_counts_come_close_to_the_activity(copies):
    network = nm.sparse_mlp([60, 90, 40], 0.2, activity=0.3, seed=2)
    system = nm.mesh_system(4, 4, synapse_words=400, copies=copies)
    problem = nm.MappingProblem(network, system)
    mapping = nm.baselines(problem)["vendor_default"]
    exact = analytic(network, system, mapping)
    m = one(network, system, mapping, steps=4000)
    for key in ("messages", "message_hops", "peak_link_messages", "e_synops_j", "e_synmem_reads_j", "e_links_j"):
        assert m[key] == pytest.approx(exact[key], rel=0.02), key
    assert m["e_dendops_j"] == pytest.approx(exact["e_dendops_j"], rel=1e-12)


@pytest.mark.slow
def test_the_interval_covers_the_mean_of_many_steps_about_as_often_as_it_says():
    network = nm.sparse_mlp([60, 90, 40], 0.2, activity=0.3, seed=2)
    system = nm.mesh_system(4, 4, synapse_words=400, t_barrier_s=0.0)
    mapping = nm.baselines(nm.MappingProblem(network, system))["vendor_default"]
    truth = one(network, system, mapping, steps=5000, seed=99)
    hits = 0
    for seed in range(200):
        m = one(network, system, mapping, steps=8, seed=seed)
        hits += abs(m["latency_s"] - truth["latency_s"]) <= m["latency_ci95_s"]
    assert 180 <= hits <= 199


# ------------------------------------------------------------------------------------------------------- never stuck


@pytest.mark.parametrize("copies", ["per_core", "per_route"])
@pytest.mark.parametrize(
    "system",
    [
        nm.mesh_system(3, 3, 2, **COSTS),
        nm.mesh_system(2, 2, 2, chips_x=2, chips_y=2, **COSTS),
        nm.load_system("tree", {"topology": {"branching": 2, "depth": 3, "cores_per_router": 2, "cores_at": "all"}}),
    ],
    ids=["mesh", "chips", "tree"],
)
@pytest.mark.default_cases(2)
def test_smallest_buffers_pass_every_message_in_a_thousand_placements(system, copies):
    network = nm.sparse_mlp([24, 30, 24], 0.5, activity=1.0, seed=1)
    system = replace(system, copies=copies)
    system = replace(system, costs=system.costs | {"t_barrier_s.chips_1": nm.Constant(0.0, "s", "none", "assumed")})
    made = evaluator(network, system, steps=1, buffer_messages=1)
    rng = np.random.default_rng(0)
    mappings = [nm.Mapping((5, 6, 5), rng.permutation(system.usable_cores)[:16]) for _ in range(1000)]
    metrics = made.evaluate(stack(mappings))  # raises where messages are stuck
    fan_out = np.diff(made.partitioner.sending((5, 6, 5)).start)
    assert (metrics["messages"] == (made.spikes[0] * fan_out).sum()).all()
    assert np.ptp(metrics["step_time_s"]) > 0


def test_finite_buffers_are_refused_where_routes_go_round():
    torus = nm.load_system("torus", {"topology": {"width": 5, "height": 5}})
    network = one_to_one(8)
    with pytest.raises(nm.InputError, match=r"'torus' depend on each other in a circle.*buffer_messages=0"):
        evaluator(network, torus)
    assert one(network, torus, nm.Mapping((1, 1), (0, 5)), buffer_messages=0)["messages"] == 8


# ------------------------------------------------------------------------------------------------------------- its use


def test_metrics_depend_on_nothing_but_the_mapping_and_the_seed():
    network = nm.sparse_mlp([60, 90, 40], 0.2, activity=0.3, seed=2)
    system = nm.mesh_system(4, 4, synapse_words=400)
    problem = nm.MappingProblem(network, system, evaluator={"name": "packet", "steps": 3})
    rng = np.random.default_rng(0)
    mappings = list(nm.baselines(problem).values())
    together = problem.evaluate_mappings(mappings)
    for i in rng.permutation(len(mappings)):
        alone = problem.evaluate_mappings([mappings[i]])
        assert all(alone[key][0] == together[key][i] for key in together)
    again = evaluator(network, system, steps=3).evaluate(stack(mappings))
    other = evaluator(network, system, steps=3, seed=1).evaluate(stack(mappings))
    np.testing.assert_array_equal(again["latency_s"], together["latency_s"])
    assert (other["latency_s"] != together["latency_s"]).any()


@pytest.mark.slow
def test_a_search_on_the_packet_model_finds_a_front():
    network = nm.sparse_mlp([60, 90, 40], 0.2, activity=0.3, seed=2)
    system = nm.mesh_system(4, 4, synapse_words=400)
    problem = nm.MappingProblem(network, system, evaluator={"name": "packet", "steps": 2})
    first, second = (nm.search(problem, evaluations=150, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.front.objectives, second.front.objectives)
    assert "latency_ci95_s" in first.front.table
    start = nm.MappingProblem(network, system, evaluator=problem.evaluator)
    base = start.evaluate_mappings(list(nm.baselines(start).values()))
    assert first.front.objectives[:, 0].min() <= base["latency_s"].min()


@pytest.mark.parametrize(("evaluator_name", "copies"), [("packet", "per_core"), ("analytic", "per_route")])
def test_annealing_on_the_analytic_model_proposes_and_the_evaluator_judges(evaluator_name, copies):
    network = nm.sparse_mlp([60, 90, 40], 0.2, activity=0.3, seed=2)
    system = nm.mesh_system(4, 4, synapse_words=400, copies=copies)
    problem = nm.MappingProblem(network, system, evaluator=evaluator_name)
    run = nm.search(problem, evaluations=200, seed=1)
    assert run.history_of("moves")[-1] > 0
    metrics = problem.evaluate_mappings(run.front.mappings)
    np.testing.assert_array_equal(metrics["latency_s"], run.front.table["latency_s"])


def test_spikes_are_replayed(tmp_path):
    network = one_to_one(4)
    spikes = {"a": np.array([[1, 0, 0, 0], [1, 1, 1, 0]]), "b": np.zeros((2, 4), dtype=bool)}
    mapping = nm.Mapping((1, 1), (0, 1))
    system = nm.mesh_system(2, 1, **COSTS)
    given = one(network, system, mapping, spikes=spikes)
    assert given["messages"] == 2.0
    np.savez(tmp_path / "spikes.npz", **spikes)
    made = evaluator(network, system, spikes=tmp_path / "spikes.npz")
    assert made.evaluate(stack([mapping]))["messages"][0] == 2.0
    assert made.name.startswith("packet(spikes=")
    assert made.name == evaluator(network, system, spikes=spikes).name
    silent = {"a": np.zeros((1, 4), dtype=int), "b": np.zeros((1, 4), dtype=int)}
    m = one(network, system, mapping, spikes=silent)
    assert (m["messages"], m["step_time_s"], m["latency_ci95_s"]) == (0.0, pytest.approx(40 * NS), np.inf)


@pytest.mark.parametrize(
    ("spikes", "message"),
    [
        ({"a": np.ones((2, 4), int)}, "missing layer 'b'; expected counts"),
        ({"a": np.ones((2, 4), int), "c": np.ones((2, 4), int)}, "no layer 'c'"),
        ({"a": np.ones((2, 3), int), "b": np.ones((2, 4), int)}, r"layer 'a'.*shape \(steps, 4\), got int64 \(2, 3\)"),
        ({"a": np.ones((2, 4)), "b": np.ones((2, 4), int)}, "layer 'a'.*whole counts.*got float64"),
        ({"a": -np.ones((2, 4), int), "b": np.ones((2, 4), int)}, "layer 'a'.*expected counts >= 0, got -1"),
        ({"a": np.ones((2, 4), int), "b": np.ones((3, 4), int)}, "layer 'b'.*expected 2 steps.*got 3"),
        ("nowhere.npz", r"evaluator\.spikes 'nowhere\.npz'.*No such file"),
    ],
)
def test_wrong_spikes_are_refused(spikes, message):
    with pytest.raises(nm.InputError, match=message):
        evaluator(one_to_one(4), nm.mesh_system(2, 1), spikes=spikes)


def test_core_graphs_have_no_spikes_and_share_no_routes():
    graph = nm.CoreGraph.from_networkx(nx.DiGraph([("a", "b", {"messages": 2.5})]))
    with pytest.raises(nm.InputError, match=r"evaluator\.spikes: a core graph has no neurons"):
        evaluator(graph, nm.mesh_system(2, 1), spikes={})
    with pytest.raises(nm.InputError, match="copies: per_route needs to know what each neuron sends"):
        nm.MappingProblem(graph, nm.mesh_system(2, 1, copies="per_route"))
    m = one(graph, nm.mesh_system(2, 1), nm.Mapping((1, 1), (0, 1)), steps=4000)
    assert m["messages"] == pytest.approx(2.5, rel=0.02)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("packets", "evaluator: no 'packets'; did you mean 'packet'"),
        ({"name": "packet", "step": 3}, r"evaluator\.step: unknown key of evaluator 'packet'; did you mean 'steps'"),
        ({"name": "analytic", "steps": 3}, r"evaluator\.steps: unknown key of evaluator 'analytic'"),
        ({"name": "packet", "steps": 0}, r"evaluator\.steps: .*got 0"),
        ({"name": "packet", "buffer_messages": -1}, r"evaluator\.buffer_messages: .*got -1"),
        ({"name": "packet", "seed": 0.5}, r"evaluator\.seed: .*got 0\.5"),
    ],
)
def test_wrong_evaluators_are_refused(given, message):
    with pytest.raises(nm.InputError, match=message):
        nm.MappingProblem(one_to_one(4), nm.mesh_system(2, 1), evaluator=given)
