import itertools

import networkx as nx
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.system import routing
from neuromap_moo.system.system import system_from_dict
from neuromap_moo.system.topology import MESH_CLASSES

seeds = st.integers(0, 2**32 - 1)


def from_topology(**topology):
    """Return the system of Loihi 2's costs with this topology, as its YAML would give it."""
    return nm.load_system("loihi2", {"name": "mine", "topology": topology})


def graph_of(links, routers=None, **keys):
    routers = 1 + max(itertools.chain(*(link[:2] for link in links))) if routers is None else routers
    return from_topology(type="graph", routers=routers, links=links, **keys)


def ring(n, **keys):
    return graph_of([[i, (i + 1) % n] for i in range(n)], **keys)


def links_on(system, a, b):
    """Return the links of the route from router a to b, in order on a graph."""
    pair = a * system.n_routers + b
    start, stop = system.routes.start[pair : pair + 2]
    return [n for j in range(start, stop) for n in range(system.routes.first[j], system.routes.stop[j])]


def route(system, a, b):
    """Return the routers on the way from a to b."""
    links = links_on(system, a, b)
    ends = [(int(system.links.source[n]), int(system.links.target[n])) for n in links]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends))
    return [a, *(target for _, target in ends)]


def classes(system):
    """Return {(from, to): class} of all directed links."""
    links = system.links
    names = [MESH_CLASSES[c] for c in links.link_class]
    return dict(zip(zip(links.source.tolist(), links.target.tolist(), strict=True), names, strict=True))


# ----------------------------------------------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ([0, 1, 2], "shorter"),
        ([0, 5, 4], "shorter the other way"),
        ([0, 1, 2, 3], "both ways are as long, 1 is lower than 5"),
        ([3, 2, 1, 0], "2 is lower than 4"),
        ([1, 0, 5, 4], "0 is lower than 2"),
        ([4, 3, 2, 1], "3 is lower than 5, so the way back is another one"),
    ],
)
def test_routes_on_a_ring_by_hand(way, why):
    system = ring(6)
    assert route(system, way[0], way[-1]) == way, why
    assert system.hops[way[0], way[-1]] == len(way) - 1


def test_hops_on_a_ring_and_a_path_by_hand():
    assert ring(5).hops.tolist() == [
        [0, 1, 2, 2, 1],
        [1, 0, 1, 2, 2],
        [2, 1, 0, 1, 2],
        [2, 2, 1, 0, 1],
        [1, 2, 2, 1, 0],
    ]
    hops = graph_of([[0, 1], [1, 2]]).hops
    assert hops.tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    assert hops.dtype == np.int32


def test_routes_and_hops_on_a_tree_by_hand():
    #        0
    #    1       2
    #  3   4   5   6
    system = graph_of([[0, 1], [0, 2], [1, 3], [1, 4], [2, 5], [2, 6]])
    assert route(system, 3, 6) == [3, 1, 0, 2, 6]
    assert route(system, 4, 3) == [4, 1, 3]
    assert route(system, 0, 5) == [0, 2, 5]
    assert route(system, 2, 2) == [2]
    assert system.hops[3].tolist() == [2, 1, 3, 0, 2, 4, 4]
    # the same as a tree
    assert from_topology(type="tree", branching=2, depth=2, cores_at="all") == system


def test_routes_on_one_way_links_by_hand():
    system = graph_of([[0, 1], [1, 2], [2, 3], [3, 0], [2, 0]], directed=True)
    assert route(system, 0, 3) == [0, 1, 2, 3]
    assert route(system, 3, 2) == [3, 0, 1, 2]
    assert route(system, 2, 0) == [2, 0]
    assert system.hops.tolist() == [[0, 1, 2, 3], [2, 0, 1, 2], [1, 2, 0, 1], [1, 2, 3, 0]]


def test_routes_on_a_torus_by_hand():
    #  0  1  2  3
    #  4  5  6  7
    #  8  9 10 11
    # 12 13 14 15
    system = from_topology(type="torus", width=4, height=4)
    assert route(system, 0, 3) == [0, 3]
    assert route(system, 0, 15) == [0, 3, 15]
    assert route(system, 15, 0) == [15, 3, 0]
    assert route(system, 0, 10) == [0, 1, 2, 6, 10]
    assert [classes(system)[link] for link in [(0, 3), (3, 15), (6, 10)]] == ["mesh_x", "mesh_y", "mesh_y"]


@pytest.mark.parametrize(("width", "height"), [(4, 4), (5, 3), (2, 3), (1, 4), (2, 2), (1, 1), (6, 1)])
def test_torus_wraps_both_ways(width, height):
    system = from_topology(type="torus", width=width, height=height)
    x, y = np.arange(width * height) % width, np.arange(width * height) // width
    dx, dy = (np.abs(a[:, None] - a) for a in (x, y))
    np.testing.assert_array_equal(system.hops, np.minimum(dx, width - dx) + np.minimum(dy, height - dy))
    neighbours = {(int(a), int(b)) for a, b in np.argwhere(system.hops == 1)}
    assert classes(system).keys() == neighbours
    for (a, b), name in classes(system).items():
        assert name == ("mesh_x" if a // width == b // width else "mesh_y")


def random_graph(rng, directed):
    n = int(rng.integers(2, 25))
    G = nx.gnp_random_graph(n, float(rng.choice([0.0, 0.1, 0.3])), seed=int(rng.integers(2**31)), directed=directed)
    nx.add_cycle(G, rng.permutation(n).tolist())
    return G


@given(seeds, st.booleans())
def test_routes_are_shortest_and_go_on_to_the_lowest_nearer_neighbour(seed, directed):
    G = random_graph(np.random.default_rng(seed), directed)
    system = nm.System.from_networkx(G)
    assert classes(system).keys() == set(G.to_directed().edges)
    length = dict(nx.all_pairs_shortest_path_length(G))
    for a, b in itertools.product(G, repeat=2):
        assert system.hops[a, b] == length[a][b]
        way = route(system, a, b)
        assert len(way) == length[a][b] + 1
        for here, onward in itertools.pairwise(way):
            assert onward == min(v for v in G[here] if length[v][b] == length[here][b] - 1)


@given(seeds)
def test_order_in_which_links_are_given_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    links = [list(edge) for edge in random_graph(rng, False).edges]
    one = graph_of(links)
    other = graph_of([links[i][:: int(rng.choice([-1, 1]))] for i in rng.permutation(len(links))])
    assert one == other
    for a, b in zip((*one.links, *one.routes), (*other.links, *other.routes), strict=True):
        np.testing.assert_array_equal(a, b)


def test_links_are_numbered_along_the_routes():
    def intervals(G):
        return np.diff(nm.System.from_networkx(G).routes.start)

    line = nx.path_graph(300)
    assert intervals(line).max() == 1
    shuffled = nx.relabel_nodes(line, dict(enumerate(np.random.default_rng(0).permutation(300).tolist())))
    ordered = nx.Graph()
    ordered.add_nodes_from(range(300))
    ordered.add_edges_from(shuffled.edges)
    assert intervals(ordered).max() == 1
    assert intervals(nx.cycle_graph(300)).max() <= 2
    grid = nx.convert_node_labels_to_integers(nx.grid_2d_graph(12, 12))
    assert intervals(grid).max() <= 2


@pytest.mark.slow
def test_as_many_routers_as_are_allowed():
    system = nm.System.from_networkx(nx.random_regular_graph(3, 2048, seed=1))
    rng = np.random.default_rng(0)
    for a, b in rng.integers(0, 2048, (50, 2)).tolist():
        assert len(route(system, a, b)) == system.hops[a, b] + 1


def test_routes_that_would_take_too_much_memory_are_refused(monkeypatch):
    monkeypatch.setattr(routing, "MAXIMUM_INTERVALS", 10)
    with pytest.raises(
        nm.InputError, match=r"topology\.links: expected routes of at most 10 intervals .*, got \d+; use"
    ):
        _ = ring(6).routes


def test_one_router_alone():
    system = graph_of([], routers=1, cores_per_router=4)
    assert system.hops.tolist() == [[0]]
    assert route(system, 0, 0) == [0]
    assert system.usable_cores.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(3, 2, 1, 1), (2, 2, 2, 3), (1, 1, 1, 1)])
def test_hops_of_a_mesh_are_the_lengths_of_its_routes(shape):
    width, height, chips_x, chips_y = shape
    system = nm.mesh_system(width, height, chips_x=chips_x, chips_y=chips_y)
    assert system.hops.dtype == np.int32
    for a, b in itertools.product(range(system.n_routers), repeat=2):
        assert system.hops[a, b] == len(links_on(system, a, b))


# ------------------------------------------------------------------------------------------------------------- YAML


def test_graph_by_hand():
    system = graph_of(
        [[0, 1], [1, 2, "mesh_y"], [2, 3], [3, 4]],
        cores_per_router=2,
        chips=[0, 0, 0, 1, 1],
        cores=[2, 0, 1, 2, 2],
        xy=[[0, 0], [1, 0], [1, 1], [2.5, 1], [4, 1]],
        source="data sheet, page 3",
        kind="published",
    )
    assert (system.n_chips, system.n_routers, system.n_cores) == (2, 5, 10)
    assert system.chip_of_router.tolist() == [0, 0, 0, 1, 1]
    assert system.router_of_core.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert system.masked_cores == (2, 3, 5)
    assert system.usable_cores.tolist() == [0, 1, 4, 6, 7, 8, 9]
    assert system.router_xy.tolist() == [[0, 0], [1, 0], [1, 1], [2.5, 1], [4, 1]]
    both = {(0, 1): "mesh_x", (1, 2): "mesh_y", (2, 3): "chip", (3, 4): "mesh_x"}
    assert classes(system) == both | {(b, a): name for (a, b), name in both.items()}
    joules = dict(
        zip(zip(*(ends.tolist() for ends in system.links[:2]), strict=True), system.per_link("e_link_j"), strict=True)
    )
    assert joules[3, 2] == system.cost("e_link_j.chip")
    assert (system.topology.source, system.topology.kind) == ("data sheet, page 3", "published")
    assert graph_of([[0, 1]]).router_xy is None


def test_links_may_have_another_class_each_way():
    system = graph_of([[0, 1, "chip"], [1, 0, "mesh_y"]], directed=True)
    assert classes(system) == {(0, 1): "chip", (1, 0): "mesh_y"}


def test_tree_by_hand():
    system = from_topology(type="tree", branching=3, depth=2, cores_per_router=2)
    assert system.n_routers == 1 + 3 + 9
    # children of router r begin at 3 r + 1
    assert {(a, b) for a, b in classes(system) if a < b} == {(r, 3 * r + j) for r in range(4) for j in (1, 2, 3)}
    assert system.usable_cores.tolist() == list(range(4 * 2, 13 * 2))
    assert from_topology(type="tree", branching=3, depth=2, cores_at="all").usable_cores.size == 13
    x, y = system.router_xy.T
    assert y.tolist() == [0, 1, 1, 1, *[2] * 9]
    assert x.tolist() == [4, 1, 4, 7, *range(9)]


@pytest.mark.parametrize("directed", [False, True])
def test_dict_and_yaml_round_trip(tmp_path, graph_system, directed):
    one_way = graph_of([[0, 1], [1, 2, "chip"], [2, 0]], directed=True, chips=[0, 0, 1], cores=[1, 0, 1])
    system = one_way if directed else graph_system
    back = system_from_dict(system.to_dict())
    assert back == system
    assert back.to_dict() == system.to_dict()
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(system.to_dict()), encoding="utf-8")
    assert nm.load_system(path).to_dict() == system.to_dict()


def test_yaml_takes_costs_from_a_preset_and_nothing_of_its_topology(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "defaults: [kapoho_point, _self_]\n"
        "topology: {type: graph, routers: 3, cores_per_router: 2, links: [[0, 1], [1, 2, chip]], chips: [0, 0, 1]}\n"
    )
    system = nm.load_system(path)
    assert (system.n_chips, system.n_cores) == (2, 6)
    assert (system.topology.source, system.topology.kind) == ("given by the user", "assumed")
    assert system.costs == nm.load_system("kapoho_point").costs


def test_torus_preset_differs_from_the_mesh_in_its_links_alone():
    torus, mesh = nm.load_system("torus"), nm.load_system("mesh")
    assert torus != mesh
    assert torus.costs == mesh.costs
    assert torus.router_xy.tolist() == mesh.router_xy.tolist()
    assert classes(mesh).items() < classes(torus).items()
    assert len(classes(torus)) == len(classes(mesh)) + 2 * (8 + 8)


def test_digest_counts_what_the_metrics_depend_on():
    base = ring(4, cores_per_router=2)
    assert ring(4, cores_per_router=2, xy=[[0, 0], [1, 0], [1, 1], [0, 1]], source="mine") == base
    assert ring(4, cores_per_router=2, chips=[0] * 4, cores=[2] * 4) == base
    masked = nm.load_system("loihi2", {"topology": base.to_dict()["topology"], "masked_cores": [1]})
    assert ring(4, cores_per_router=2, cores=[1, 2, 2, 2]) == masked
    others = [
        masked,
        ring(4),
        ring(5, cores_per_router=2),
        ring(4, cores_per_router=2, chips=[0, 0, 1, 1]),
        graph_of([[0, 1], [1, 2], [2, 3]], cores_per_router=2),
        graph_of([[0, 1], [1, 2], [2, 3], [3, 0, "mesh_y"]], cores_per_router=2),
        graph_of([[0, 1], [1, 2], [2, 3], [3, 0]], directed=True, cores_per_router=2),
        nm.mesh_system(2, 2, 2),
    ]
    assert len({base.digest, *(s.digest for s in others)}) == len(others) + 1


PATH = [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ({"routers": 4}, r"topology\.links: expected a way between all routers, got none from 0 to 3; add links"),
        ({"directed": True}, r"topology\.links: expected a way between all routers, got none from 1 to 0"),
        ({"links": [[1, 0], [2, 1]], "directed": True}, "got none from 0 to 1"),
        ({"links": []}, "got none from 0 to 1"),
        ({"links": [*PATH, [2, 2]]}, r"topology\.links, entry 2: expected two different routers, got 2 twice; leave"),
        ({"links": [*PATH, [1, 0]]}, "entry 2: the link from router 1 to 0 is there already; give it once, or set dir"),
        (
            {"links": [[0, 1]] * 2, "directed": True},
            "entry 1: the link from router 0 to 1 is there already; give it on",
        ),
        ({"links": [*PATH, [0, 3]]}, r"entry 2: expected routers 0 to 2, got 3; raise routers"),
        ({"links": [*PATH, [0, -1]]}, r"entry 2: expected a whole number >= 0, got -1"),
        ({"links": [*PATH, [0, "a"]]}, r"entry 2: expected a whole number >= 0, got 'a'"),
        ({"links": [*PATH, [0]]}, r"entry 2: expected two routers and perhaps a link class, got \[0\]"),
        ({"links": [*PATH, 5]}, r"entry 2: expected two routers and perhaps a link class, got 5"),
        ({"links": [*PATH, "01"]}, r"entry 2: expected two routers and perhaps a link class, got '01'"),
        ({"links": 5}, r"topology\.links: expected a list of pairs of routers, got 5"),
        ({"links": [[0, 1, "mesh_z"], [1, 2]]}, r"entry 0: no link class 'mesh_z'; did you mean 'mesh_y'\?"),
        ({"links": [[0, 1, 7], [1, 2]]}, r"entry 0: no link class 7; choose one of: chip, mesh_x, mesh_y"),
        ({"routers": 2049}, r"topology: expected at most 2048 routers, got 2049; use fewer chips or more cores per"),
        ({"routers": 0}, r"topology\.routers: expected a whole number >= 1, got 0"),
        ({"routers": "many"}, r"topology\.routers: expected a whole number >= 1, got 'many'"),
        ({"cores_per_router": 0}, r"topology\.cores_per_router: expected a whole number >= 1, got 0"),
        ({"directed": "yes"}, r"topology\.directed: expected true or false, got 'yes'"),
        ({"chips": [0, 1]}, r"topology\.chips: expected a chip id for each of the 3 routers, got 2"),
        ({"chips": 1}, r"topology\.chips: expected a chip id for each of the 3 routers, got 1"),
        ({"chips": [0, 2, 2]}, r"chips: expected chip ids without a gap from 0 to 2, got no router on chip 1; number"),
        ({"chips": [0, 0, -1]}, r"topology\.chips, router 2: expected a whole number >= 0, got -1"),
        ({"chips": [0, 0, "b"]}, r"topology\.chips, router 2: expected a whole number >= 0, got 'b'"),
        ({"cores": [1, 1]}, r"topology\.cores: expected a number of cores for each of the 3 routers, got 2"),
        ({"cores": [1, 4, 1]}, r"at most cores_per_router = 2 cores at a router, got 4 at router 1; raise cores_per"),
        ({"cores": [0, 0, 0]}, "masked_cores: all 6 cores are masked; leave some to use"),
        ({"xy": [[0, 0], [1, 1]]}, r"topology\.xy: expected x and y for each of the 3 routers, got 2"),
        ({"xy": 3}, r"topology\.xy: expected x and y for each of the 3 routers, got 3"),
        ({"xy": [[0, 0], [1, 1], [2]]}, r"topology\.xy, router 2: expected x and y, two finite numbers, got \[2\]"),
        ({"xy": [[0, 0], [1, 1], 2]}, r"topology\.xy, router 2: expected x and y, two finite numbers, got 2"),
        ({"xy": [[0, 0], [1, 1], [2, "up"]]}, r"xy, router 2: expected x and y, two finite numbers, got \[2, 'up'\]"),
        (
            {"xy": [[0, 0], [1, 1], [0, 0]]},
            r"xy: expected routers in different places, got two at \(0\.0, 0\.0\); move",
        ),
        ({"kind": "guess"}, r"topology\.kind: expected published \| derived \| assumed, got 'guess'"),
        ({"link": PATH}, r"topology: unknown key 'link'; did you mean 'links'"),
        (
            {"width": 3},
            r"topology\.width: expected a key of type graph \(chips, .*\), got one of type mesh or torus; set",
        ),
        ({"links": None}, r"topology\.links: missing; expected a list of pairs of routers"),
        ({"routers": None}, r"topology\.routers: missing; expected the number of routers"),
    ],
)
def test_wrong_graphs_are_refused(topology, message):
    base = {"type": "graph", "routers": 3, "cores_per_router": 2, "links": PATH}
    with pytest.raises(nm.InputError, match="^system '(mine|loihi2)', .*" + message):
        from_topology(**(base | topology))


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ({"type": "torus", "width": 4}, r"topology\.height: missing; expected routers per chip along that side"),
        ({"type": "torus", "width": 0, "height": 2}, r"topology\.width: expected a whole number >= 1, got 0"),
        ({"type": "torus", "width": 9999, "height": 9999}, r"topology: expected at most 2048 routers, got 99980001"),
        ({"type": "torus", "width": 2, "height": 2, "chips_x": 2}, r"topology\.chips_x: expected a key of type torus"),
        ({"type": "torus", "width": 2, "height": 2, "cores_per_router": "x"}, r"cores_per_router: expected a whole"),
        ({"type": "torus", "width": 2, "height": 2, "kind": "x"}, r"topology\.kind: expected published"),
        ({"type": "tree", "depth": 2}, r"topology\.branching: missing; expected the children of a router"),
        ({"type": "tree", "branching": 2}, r"topology\.depth: missing; expected the links from the root to a leaf"),
        ({"type": "tree", "branching": 2, "depth": 0}, r"topology\.depth: expected a whole number >= 1, got 0"),
        ({"type": "tree", "branching": 2, "depth": 10**9}, "expected at most 2048 routers, got 4095"),
        ({"type": "tree", "branching": 10**9, "depth": 2}, "expected at most 2048 routers, got 1000000001"),
        (
            {"type": "tree", "branching": 2, "depth": 2, "cores_at": "leafs"},
            r"cores_at: got 'leafs'; did you mean 'lea",
        ),
        (
            {"type": "tree", "branching": 2, "depth": 2, "cores_per_router": 0},
            r"cores_per_router: expected a whole num",
        ),
        ({"type": "Tree"}, "topology.type: no 'Tree'; did you mean 'tree'"),
        (
            {"type": "mesh", "branching": 2},
            r"topology\.branching: expected a key of type mesh \(.*\), got one of type tre",
        ),
    ],
)
def test_wrong_tori_and_trees_are_refused(topology, message):
    with pytest.raises(nm.InputError, match="^system '(mine|loihi2)', .*" + message):
        from_topology(**topology)


# ---------------------------------------------------------------------------------------------------- from_networkx


def test_nodes_are_routers_in_node_order():
    G = nx.Graph()
    G.add_nodes_from("cab")
    G.add_edges_from([("a", "b"), ("b", "c")])
    system = nm.System.from_networkx(G, 3)
    assert classes(system).keys() == {(1, 2), (2, 1), (2, 0), (0, 2)}
    assert system.n_cores == 9
    assert system.name == "graph"


def test_attributes_of_nodes_and_edges_by_hand():
    G = nx.Graph()
    for i, attributes in enumerate([{"cores": 1}, {"cores": 0}, {"chip": 1}]):
        G.add_node(i, pos=(i, -i), **attributes)
    G.add_edge(0, 1, link_class="mesh_y")
    G.add_edge(1, 2)
    system = nm.System.from_networkx(G, 2, masked_cores=[5], name="mine", combine="max_plus_barrier")
    assert system.masked_cores == (1, 2, 3, 5)
    assert system.chip_of_router.tolist() == [0, 0, 1]
    assert classes(system)[0, 1] == "mesh_y"
    assert classes(system)[2, 1] == "chip"
    assert system.router_xy.tolist() == [[0, 0], [1, -1], [2, -2]]
    assert (system.name, system.combine) == ("mine", "max_plus_barrier")
    for i in G:
        G.nodes[i].update(x=i, y=0.5)
    assert nm.System.from_networkx(G).router_xy[:, 1].tolist() == [0.5] * 3


def test_edges_of_a_digraph_go_one_way():
    assert classes(nm.System.from_networkx(nx.cycle_graph(3, nx.DiGraph))).keys() == {(0, 1), (1, 2), (2, 0)}
    assert len(classes(nm.System.from_networkx(nx.cycle_graph(3)))) == 6


def test_torus_of_networkx_is_the_torus():
    G = nx.grid_2d_graph(4, 4, periodic=True)
    for a, b, attributes in G.edges(data=True):
        attributes["link_class"] = "mesh_x" if a[0] == b[0] else "mesh_y"
    assert nm.System.from_networkx(G) == from_topology(type="torus", width=4, height=4)


def test_costs_are_given_as_for_a_mesh():
    given_costs = {"t_synop_s": 1e-9, "e_link_j": {"chip": 1e-12}, "bandwidth_bit_per_s": 1e9, "neurons": 7}
    system, mesh = nm.System.from_networkx(nx.path_graph(3), **given_costs), nm.mesh_system(3, 1, **given_costs)
    assert system.costs == mesh.costs
    assert system.capacities == mesh.capacities
    with pytest.raises(nm.InputError, match=r"System\.from_networkx: unknown cost 't_synop'; did you mean 't_synop_s'"):
        nm.System.from_networkx(nx.path_graph(3), t_synop=1.0)


def with_node(**attributes):
    G = nx.path_graph(3)
    G.nodes[1].update(attributes)
    return G


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.Graph(), r"topology\.routers: expected a whole number >= 1, got 0"),
        (nx.empty_graph(2), "expected a way between all routers, got none from 0 to 1"),
        (nx.path_graph(3, nx.DiGraph), "expected a way between all routers, got none from 1 to 0"),
        (nx.Graph([(0, 1), (1, 1)]), "expected two different routers, got 1 twice"),
        (nx.MultiGraph([(0, 1), (0, 1)]), "the link from router 0 to 1 is there already"),
        (
            nx.Graph([(0, 1, {"link_class": "fast"})]),
            "entry 0: no link class 'fast'; choose one of: chip, mesh_x, mesh_y",
        ),
        (with_node(chip=2), "expected chip ids without a gap from 0 to 2, got no router on chip 1"),
        (with_node(chip="b"), "node 1, chip: expected a whole number >= 0, got 'b'"),
        (with_node(cores=3), "at most cores_per_router = 2 cores at a router, got 3 at router 1"),
        (with_node(cores=-1), "node 1, cores: expected a whole number >= 0, got -1"),
        (with_node(pos=(0, 1)), r"topology\.xy: expected x and y for each of the 3 routers, got 1"),
        (with_node(x=0), None),
        (nx.path_graph(3000), "expected at most 2048 routers, got 3000"),
        ([(0, 1)], r"expected a networkx graph, got \[\(0, 1\)\]"),
    ],
)
def test_wrong_networkx_graphs_are_refused(graph, message):
    if message is None:  # half a place is none
        assert nm.System.from_networkx(graph, 2).router_xy is None
        return
    with pytest.raises(nm.InputError, match=f"^system 'graph'.*{message}"):
        nm.System.from_networkx(graph, 2)


def test_wrong_number_of_cores_is_refused():
    with pytest.raises(nm.InputError, match="cores_per_router: expected a whole number >= 1, got 0"):
        nm.System.from_networkx(nx.path_graph(2), 0)
