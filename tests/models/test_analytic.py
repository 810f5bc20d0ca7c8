import itertools
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from helpers import FREE, core_graph, examples
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models import analytic
from neuromap_moo.models.analytic import AnalyticEvaluator, link_loads
from neuromap_moo.models.metrics import BOTTLENECKS, COLUMNS, ENERGY_TERMS, TIME_TERMS, check_objectives, minimised
from neuromap_moo.oracles.analytic import reference_metrics
from neuromap_moo.partition.fixed import partitioner_for

seeds = st.integers(0, 2**32 - 1)


def free(width, height, cores_per_router=1, **changes):
    return nm.mesh_system(width, height, cores_per_router, **(FREE | changes))


def evaluate(network, system, *mappings):
    return AnalyticEvaluator(partitioner_for(network, system), system).evaluate(stack(mappings))


def one(network, system, mapping):
    """Return the metrics of one mapping as plain numbers."""
    return {key: column[0].item() for key, column in evaluate(network, system, mapping).items()}


def ones(*cores):
    return nm.Mapping((1,) * len(cores), cores)


# ---------------------------------------------------------------------------------------------------- oracle


def assert_equals_oracle(metrics, network, system, mappings):
    assert list(metrics) == list(COLUMNS)
    for i, mapping in enumerate(mappings):
        expected = reference_metrics(network, system, mapping)
        assert set(expected) == set(COLUMNS)
        for key, value in expected.items():
            if key == "bottleneck":
                # of equal terms either may be named
                named = metrics[key][i]
                assert expected[f"t_{named}_s"] == pytest.approx(expected[f"t_{value}_s"], rel=1e-9)
            else:
                assert metrics[key][i] == pytest.approx(value, rel=1e-9, abs=0), (key, mapping)


@examples(250)
@given(seeds)
def test_analytic_equals_the_oracle(random_network, random_system, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), random_system(rng)
    if len(network.layers) > system.usable_cores.size:
        system = nm.mesh_system(2, 2, masked_cores=[], combine=system.combine)
    system = replace(system, copies=str(rng.choice(["per_core", "per_route"])))
    mappings = [random_mapping(rng, network, system) for _ in range(3)]
    assert_equals_oracle(evaluate(network, system, *mappings), network, system, mappings)


@examples(150)
@given(seeds)
def test_analytic_equals_the_oracle_on_random_graphs_of_routers(
    random_network, random_graph_system, random_mapping, seed
):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), random_graph_system(rng)
    if len(network.layers) > system.usable_cores.size:
        network = random_network(rng, max_layers=1)
    system = replace(system, copies=str(rng.choice(["per_core", "per_route"])))
    mappings = [random_mapping(rng, network, system) for _ in range(3)]
    assert_equals_oracle(evaluate(network, system, *mappings), network, system, mappings)


def test_analytic_equals_the_oracle_on_torus_tree_and_regular_graph(random_mapping, graph_system):
    rng = np.random.default_rng(0)
    network = nm.sparse_mlp([30, 40, 20], 0.3, steps_per_inference=6, seed=4)
    mappings = [random_mapping(rng, network, graph_system) for _ in range(8)]
    assert_equals_oracle(evaluate(network, graph_system, *mappings), network, graph_system, mappings)


@pytest.mark.parametrize("combine", ["max", "max_plus_barrier"])
@pytest.mark.parametrize("shape", [(4, 3, 1, 1, 1), (2, 2, 3, 2, 2), (1, 1, 2, 3, 3), (3, 1, 2, 1, 4)])
def test_analytic_equals_the_oracle_on_an_mlp(random_mapping, shape, combine):
    width, height, cores, chips_x, chips_y = shape
    rng = np.random.default_rng(sum(shape))
    system = nm.mesh_system(width, height, cores, chips_x=chips_x, chips_y=chips_y, masked_cores=[1], combine=combine)
    network = nm.sparse_mlp([30, 40, 20], 0.3, steps_per_inference=6, seed=4)
    mappings = [random_mapping(rng, network, system) for _ in range(8)]
    assert_equals_oracle(evaluate(network, system, *mappings), network, system, mappings)


@pytest.mark.parametrize("name", ["loihi2", "loihi2_152", "loihi1", "kapoho_point"])
def test_analytic_equals_the_oracle_on_the_presets(random_mapping, name):
    system, network = nm.load_system(name), nm.sparse_mlp([50, 60, 40], 0.2, seed=1)
    rng = np.random.default_rng(0)
    mappings = [random_mapping(rng, network, system) for _ in range(2)]
    assert_equals_oracle(evaluate(network, system, *mappings), network, system, mappings)


@given(seeds)
def test_analytic_equals_the_oracle_on_core_graphs(random_system, seed):
    rng = np.random.default_rng(seed)
    system = random_system(rng)
    n = int(rng.integers(1, min(9, system.usable_cores.size) + 1))
    G = nx.gnp_random_graph(n, 0.4, seed=int(rng.integers(1000)), directed=bool(rng.integers(2)))
    for _, attributes in G.nodes(data=True):
        attributes.update(dendops=rng.random(), synops=10 * rng.random(), synmem_reads=3 * rng.random())
    for _, _, attributes in G.edges(data=True):
        attributes["messages"] = rng.random()
    graph = nm.CoreGraph.from_networkx(G)
    mappings = [ones(*rng.permutation(system.usable_cores)[:n]) for _ in range(3)]
    assert_equals_oracle(evaluate(graph, system, *mappings), graph, system, mappings)


def test_analytic_equals_the_oracle_for_every_placement_of_three_nodes():
    graph = core_graph([(0, 1, 1.0), (1, 2, 2.5), (2, 0, 0.25), (0, 2, 4.0), (1, 1, 3.0)])
    system = nm.mesh_system(2, 1, 1, chips_x=1, chips_y=3, masked_cores=[4])
    mappings = [ones(*cores) for cores in itertools.permutations(system.usable_cores.tolist(), 3)]
    assert len(mappings) == 5 * 4 * 3
    assert_equals_oracle(evaluate(graph, system, *mappings), graph, system, mappings)


def test_columns_have_their_types(chain):
    metrics = evaluate(chain, nm.mesh_system(2, 2), nm.Mapping((1, 1, 1), (0, 1, 2)), nm.Mapping((1, 2, 1), range(4)))
    for key, column in metrics.items():
        assert column.shape == (2,)
        if key == "bottleneck":
            assert set(column.tolist()) <= set(BOTTLENECKS)
        else:
            assert column.dtype == (np.int64 if key in ("cores_used", "chips_used") else np.float64), key


# -------------------------------------------------------------------------------------------- one term binds at a time

#: a on one core, b on the other: 6 messages from a to b, 1 back
PAIR = {"a": {"dendops": 3, "synops": 5, "synmem_reads": 7}, "b": {"dendops": 4, "synops": 2, "synmem_reads": 1}}
BOTH_WAYS = [("a", "b", 6.0), ("b", "a", 1.0)]


@pytest.mark.parametrize(
    ("changes", "bottleneck", "step"),
    [
        # the largest load per core times its time
        ({"t_dendop_s": 2.0}, "dendops", 4 * 2.0),
        ({"t_synop_s": 0.5}, "synops", 5 * 0.5),
        ({"t_synmem_s": 3.0}, "synmem_reads", 7 * 3.0),
        # 6 messages of 8 bits over one mesh_x link of 4 bit/s
        ({"message_bits": 8, "bandwidth_bit_per_s": {"mesh_x": 4.0}}, "link", 6 * 8 / 4),
        # a sends 6, b receives 6
        ({"bandwidth_bit_per_s": {"inject": 3.0}}, "link", 6 / 3),
        ({"bandwidth_bit_per_s": {"eject": 1.5}}, "link", 6 / 1.5),
        ({"t_barrier_s": 0.25}, "barrier", 0.25),
        # the largest of several: max(4 * 2, 5 * 1, 7 * 1, 6 / 1, 1)
        ({"t_dendop_s": 2, "t_synop_s": 1, "t_synmem_s": 1, "t_barrier_s": 1}, "dendops", 8.0),
        ({"t_dendop_s": 1, "t_synop_s": 1, "t_synmem_s": 0.5, "t_barrier_s": 5.5}, "barrier", 5.5),
    ],
)
def test_step_time_by_hand(changes, bottleneck, step):
    bandwidth = {"bandwidth_bit_per_s": dict.fromkeys(("mesh_x", "mesh_y", "chip", "inject", "eject"), 1e30)}
    if "bandwidth_bit_per_s" in changes:
        changes = changes | {"bandwidth_bit_per_s": bandwidth["bandwidth_bit_per_s"] | changes["bandwidth_bit_per_s"]}
    m = one(core_graph(BOTH_WAYS, PAIR), free(2, 1, **changes), ones(0, 1))
    assert m["bottleneck"] == bottleneck
    assert m["step_time_s"] == pytest.approx(step, rel=1e-12)
    assert m[f"t_{bottleneck}_s"] == pytest.approx(step, rel=1e-12)
    # T = D = 1
    assert m["latency_s"] == pytest.approx(step, rel=1e-12)
    assert m["throughput_hz"] == pytest.approx(1 / step, rel=1e-12)


def test_vertical_links_use_their_own_bandwidth():
    bandwidth = {"mesh_x": 1e30, "mesh_y": 2.0, "chip": 1e30, "inject": 1e30, "eject": 1e30}
    m = one(core_graph(BOTH_WAYS), free(1, 2, bandwidth_bit_per_s=bandwidth), ones(0, 1))
    assert m["t_link_s"] == pytest.approx(6 / 2)


def test_link_time_is_of_the_busiest_link_not_of_the_sum():
    # 0 -> 2 and 1 -> 2 on a row of three routers: link 0-1 carries 4, link 1-2 carries 4 + 3
    graph = core_graph([(0, 2, 4.0), (1, 2, 3.0)])
    bandwidth = {"mesh_x": 1.0, "inject": 1e30, "eject": 1e30}
    m = one(graph, free(3, 1, bandwidth_bit_per_s=bandwidth), ones(0, 1, 2))
    assert m["t_link_s"] == pytest.approx(7.0)
    assert m["peak_link_messages"] == pytest.approx(7.0)
    # 4 messages go two hops, 3 one
    assert m["message_hops"] == pytest.approx(4 * 2 + 3 * 1)


def test_eject_link_adds_up_what_a_core_receives_and_inject_what_it_sends():
    graph = core_graph([(0, 2, 4.0), (1, 2, 3.0), (0, 1, 2.0)])
    into = one(graph, free(3, 1, bandwidth_bit_per_s={"mesh_x": 1e30, "inject": 1e30, "eject": 1.0}), ones(0, 1, 2))
    assert into["t_link_s"] == pytest.approx(4 + 3)
    out = one(graph, free(3, 1, bandwidth_bit_per_s={"mesh_x": 1e30, "inject": 1.0, "eject": 1e30}), ones(0, 1, 2))
    assert out["t_link_s"] == pytest.approx(4 + 2)


def test_cores_of_one_router_share_no_mesh_link():
    m = one(core_graph(BOTH_WAYS, PAIR), free(2, 1, 2, e_link_j={"inject": 2.0, "eject": 3.0}), ones(0, 1))
    assert m["message_hops"] == m["peak_link_messages"] == m["inter_chip_messages"] == 0.0
    assert m["messages"] == 7.0
    # 7 messages leave one core and enter another
    assert m["e_links_j"] == pytest.approx(7 * (2.0 + 3.0))


def test_message_from_a_slice_to_itself_takes_inject_and_eject():
    m = one(core_graph([(0, 0, 2.0)]), free(2, 1, e_link_j=1.0, bandwidth_bit_per_s={"inject": 0.5}), ones(1))
    assert m["t_link_s"] == pytest.approx(2 / 0.5)
    assert m["e_links_j"] == pytest.approx(2 * (1 + 1))
    assert m["message_hops"] == 0.0


@pytest.mark.parametrize(("combine", "step"), [("max", 8.0), ("max_plus_barrier", 8.0 + 3.0)])
def test_barrier_is_compared_or_added(combine, step):
    system = free(2, 1, t_dendop_s=2.0, t_barrier_s=3.0, combine=combine)
    m = one(core_graph(BOTH_WAYS, PAIR), system, ones(0, 1))
    assert m["step_time_s"] == pytest.approx(step)
    assert m["bottleneck"] == "dendops"
    assert m["t_barrier_s"] == 3.0


def test_steps_and_depth_by_hand(chain):
    # D = 2, T = 2: (2 + 2 - 1) steps; hidden has 3 neurons
    m = one(chain, free(2, 2, t_dendop_s=2.0), nm.Mapping((1, 1, 1), (0, 1, 2)))
    assert m["step_time_s"] == pytest.approx(6.0)
    assert m["latency_s"] == pytest.approx(3 * 6.0)
    assert m["throughput_hz"] == pytest.approx(1 / (2 * 6.0))


def test_every_energy_term_by_hand(chain):
    # input 0.5 + 0.25 -> hidden: 0.5 * 2 + 0.25 = 1.25 SynOps, 0.75 words read, 0.75 messages
    # hidden 0.125 + 0 + 1 -> output: 1.125 * 2 = 2.25 SynOps, 1.125 words read, 1.125 messages; 7 DendOps
    system = free(
        2,
        2,
        t_barrier_s=10.0,
        p_chip_w=1.0,
        p_core_w=0.5,
        e_dendop_j=2.0,
        e_synop_j=3.0,
        e_synmem_j=5.0,
        e_message_j=7.0,
        e_link_j={"mesh_x": 11.0, "mesh_y": 13.0, "chip": 1e9, "inject": 17.0, "eject": 19.0},
    )
    # input on router 0, hidden on 1 (one mesh_x hop), output on 2 (one mesh_x and one mesh_y hop)
    m = one(chain, system, nm.Mapping((1, 1, 1), (0, 1, 2)))
    expected = {
        "e_static_j": 2 * (1.0 * 1 + 0.5 * 3) * 10.0,
        "e_dendops_j": 2 * 2.0 * 7,
        "e_synops_j": 2 * 3.0 * (1.25 + 2.25),
        "e_synmem_reads_j": 2 * 5.0 * (0.75 + 1.125),
        "e_messages_j": 2 * 7.0 * (0.75 + 1.125),
        "e_links_j": 2 * (0.75 * 11.0 + 1.125 * (11.0 + 13.0) + 1.875 * (17.0 + 19.0)),
    }
    for key, value in expected.items():
        assert m[key] == pytest.approx(value, rel=1e-12), key
    assert m["energy_j"] == pytest.approx(sum(expected.values()), rel=1e-12)
    assert m["message_hops"] == pytest.approx(0.75 * 1 + 1.125 * 2)
    assert m["cores_used"] == 3
    assert m["chips_used"] == 1


@given(seeds)
def test_terms_and_totals_belong_together(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), nm.mesh_system(3, 2, chips_x=2, chips_y=2, combine="max")
    mappings = [random_mapping(rng, network, system) for _ in range(4)]
    m = evaluate(network, system, *mappings)
    np.testing.assert_allclose(m["energy_j"], sum(m[key] for key in ENERGY_TERMS), rtol=1e-12)
    np.testing.assert_array_equal(m["step_time_s"], np.max([m[key] for key in TIME_TERMS], axis=0))
    for i, name in enumerate(m["bottleneck"]):
        assert m[f"t_{name}_s"][i] == m["step_time_s"][i]
    steps = network.steps_per_inference
    np.testing.assert_allclose(m["throughput_hz"], 1 / (steps * m["step_time_s"]), rtol=1e-12)
    np.testing.assert_allclose(m["latency_s"], (steps + network.depth - 1) * m["step_time_s"], rtol=1e-12)
    assert m["cores_used"].tolist() == [mapping.cores_used for mapping in mappings]


# -------------------------------------------------------------------------------------------------------- two chips


def two_chips(**changes):
    """Two chips side by side, each 2 x 1 routers: routers 0 1 | 2 3."""
    return free(2, 1, chips_x=2, **changes)


def test_two_chips_by_hand():
    system = two_chips(
        t_barrier_s={"chips_1": 1.0, "chips_2": 4.0, "chips_8": 8.0, "chips_256": 8.0, "chips_768": 8.0},
        p_chip_w=10.0,
        p_core_w=1.0,
        e_link_j={"mesh_x": 1.0, "chip": 100.0},
    )
    graph = core_graph([("a", "b", 6.0), ("b", "a", 1.0), ("a", "c", 2.0)])
    # a on router 0, b on router 2 of the other chip, c on router 1: a - c on chip 0
    m = one(graph, system, ones(0, 2, 1))
    assert m["chips_used"] == 2
    assert m["cores_used"] == 3
    assert m["bottleneck"] == "barrier"
    assert m["step_time_s"] == 4.0
    assert m["e_static_j"] == pytest.approx((10.0 * 2 + 1.0 * 3) * 4.0)
    # link 0 -> 1 carries 6 + 2, 1 -> 2 crosses chips with 6, and 1 each on the way back
    assert m["e_links_j"] == pytest.approx((8 + 1) * 1.0 + (6 + 1) * 100.0)
    assert m["inter_chip_messages"] == pytest.approx(6 + 1)
    assert m["message_hops"] == pytest.approx(6 * 2 + 1 * 2 + 2 * 1)
    assert m["peak_link_messages"] == pytest.approx(8.0)


def test_all_on_one_chip_of_two_pays_for_one():
    system = two_chips(t_barrier_s={"chips_1": 1.0, "chips_2": 4.0}, p_chip_w=10.0)
    for cores in ((0, 1), (3, 2)):
        m = one(core_graph(BOTH_WAYS), system, ones(*cores))
        assert (m["chips_used"], m["inter_chip_messages"], m["step_time_s"]) == (1, 0.0, 1.0)
        assert m["e_static_j"] == pytest.approx(10.0)


def test_border_link_has_its_own_bandwidth():
    bandwidth = {"mesh_x": 1e30, "mesh_y": 1e30, "chip": 3.0, "inject": 1e30, "eject": 1e30}
    # 6 messages cross the border; a -> b within a chip uses no border link
    system = two_chips(bandwidth_bit_per_s=bandwidth)
    assert one(core_graph(BOTH_WAYS), system, ones(1, 2))["t_link_s"] == pytest.approx(2.0)
    assert one(core_graph(BOTH_WAYS), system, ones(0, 1))["t_link_s"] == pytest.approx(0.0, abs=1e-20)


def test_chips_that_are_only_passed_through_are_not_used():
    # three chips in a row of one router each: a on the first, b on the last
    system = free(1, 1, chips_x=3, p_chip_w=1.0, t_barrier_s={"chips_1": 1.0, "chips_2": 2.0})
    m = one(core_graph([("a", "b", 5.0)]), system, ones(0, 2))
    assert m["chips_used"] == 2
    assert m["step_time_s"] == pytest.approx(2.0)
    assert m["e_static_j"] == pytest.approx(2 * 2.0)
    assert m["inter_chip_messages"] == 5.0
    assert m["message_hops"] == pytest.approx(5.0 * 2)


# -------------------------------------------------------------------------------------------------------- extremes


def test_graph_without_any_messages():
    graph = core_graph([], {"a": {"dendops": 2}, "b": {"synops": 3}})
    m = one(graph, free(2, 1, chips_x=2, t_dendop_s=1.0, e_synop_j=1.0), ones(0, 3))
    for key in ("t_link_s", "messages", "message_hops", "peak_link_messages", "inter_chip_messages", "e_links_j"):
        assert m[key] == 0.0, key
    assert m["e_synops_j"] == 3.0
    assert m["step_time_s"] == 2.0
    assert m["bottleneck"] == "dendops"
    assert m["chips_used"] == 2


def test_network_without_projections():
    network = nm.Network("alone", (nm.Layer("a", 5, "lif", np.ones(5)),), ())
    m = one(network, free(2, 1, t_dendop_s=1.0), nm.Mapping((2,), (0, 1)))
    assert (m["step_time_s"], m["messages"], m["latency_s"]) == (3.0, 0.0, 3.0)


@pytest.mark.filterwarnings("error")
def test_nothing_takes_time_where_all_costs_are_zero():
    m = one(core_graph([], {"a": {"dendops": 2}}), free(1, 1), ones(0))
    assert m["step_time_s"] == m["latency_s"] == m["energy_j"] == 0.0
    assert m["throughput_hz"] == np.inf
    assert m["bottleneck"] == "dendops"  # the first of equals


# -------------------------------------------------------------------------------------------------------- link loads


def loads_by_link(graph, system, mapping):
    loads = link_loads(partitioner_for(graph, system), system, mapping).between
    assert loads.shape == system.links.source.shape
    ends = zip(system.links.source.tolist(), system.links.target.tolist(), loads.tolist(), strict=True)
    return {(a, b): m for a, b, m in ends if m > 0}


def test_link_loads_by_hand():
    # routers 0 1 2
    #         3 4 5
    graph = core_graph([("a", "b", 2.0), ("b", "c", 0.5), ("c", "a", 4.0), ("a", "c", 1.0)])
    # a on 0, b on 5, c on 4; a -> b: 0 1 2 5; b -> c: 5 4; c -> a: 4 3 0; a -> c: 0 1 4
    assert loads_by_link(graph, nm.mesh_system(3, 2), ones(0, 5, 4)) == pytest.approx(
        {(0, 1): 3.0, (1, 2): 2.0, (2, 5): 2.0, (5, 4): 0.5, (4, 3): 4.0, (3, 0): 4.0, (1, 4): 1.0}
    )


def test_link_loads_of_a_network_by_hand(chain):
    # hidden in slices {0 1} and {2}: input sends 0.75 and 0.5, these send 0.125 and 1
    loads = loads_by_link(chain, nm.mesh_system(4, 1), nm.Mapping((1, 2, 1), (0, 1, 2, 3)))
    assert loads == pytest.approx({(0, 1): 0.75 + 0.5, (1, 2): 0.5 + 0.125, (2, 3): 0.125 + 1.0})


@given(seeds)
def test_link_loads_sum_to_the_hops_and_peak_of_the_metrics(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), nm.mesh_system(3, 2, chips_x=2, chips_y=2, masked_cores=[4])
    mapping = random_mapping(rng, network, system)
    loads = link_loads(partitioner_for(network, system), system, mapping).between
    m = one(network, system, mapping)
    assert (loads >= 0).all()
    assert loads.sum() == pytest.approx(m["message_hops"], rel=1e-12, abs=1e-12)
    assert loads.max() == pytest.approx(m["peak_link_messages"], rel=1e-12, abs=1e-12)


def test_links_that_carry_nothing_have_exactly_zero():
    rng = np.random.default_rng(0)
    graph = core_graph([(a, b, rng.random()) for a, b in itertools.permutations(range(5), 2)])
    system = nm.mesh_system(5, 5)
    loads = link_loads(partitioner_for(graph, system), system, ones(0, 1, 2, 3, 4)).between  # all in the first row
    first_row = np.isin(system.links.source, range(5)) & np.isin(system.links.target, range(5))
    assert (loads[first_row] > 0).all()
    assert (loads[~first_row] == 0).all()


# ------------------------------------------------------------------------------------------------------- invariances


def moved(system, mapping, transform):
    """Return the mapping with every router (x, y) moved to transform(x, y), cores of a router kept."""
    at = {tuple(xy): router for router, xy in enumerate(system.router_xy.tolist())}
    k = system.topology.cores_per_router
    cores = []
    for core in mapping.core_of_slice:
        x, y = system.router_xy[core // k].tolist()
        cores.append(at[transform(x, y)] * k + core % k)
    return nm.Mapping(mapping.cores_per_layer, cores)


@given(seeds)
def test_mirroring_and_half_turns_change_neither_hops_nor_peak(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    system = nm.mesh_system(4, 3, 2, chips_x=int(rng.integers(1, 3)), chips_y=int(rng.integers(1, 3)))
    right, bottom = system.router_xy.max(axis=0).tolist()
    network = random_network(rng)
    mapping = random_mapping(rng, network, system)
    others = [
        moved(system, mapping, lambda x, y: (right - x, y)),
        moved(system, mapping, lambda x, y: (x, bottom - y)),
        moved(system, mapping, lambda x, y: (right - x, bottom - y)),
    ]
    m = evaluate(network, system, mapping, *others)
    for key in ("message_hops", "peak_link_messages", "latency_s", "energy_j", "inter_chip_messages"):
        np.testing.assert_allclose(m[key], m[key][0], rtol=1e-12, atol=1e-15)


@given(seeds)
def test_cores_of_one_router_are_interchangeable(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    system, network = nm.mesh_system(3, 2, 4), random_network(rng)
    mapping = random_mapping(rng, network, system)
    shuffled = np.concatenate([router * 4 + rng.permutation(4) for router in range(6)])
    other = nm.Mapping(mapping.cores_per_layer, shuffled[list(mapping.core_of_slice)])
    m = evaluate(network, system, mapping, other)
    for key, column in m.items():
        assert column[0] == column[1], key


def test_transposing_the_mesh_may_change_the_peak():
    # Routers of a 2 x 2 mesh 0 1 / 2 3. 0 -> 3 goes by 1; 1 -> 3 shares its link 1 -> 3: peak 2.
    # Transposed 1 and 2 change places: 0 -> 3 still goes by 1, 2 -> 3 on another link: peak 1.
    graph, system = core_graph([("a", "c", 1.0), ("b", "c", 1.0)]), nm.mesh_system(2, 2)
    m = evaluate(graph, system, ones(0, 1, 3), ones(0, 2, 3))
    assert m["peak_link_messages"].tolist() == [2.0, 1.0]
    assert m["message_hops"].tolist() == [3.0, 3.0]


# -------------------------------------------------------------------------------------------------------- objectives


def test_objectives_become_a_tuple():
    assert check_objectives(["latency_s", "energy_j"]) == ("latency_s", "energy_j")
    assert check_objectives("throughput_hz") == ("throughput_hz",)
    numeric = [name for name, unit in COLUMNS.items() if unit is not None]
    assert check_objectives(numeric) == tuple(numeric)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ([], "objectives: expected at least one metric column, got none"),
        (["latency"], "objectives: 'latency' is no numeric metric column; did you mean 'latency_s'"),
        (["energy_j", "energie_j"], "'energie_j' is no numeric metric column; did you mean 'energy_j'"),
        (["bottleneck"], "objectives: 'bottleneck' is no numeric metric column"),
        (["xyz"], "'xyz' is no numeric metric column; choose one of: .*latency_s"),
        ([3], "objectives: '3' is no numeric metric column"),
        (["energy_j", "energy_j"], r"objectives: expected different columns, got \['energy_j', 'energy_j'\]"),
        (3, "objectives: "),
    ],
)
def test_wrong_objectives_are_refused(objectives, message):
    with pytest.raises(nm.InputError, match=message):
        check_objectives(objectives)


def test_only_the_throughput_changes_its_sign():
    metrics = {"latency_s": np.array([1.0, 2.0]), "throughput_hz": np.array([5.0, 4.0]), "cores_used": np.array([3, 7])}
    F = minimised(metrics, ("cores_used", "throughput_hz", "latency_s"))
    assert F.tolist() == [[3.0, -5.0, 1.0], [7.0, -4.0, 2.0]]
    assert F.dtype == np.float64
    assert metrics["throughput_hz"].tolist() == [5.0, 4.0]


def test_column_names_are_the_documented_ones():
    for name, unit in COLUMNS.items():
        ending = {"s": "_s", "J": "_j", "Hz": "_hz"}.get(unit, "")
        assert name.endswith(ending)
    assert set(TIME_TERMS) | set(ENERGY_TERMS) <= set(COLUMNS)
    assert analytic.AnalyticEvaluator.name == "analytic"
