import itertools
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.heuristics import rules, spectral
from neuromap_moo.heuristics.curves import hilbert_curve
from neuromap_moo.heuristics.rules import (
    N_LAYER_ORDERS,
    balanced_partitions,
    constructive,
    equal_split,
    slowest_slice_s,
    vendor_orders,
)
from neuromap_moo.heuristics.spectral import eigenvectors, spectral_cores
from neuromap_moo.partition.fixed import partitioner_for

NAMES = ["vendor_default", "minimum_packed", "equal_split", "strided", "serpentine", "hilbert", "spectral"]


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


def test_hilbert_curve_by_hand():
    assert hilbert_curve(1, 1).tolist() == [[0, 0]]
    assert hilbert_curve(3, 1).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert hilbert_curve(2, 2).tolist() == [[0, 0], [0, 1], [1, 1], [1, 0]]
    rows = ["0 3 4 5", "1 2 7 6", "14 13 8 9", "15 12 11 10"]  # Hilbert's own figure, seen from x and y exchanged
    step = {tuple(cell): i for i, cell in enumerate(hilbert_curve(4, 4).tolist())}
    assert [" ".join(str(step[x, y]) for y in range(4)) for x in range(4)] == rows


@given(st.integers(1, 24), st.integers(1, 24))
def test_hilbert_curve_fills_any_rectangle(width, height):
    curve = hilbert_curve(width, height)
    assert sorted(map(tuple, curve.tolist())) == list(itertools.product(range(width), range(height)))
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == ([width - 1, 0] if width >= height else [0, height - 1])
    steps = np.abs(np.diff(curve, axis=0))
    assert steps.max(initial=0) <= 1
    odd, even = max(width, height) % 2 == 1, min(width, height) % 2 == 0
    assert (steps.sum(axis=1) == 2).sum() == (odd and even)


def test_hilbert_curve_keeps_near_what_is_near():
    # 16 cells in a row lie in two neighbouring blocks of 4 x 4; row by row they would be 15 apart
    curve = hilbert_curve(16, 16)
    apart = np.abs(curve[:-15] - curve[15:]).max(axis=1)
    assert apart.max() <= 7


def test_hilbert_goes_from_router_to_router():
    _, mappings = make(ring_of_messages(8), nm.mesh_system(2, 2, 2))
    assert mappings["hilbert"].core_of_slice == (0, 1, 4, 5, 6, 7, 2, 3)
    _, mappings = make(ring_of_messages(5), nm.mesh_system(2, 2, 2, masked_cores=[0, 4, 5]))
    assert mappings["hilbert"].core_of_slice == (1, 6, 7, 2, 3)


def test_hilbert_fills_chip_after_chip():
    _, mappings = make(ring_of_messages(16), nm.mesh_system(2, 2, chips_x=2, chips_y=2))
    # chips 0, 2, 3, 1 as the routers of each
    assert mappings["hilbert"].core_of_slice == (0, 2, 3, 1, 8, 10, 11, 9, 12, 14, 15, 13, 4, 6, 7, 5)
    # In a row of chips of even width the curve of one ends beside the beginning of the next.
    system = nm.mesh_system(8, 4, chips_x=3)
    cores = list(make(ring_of_messages(96), system)[1]["hilbert"].core_of_slice)
    assert (system.hops[cores[:-1], cores[1:]] == 1).all()


def message_hops(graph, system, cores):
    router = system.router_of_core[np.asarray(cores)]
    return float((graph.messages * system.hops[router[graph.source], router[graph.target]]).sum())


def planted(width, height, seed):
    """Return a grid of slices in random order with whole messages one way, and the fewest hops on such a mesh."""
    rng = np.random.default_rng(seed)
    G = nx.grid_2d_graph(width, height)
    new = dict(zip(G.nodes, rng.permutation(width * height).tolist(), strict=True))
    H = nx.DiGraph()
    H.add_nodes_from(range(width * height))
    H.add_edges_from((new[a], new[b], {"messages": int(rng.integers(1, 101))}) for a, b in G.edges)
    graph = nm.CoreGraph.from_networkx(H)
    return graph, graph.messages.sum()


@pytest.mark.parametrize("seed", range(5))
def test_spectral_finds_a_planted_grid(seed):
    graph, fewest = planted(12, 10, seed)
    system = nm.mesh_system(12, 10)
    in_order = message_hops(graph, system, range(120))
    cores = spectral_cores(graph, system)
    assert sorted(cores.tolist()) == list(range(120))
    assert message_hops(graph, system, cores) < 1.4 * fewest
    assert in_order > 6 * fewest  # far away from where it began


def test_spectral_finds_a_planted_square_whose_axes_are_undetermined():
    graph, fewest = planted(10, 10, 0)
    system = nm.mesh_system(10, 10)
    assert message_hops(graph, system, spectral_cores(graph, system)) < 1.4 * fewest


@given(st.data(), st.integers(2, 12))
def test_spectral_lays_a_path_along_a_line(data, n):
    messages = data.draw(st.lists(st.integers(1, 10), min_size=n - 1, max_size=n - 1))
    order = data.draw(st.permutations(range(n)))
    G = nx.DiGraph()
    G.add_nodes_from(range(n))
    G.add_edges_from((a, b, {"messages": m}) for a, b, m in zip(order, order[1:], messages, strict=False))
    graph = nm.CoreGraph.from_networkx(G)
    system = nm.mesh_system(1, n + 2)
    assert message_hops(graph, system, spectral_cores(graph, system)) == sum(messages)


def test_spectral_takes_a_compact_set_of_cores():
    system = nm.mesh_system(5, 5)
    # the middle of 5 x 5 and its neighbours; the middle of the star in the middle
    G = nx.DiGraph(nx.star_graph(4))
    nx.set_edge_attributes(G, 1.0, "messages")
    cores = spectral_cores(nm.CoreGraph.from_networkx(G), system)
    assert cores[0] == 12
    assert sorted(cores.tolist()) == [7, 11, 12, 13, 17]


def test_compact_sets_keep_to_few_chips():
    system = nm.mesh_system(4, 4, chips_x=3, chips_y=2, masked_cores=[0, 17])
    for n, chips in ((14, {2}), (16, {2}), (17, {1, 2}), (40, {1, 2, 5}), (94, set(range(6)))):
        cores = spectral_cores(ring_of_messages(n), system)
        assert set(system.chip_of_router[cores].tolist()) == chips
        assert len(set(cores.tolist())) == n
    # The fewest cores as well: five on the first chip, round one of its four middle routers.
    _, mappings = make(nm.sparse_mlp([20, 30], 0.5), nm.mesh_system(4, 4, chips_x=2, neurons=10))
    assert mappings["minimum_packed"].core_of_slice == (5, 1, 4, 6, 9)


def test_spectral_places_unconnected_parts_apart():
    # two rings of six, their slices in turn, and two slices that no message reaches
    G = nx.DiGraph()
    G.add_nodes_from(range(14))
    for ring in (range(0, 12, 2), range(1, 12, 2)):
        nx.add_cycle(G, ring, messages=1.0)
    graph = nm.CoreGraph.from_networkx(G)
    system = nm.mesh_system(4, 4)
    cores = spectral_cores(graph, system)
    assert len(set(cores.tolist())) == 14
    assert message_hops(graph, system, cores) <= 16  # 12 is the least, 34 that of slices in order
    xy = system.router_xy[cores]
    for ring in (xy[0:12:2], xy[1:12:2]):
        assert np.ptp(ring, axis=0).sum() <= 4


@pytest.mark.parametrize("n", [1, 2, 3])
def test_spectral_places_very_few_slices(n):
    system = nm.mesh_system(4, 4, 2)
    cores = spectral_cores(ring_of_messages(n), system)
    assert len(set(cores.tolist())) == n
    # both cores of a router, then the nearest
    assert message_hops(ring_of_messages(n), system, cores) == (2.0 if n == 3 else 0.0)
    nothing = nm.CoreGraph.from_networkx(nx.empty_graph(n))
    assert len(set(spectral_cores(nothing, system).tolist())) == n


def test_spectral_counts_hops_the_way_messages_go():
    # on a ring that goes one way a path of messages fits with one hop each, the other way round it would not
    system = routers(*((i, (i + 1) % 6) for i in range(6)), one_way=True)
    G = nx.path_graph(6, nx.DiGraph)
    nx.set_edge_attributes(G, 1.0, "messages")
    graph = nm.CoreGraph.from_networkx(G)
    cores = spectral_cores(graph, system)
    assert message_hops(graph, system, cores) <= message_hops(graph, system, cores[::-1])


def test_spectral_is_the_same_every_time_and_beats_the_default(graph_system):
    rng = np.random.default_rng(5)
    n = graph_system.usable_cores.size
    ring = nx.relabel_nodes(nx.cycle_graph(n), dict(enumerate(rng.permutation(n).tolist())))
    G = nx.empty_graph(n)
    G.add_edges_from(ring.edges, messages=1.0)
    graph = nm.CoreGraph.from_networkx(G)
    cores = spectral_cores(graph, graph_system)
    assert sorted(cores.tolist()) == graph_system.usable_cores.tolist()
    assert cores.tolist() == spectral_cores(graph, graph_system).tolist()
    default = message_hops(graph, graph_system, graph_system.usable_cores)
    assert message_hops(graph, graph_system, cores) < 0.7 * default


@pytest.mark.parametrize("ks", [(5, 7), (10, 20, 20, 10), (8, 4, 8)])
def test_spectral_does_not_hang_on_rounding(ks, monkeypatch):
    # Slices of dense layers are all alike, and so are the sides of a square: the most ties there can be.
    network = nm.Network(
        "dense",
        [nm.Layer(f"l{i}", 10 * k, "lif", np.ones(10 * k)) for i, k in enumerate(ks)],
        [
            nm.Projection(f"l{i}", f"l{i + 1}", nm.Dense(10 * a, 10 * b))
            for i, (a, b) in enumerate(itertools.pairwise(ks))
        ],
    )
    system = nm.mesh_system(8, 8)
    graph = partitioner_for(network, system).core_graph(ks)
    exact = eigenvectors
    rng = np.random.default_rng(0)

    def rounded_otherwise(matrix, first, last):
        noise = rng.standard_normal(matrix.shape) * 1e-16 * np.abs(matrix).max()
        return exact(matrix + noise + noise.T, first, last)

    cores = spectral_cores(graph, system)
    monkeypatch.setattr(spectral, "eigenvectors", rounded_otherwise)
    for _ in range(3):
        assert spectral_cores(graph, system).tolist() == cores.tolist()


@pytest.mark.parametrize("n", [2, 3, 17, 60])
def test_eigenvectors_are_those_of_numpy(n):
    matrix = np.random.default_rng(n).standard_normal((n, n)) * 1e-9
    matrix += matrix.T
    if n == 17:
        matrix[5:] = matrix[:, 5:] = 0.0  # rows with nothing to reflect
        matrix += np.diag(np.arange(n)) * 1e-9
    values, vectors = np.linalg.eigh(matrix)
    found, columns = eigenvectors(matrix, n // 3, n - 1)
    np.testing.assert_allclose(found, values[n // 3 :], rtol=0, atol=1e-13 * np.abs(values).max())
    np.testing.assert_allclose(np.abs(columns.T @ vectors[:, n // 3 :]), np.eye(len(found)), atol=1e-9)
    assert (columns[np.abs(columns).argmax(axis=0), range(len(found))] > 0).all()


def test_spectral_is_left_out_for_more_slices_than_it_can_take(monkeypatch):
    monkeypatch.setattr(rules, "MAXIMUM_SPECTRAL_SLICES", 5)
    system = nm.mesh_system(3, 2)
    assert "spectral" in make(ring_of_messages(5), system)[1]
    assert "spectral" not in make(ring_of_messages(6), system)[1]


def test_baselines_that_follow_the_vendor_keep_its_partition():
    _, mappings = make(nm.sparse_mlp([60, 80, 40], 0.5), nm.mesh_system(4, 4, synapse_words=700, neurons=30))
    counts = mappings["vendor_default"].cores_per_layer
    assert mappings["strided"].cores_per_layer == counts
    assert mappings["serpentine"].cores_per_layer == counts
    assert mappings["hilbert"].cores_per_layer == counts
    assert mappings["spectral"].cores_per_layer == counts


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
        for name in ("vendor_default", "strided", "serpentine", "hilbert", "spectral"):
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
    assert [name for name in NAMES if name not in nm.baselines(problem)] == ["hilbert"]
    for mapping in (*nm.baselines(problem).values(), *balanced_partitions(problem.partitioner, graph_system)):
        assert nm.check(mapping, problem) is None
