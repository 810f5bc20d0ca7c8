import itertools
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest

import neuromap_moo as nm
from neuromap_moo.heuristics import (
    N_LAYER_ORDERS,
    balanced_partitions,
    constructive,
    equal_split,
    slowest_slice_s,
    vendor_orders,
)
from neuromap_moo.partition import partitioner_for

NAMES = ["vendor_default", "minimum_packed", "equal_split", "strided", "serpentine"]


def make(network, system):
    partitioner = partitioner_for(network, system)
    return partitioner, {name: b.mapping for name, b in constructive(partitioner, system).items()}


def backwards():
    """Return layers declared last to first: output <- hidden <- input."""
    layers = [nm.Layer(name, 6, "lif", np.full(6, 0.1)) for name in ("output", "hidden", "input")]
    projections = [nm.Projection("input", "hidden", nm.Dense(6, 6)), nm.Projection("hidden", "output", nm.Dense(6, 6))]
    return nm.Network("backwards", layers, projections)


def ring_of_messages(n):
    G = nx.cycle_graph(n, nx.DiGraph)
    nx.set_edge_attributes(G, 1.0, "messages")
    return nm.CoreGraph.from_networkx(G)


NETWORKS = {
    "mlp": lambda: nm.sparse_mlp([60, 80, 40, 10], 0.2),
    "tight": lambda: nm.sparse_mlp([30, 60, 40], 0.9, weight_bits=16),
    "backwards": backwards,
    "one layer": lambda: nm.Network("one", (nm.Layer("a", 9, "lif", np.ones(9)),), ()),
    "graph": lambda: ring_of_messages(7),
}
SYSTEMS = {
    "chip": lambda: nm.mesh_system(4, 4, synapse_words=400, neurons=30),
    "several cores a router": lambda: nm.mesh_system(3, 2, 4, synapse_words=400, neurons=30),
    "masked": lambda: nm.mesh_system(4, 3, 2, masked_cores=[0, 1, 5, 12, 23], synapse_words=400, neurons=30),
    "chips": lambda: nm.mesh_system(2, 2, 2, chips_x=2, chips_y=2, masked_cores=[3], synapse_words=400, neurons=30),
    "loihi2": lambda: nm.load_system("loihi2"),
}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_baseline_passes_the_check(network, system):
    case = SimpleNamespace(network=NETWORKS[network](), system=SYSTEMS[system]())
    partitioner, mappings = make(case.network, case.system)
    assert list(mappings) == NAMES
    orders = vendor_orders(partitioner, case.system, np.random.default_rng(0))
    for mapping in (*mappings.values(), *orders):
        assert nm.check(mapping, case) is None


@pytest.mark.parametrize("seed", range(20))
def test_baselines_of_random_networks_pass_the_check(random_network, seed):
    rng = np.random.default_rng(seed)
    masked = rng.choice(36, 4, replace=False)
    system = nm.mesh_system(3, 3, 2, chips_x=2, masked_cores=masked, synapse_words=120, neurons=10)
    network = random_network(rng)
    _, mappings = make(network, system)
    for mapping in mappings.values():
        assert nm.check(mapping, SimpleNamespace(network=network, system=system)) is None


def test_baselines_of_a_problem_are_the_constructive_ones_and_three_orders():
    network, system = nm.sparse_mlp([30, 20, 10], 0.2), nm.load_system("loihi2")
    problem = nm.MappingProblem(network, system)
    found = nm.baselines(problem)
    balanced = ["balanced_latency_s", "balanced_energy_j"]
    assert list(found) == [*NAMES, *balanced, "vendor_order_min", "vendor_order_median", "vendor_order_max"]
    _, mappings = make(network, system)
    assert {name: found[name] for name in NAMES} == mappings


@pytest.mark.parametrize("seed", range(10))
def test_balanced_partitions_give_the_slowest_layer_the_next_core(random_network, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    system = nm.mesh_system(3, 2, 2, synapse_words=150, masked_cores=[1])
    partitioner = partitioner_for(network, system)
    placed = balanced_partitions(partitioner, system)
    steps = placed[::2]
    # every partition twice: in order, and along the columns of routers
    assert [m.cores_per_layer for m in placed[1::2]] == [m.cores_per_layer for m in steps]
    assert list(steps[0].cores_per_layer) == partitioner.minimum.tolist()
    problem = SimpleNamespace(network=network, system=system)
    for mapping in placed:
        nm.check(mapping, problem)
    fastest = [slowest_slice_s(partitioner, i, int(k), system) for i, k in enumerate(partitioner.maximum)]
    for before, after in itertools.pairwise(steps):
        grown = np.array(after.cores_per_layer) - np.array(before.cores_per_layer)
        (layer,) = np.flatnonzero(grown)
        assert grown[layer] >= 1
        times = [slowest_slice_s(partitioner, i, k, system) for i, k in enumerate(before.cores_per_layer)]
        free = partitioner.n_cores - before.cores_used
        waits = [time <= best * (1 + 1e-9) for time, best in zip(times, fastest, strict=True)]
        for i, (k, time) in enumerate(zip(before.cores_per_layer, times, strict=True)):
            # a slower layer is passed over only where it cannot take a core or more cores make it no faster
            if (waits[i], -time) < (waits[layer], -times[layer]):
                assert not partitioner.fits[i, k + 1 : k + 1 + free].any()
    # At the end no layer can take one more.
    last = steps[-1]
    free = partitioner.n_cores - last.cores_used
    for i, k in enumerate(last.cores_per_layer):
        assert not partitioner.fits[i, k + 1 : k + 1 + free].any()


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        # 2 sources of activity 1 into all of 6 neurons in 2 slices of 3: 3 neuron updates of 4 ns
        ({}, 12e-9),
        # 2 * 3 synaptic operations
        ({"t_synop_s": 4e-9}, 24e-9),
        # two rows of 3 * (8 + 12) + 16 = 76 bits, two words each
        ({"t_synmem_s": 10e-9}, 40e-9),
        # two messages of 64 bits
        ({"message_bits": 64, "bandwidth_bit_per_s": {"eject": 1e9}}, 128e-9),
    ],
)
def test_slowest_slice_by_hand(costs, expected):
    network = nm.sparse_mlp([2, 6], 1.0, activity=1.0, activity_sigma=0.0)
    system = nm.mesh_system(2, 2, **costs)
    assert slowest_slice_s(partitioner_for(network, system), 1, 2, system) == pytest.approx(expected)


def test_slowest_slice_of_a_core_graph():
    G = nx.DiGraph()
    G.add_node("a", dendops=3.0)
    G.add_edge("a", "b", messages=5.0)
    G.add_edge("c", "b", messages=2.0)
    system = nm.mesh_system(2, 2, message_bits=64, bandwidth_bit_per_s={"eject": 64e9})  # 1 ns a message
    partitioner = partitioner_for(nm.CoreGraph.from_networkx(G), system)
    assert [slowest_slice_s(partitioner, i, 1, system) for i in range(3)] == pytest.approx([12e-9, 7e-9, 0.0])
    assert [m.cores_per_layer for m in balanced_partitions(partitioner, system)] == [(1, 1, 1)] * 2


def test_balanced_partitions_leave_a_layer_that_cores_cannot_help():
    # Every slice of the dense layer gets the same 4 messages, which takes longest, so the other one comes first.
    layers = [nm.Layer("a", 4, "input", np.ones(4)), nm.Layer("b", 3, "lif", np.ones(3))]
    network = nm.Network("dense", layers, [nm.Projection("a", "b", nm.Dense(4, 3))])
    system = nm.mesh_system(3, 2, bandwidth_bit_per_s={"eject": 1e6})
    steps = balanced_partitions(partitioner_for(network, system), system)[::2]
    assert [m.cores_per_layer for m in steps] == [(1, 1), (2, 1), (3, 1), (4, 1), (4, 2)]


def test_vendor_default_takes_the_cores_in_their_order():
    _, mappings = make(nm.sparse_mlp([20, 30, 20], 0.5), nm.mesh_system(4, 2, 2, neurons=12))
    # ceil(20 / 12) = 2, ceil(30 / 12) = 3, 2
    assert mappings["vendor_default"] == nm.Mapping((2, 3, 2), (0, 1, 2, 3, 4, 5, 6))


def test_vendor_default_skips_masked_cores():
    _, mappings = make(nm.sparse_mlp([20, 30, 20], 0.5), nm.mesh_system(4, 2, 2, neurons=12, masked_cores=[0, 3]))
    assert mappings["vendor_default"].core_of_slice == (1, 2, 4, 5, 6, 7, 8)


def test_vendor_default_hands_out_cores_in_topological_order():
    _, mappings = make(backwards(), nm.mesh_system(4, 4, neurons=3))
    # two slices a layer: input, declared last, gets cores 0 and 1; then hidden, then output
    assert mappings["vendor_default"] == nm.Mapping((2, 2, 2), (4, 5, 2, 3, 0, 1))


def test_minimum_packed_takes_the_fewest_cores_round_the_centre():
    partitioner, mappings = make(nm.sparse_mlp([30, 50], 0.5), nm.mesh_system(5, 5, neurons=10))
    packed = mappings["minimum_packed"]
    assert packed.cores_per_layer == tuple(partitioner.minimum) == (3, 5)
    # 5 x 5: the middle is router 12, its neighbours 7, 11, 13, 17; of the eight at distance two the first three
    assert packed.core_of_slice == (12, 7, 11, 13, 17, 2, 6, 8)


def test_minimum_packed_keeps_to_the_fewest_cores_where_the_vendor_overshoots():
    # 2560 dense inputs of 4 bits into 100 neurons: 12 slices by multiplying (6, then twice that), 7 are enough
    sizes = (2560, 100)
    layers = [nm.Layer(f"l{i}", n, "lif", np.full(n, 0.1)) for i, n in enumerate(sizes)]
    network = nm.Network("dense", layers, [nm.Projection("l0", "l1", nm.Dense(*sizes), 4)])
    _, mappings = make(network, nm.load_system("loihi2"))
    assert mappings["vendor_default"].cores_per_layer == (1, 12)
    assert mappings["minimum_packed"].cores_per_layer == (1, 7)


@pytest.mark.parametrize(("n_cores", "counts"), [(9, (3, 3, 3)), (10, (4, 3, 3)), (11, (4, 4, 3)), (3, (1, 1, 1))])
def test_equal_split_uses_all_cores(n_cores, counts):
    _, mappings = make(nm.sparse_mlp([20, 20, 20], 0.5), nm.mesh_system(n_cores, 1))
    assert sorted(mappings["equal_split"].cores_per_layer, reverse=True) == list(counts)
    assert mappings["equal_split"].core_of_slice == tuple(range(n_cores))


def test_equal_split_stops_where_layers_have_no_more_neurons():
    _, mappings = make(nm.sparse_mlp([2, 20, 3], 0.5), nm.mesh_system(4, 4))
    # 2 and 3 neurons take 2 and 3 cores, the rest of 16 goes to the middle
    assert mappings["equal_split"].cores_per_layer == (2, 11, 3)
    _, mappings = make(nm.sparse_mlp([2, 3], 0.5), nm.mesh_system(4, 4))
    assert mappings["equal_split"].cores_per_layer == (2, 3)


def test_equal_split_gives_more_where_memory_demands_it():
    # 40 neurons, 5 a core: at least 8 cores; the other two layers share the remaining 4
    _, mappings = make(nm.sparse_mlp([5, 40, 5], 0.5), nm.mesh_system(4, 3, neurons=5))
    assert mappings["equal_split"].cores_per_layer == (2, 8, 2)


def test_equal_split_steps_over_cuts_that_do_not_fit():
    # As in {0 1 2} {3 4} fits, {0 1} {2 3} {4} does not: the target goes from 2 to 4 slices.
    connectivity = nm.Sparse(8, 5, range(9), [2] * 4 + [3] * 4)
    layers = (nm.Layer("a", 8, "input", np.ones(8)), nm.Layer("b", 5, "lif", np.ones(5)))
    network = nm.Network("gap", layers, (nm.Projection("a", "b", connectivity),))
    partitioner = partitioner_for(network, nm.mesh_system(8, 1, synapse_words=4))
    assert np.flatnonzero(partitioner.fits[1]).tolist() == [2, 4, 5]
    assert equal_split(partitioner).tolist() == [4, 4]


def test_strided_puts_the_first_slices_on_different_routers():
    system = nm.mesh_system(3, 2, 4)
    _, mappings = make(nm.sparse_mlp([40, 40], 0.5), nm.mesh_system(3, 2, 4, neurons=10))
    strided = mappings["strided"]
    assert strided.cores_per_layer == (4, 4)
    # first cores of routers 0..5, then second cores of 0 and 1
    assert strided.core_of_slice == (0, 4, 8, 12, 16, 20, 1, 5)
    routers = system.router_of_core[list(strided.core_of_slice)]
    assert len(set(routers[:6].tolist())) == 6


def test_strided_goes_round_masked_cores():
    _, mappings = make(nm.sparse_mlp([20, 20], 0.5), nm.mesh_system(3, 1, 2, neurons=10, masked_cores=[2]))
    # usable 0, 1, 3, 4, 5: first cores 0 and 4, then second cores 1 and 3
    assert mappings["strided"].core_of_slice == (0, 4, 1, 3)


def test_serpentine_by_hand():
    _, mappings = make(nm.sparse_mlp([40, 40], 0.5), nm.mesh_system(3, 3, neurons=10))
    # row 0 eastward, row 1 westward, row 2 eastward
    assert mappings["serpentine"].core_of_slice == (0, 1, 2, 5, 4, 3, 6, 7)


@pytest.mark.parametrize(("width", "height", "cores"), [(8, 4, 4), (3, 5, 1), (4, 4, 2), (1, 6, 3), (7, 1, 2)])
def test_serpentine_steps_go_to_a_neighbour_or_stay(width, height, cores):
    system = nm.mesh_system(width, height, cores)
    n = system.n_cores
    mapping = make(ring_of_messages(n), system)[1]["serpentine"]
    assert sorted(mapping.core_of_slice) == list(range(n))
    xy = system.router_xy[system.router_of_core[list(mapping.core_of_slice)]]
    assert np.abs(np.diff(xy, axis=0)).sum(axis=1).max(initial=0) <= 1


def test_baselines_that_follow_the_vendor_keep_its_partition():
    _, mappings = make(nm.sparse_mlp([60, 80, 40], 0.5), nm.mesh_system(4, 4, synapse_words=700, neurons=30))
    counts = mappings["vendor_default"].cores_per_layer
    assert mappings["strided"].cores_per_layer == counts
    assert mappings["serpentine"].cores_per_layer == counts


def test_vendor_orders_are_ten_and_keep_the_partition():
    network, system = nm.sparse_mlp([30, 30, 20, 20, 10], 0.5), nm.mesh_system(4, 4, neurons=10)
    partitioner, mappings = make(network, system)
    orders = vendor_orders(partitioner, system, np.random.default_rng(0))
    assert len(orders) == N_LAYER_ORDERS == 10
    default = mappings["vendor_default"]
    for mapping in orders:
        assert mapping.cores_per_layer == default.cores_per_layer == (3, 3, 2, 2, 1)
        # the same cores, every layer on consecutive ones
        assert sorted(mapping.core_of_slice) == list(range(11))
        start = 0
        for k in mapping.cores_per_layer:
            part = mapping.core_of_slice[start : start + k]
            assert list(part) == list(range(part[0], part[0] + k))
            start += k
    assert len(set(orders)) > 5
    assert orders == vendor_orders(partitioner, system, np.random.default_rng(0))
    assert orders != vendor_orders(partitioner, system, np.random.default_rng(1))


def test_notes_tell_where_the_rule_was_bent():
    sizes = (2560, 100)
    layers = [nm.Layer(f"l{i}", n, "lif", np.full(n, 0.1)) for i, n in enumerate(sizes)]
    network = nm.Network("dense", layers, [nm.Projection("l0", "l1", nm.Dense(*sizes), 4)])
    for cores, bent in ((12, True), (13, False)):
        system = nm.mesh_system(cores, 1)
        made = constructive(partitioner_for(network, system), system)
        for name in ("vendor_default", "strided", "serpentine"):
            assert ("asks for 13 cores of 12" in made[name].note) == bent
        assert made["minimum_packed"].note == made["equal_split"].note == ""


def test_fixed_core_graph_keeps_one_core_a_node():
    _, mappings = make(ring_of_messages(6), nm.mesh_system(3, 2, 2))
    assert {m.cores_per_layer for m in mappings.values()} == {(1,) * 6}
    assert mappings["vendor_default"].core_of_slice == (0, 1, 2, 3, 4, 5)
    assert mappings["strided"].core_of_slice == (0, 2, 4, 6, 8, 10)
    # row 0 eastward, both cores of a router
    assert mappings["serpentine"].core_of_slice == (0, 1, 2, 3, 4, 5)


def routers(*edges, one_way=False):
    """Return a system of routers 0, 1, ... with one core each."""
    G = nx.DiGraph() if one_way else nx.Graph()
    G.add_nodes_from(range(1 + max(itertools.chain(*edges))))
    G.add_edges_from(edges)
    return nm.System.from_networkx(G)


@pytest.mark.parametrize(
    ("system", "walk"),
    [
        (lambda: nm.System.from_networkx(nx.cycle_graph(6)), [0, 1, 2, 3, 4, 5]),
        # a star: all leaves lie at the rim, the lowest is first, then the middle
        (lambda: routers((2, 0), (2, 1), (2, 3)), [0, 2, 1, 3]),
        # a line 3 0 1 2: from the end with the lower id
        (lambda: routers((3, 0), (0, 1), (1, 2)), [2, 1, 0, 3]),
        # leaves 3 4 | 5 6 of a binary tree, siblings next to each other
        (lambda: nm.load_system("tree", {"topology": {"depth": 2, "cores_per_router": 1}}), [3, 4, 5, 6]),
        # there and back count: every router of a one-way ring is three hops from every other
        (lambda: routers((0, 2), (2, 1), (1, 0), one_way=True), [0, 1, 2]),
    ],
)
def test_serpentine_walks_a_graph_to_the_nearest_router_left(system, walk):
    _, mappings = make(ring_of_messages(len(walk)), system())
    assert mappings["serpentine"].core_of_slice == tuple(walk)


def test_minimum_packed_gathers_round_the_centre_of_a_graph():
    # a line 5 0 1 2 3 4: 1 and 2 are the most central, 1 has the lower id
    _, mappings = make(ring_of_messages(4), routers((5, 0), (0, 1), (1, 2), (2, 3), (3, 4)))
    assert mappings["minimum_packed"].core_of_slice == (1, 0, 2, 3)


def test_baselines_on_graphs_pass_the_check(graph_system):
    problem = nm.MappingProblem(nm.sparse_mlp([60, 80, 40, 10], 0.2), graph_system)
    for mapping in (*nm.baselines(problem).values(), *balanced_partitions(problem.partitioner, graph_system)):
        assert nm.check(mapping, problem) is None
