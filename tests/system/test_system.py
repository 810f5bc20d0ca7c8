import copy
import re

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.system.composition import presets
from neuromap_moo.system.costs import COST_UNITS
from neuromap_moo.system.system import system_from_dict
from neuromap_moo.system.topology import KINDS, MESH_CLASSES

PRESETS = ("kapoho_point", "loihi1", "loihi2", "loihi2_152", "mesh", "torus", "tree")


@pytest.fixture
def loihi2_dict():
    """Return the preset as a dict of one's own, to be changed."""
    return copy.deepcopy(nm.load_system("loihi2").to_dict())


def write_yaml(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------------------------- presets


def test_presets_are_the_ones_documented():
    assert presets() == sorted(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_constant_of_a_preset_has_unit_source_and_kind(name):
    system = nm.load_system(name)
    assert system.name == name
    constants = {**system.capacities, **system.costs}
    assert set(COST_UNITS) <= set(constants)
    for key, c in constants.items():
        assert c.kind in KINDS, key
        assert len(c.source) > 5, key
        assert c.unit in ("s", "J", "W", "bit", "bit/s", "word", "neuron"), key
    assert system.topology.kind in KINDS
    assert system.topology.source


@pytest.mark.parametrize(
    ("name", "chips", "routers", "cores"),
    [
        ("loihi2", 1, 8 * 4, 128),
        ("loihi2_152", 1, 19 * 2, 152),
        ("loihi1", 1, 8 * 4, 128),
        ("kapoho_point", 8, 8 * 32, 8 * 128),
        ("mesh", 1, 64, 64),
        ("torus", 1, 64, 64),
    ],
)
def test_sizes_of_presets(name, chips, routers, cores):
    system = nm.load_system(name)
    assert (system.n_chips, system.n_routers, system.n_cores) == (chips, routers, cores)
    assert system.usable_cores.tolist() == list(range(cores))


def test_capacities_of_loihi2():
    system = nm.load_system("loihi2")
    assert (system.synapse_words, system.neurons_per_core) == (12_000, 8192)


def test_split_of_the_152_cores_is_labelled_an_assumption():
    topology = nm.load_system("loihi2_152").topology
    assert topology.kind == "assumed"
    assert "assumption" in topology.source


# -------------------------------------------------------------------------------------------------------- numbering


def test_numbering_on_two_chips_by_hand():
    # Two chips side by side, each 2 x 2 routers of 2 cores: routers 0 1 | 4 5
    #                                                                 2 3 | 6 7
    system = nm.mesh_system(2, 2, 2, chips_x=2)
    assert (system.n_chips, system.n_routers, system.n_cores) == (2, 8, 16)
    assert system.router_of_core.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    assert system.chip_of_router.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    xy = [[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [3, 0], [2, 1], [3, 1]]
    assert system.router_xy.tolist() == xy


def test_numbering_on_a_grid_of_chips_by_hand():
    # Chips 0 1 over 2 3, each 1 x 2 routers: chip 2 lies below chip 0 and starts at y = 2.
    system = nm.mesh_system(1, 2, chips_x=2, chips_y=2)
    assert system.router_xy.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    assert system.chip_of_router.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@given(st.tuples(*[st.integers(1, 4)] * 5))
def test_core_ids_follow_chip_then_router_then_core(shape):
    width, height, k, chips_x, chips_y = shape
    system = nm.mesh_system(width, height, k, chips_x=chips_x, chips_y=chips_y)
    per_chip = width * height * k
    assert system.n_cores == per_chip * chips_x * chips_y
    for core in range(system.n_cores):
        chip, local = divmod(core, per_chip)
        router = system.router_of_core[core]
        assert system.chip_of_router[router] == chip
        assert router == chip * width * height + local // k
        chip_y, chip_x = divmod(chip, chips_x)
        x, y = system.router_xy[router]
        assert x == chip_x * width + (local // k) % width
        assert y == chip_y * height + (local // k) // width


def test_masked_cores_are_not_usable():
    system = nm.mesh_system(2, 2, 2, masked_cores=[5, 0, 5, np.int64(3)])
    assert system.masked_cores == (0, 3, 5)
    assert system.usable_cores.tolist() == [1, 2, 4, 6, 7]
    assert system.n_cores == 8


# ----------------------------------------------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("width", "height", "chips_x", "chips_y"),
    [(1, 1, 1, 1), (4, 1, 1, 1), (1, 5, 1, 1), (3, 2, 1, 1), (4, 4, 1, 1), (2, 2, 2, 1), (2, 1, 1, 3), (2, 3, 2, 2)],
)
def test_routes_are_the_xy_paths_over_links_of_the_right_class(width, height, chips_x, chips_y):
    system = nm.mesh_system(width, height, chips_x=chips_x, chips_y=chips_y)
    links, routes = system.links, system.routes
    at = {}  # router by global position, worked out here from docs/systems.md
    for router in range(system.n_routers):
        chip, local = divmod(router, width * height)
        at[(chip % chips_x) * width + local % width, (chip // chips_x) * height + local // width] = router
    position = {router: xy for xy, router in at.items()}

    for a, (x, y) in position.items():
        for b, (x2, y2) in position.items():
            expected = []
            i, j = x, y
            while (i, j) != (x2, y2):
                before = (i, j)
                if i != x2:
                    i += 1 if x2 > i else -1
                else:
                    j += 1 if y2 > j else -1
                crosses = (before[0] // width, before[1] // height) != (i // width, j // height)
                name = "chip" if crosses else ("mesh_x" if before[1] == j else "mesh_y")
                expected.append((at[before], at[i, j], name))
            pair = a * system.n_routers + b
            intervals = slice(routes.start[pair], routes.start[pair + 1])
            used = [
                link
                for first, stop in zip(routes.first[intervals], routes.stop[intervals], strict=True)
                for link in range(first, stop)
            ]
            walked = [(links.source[n], links.target[n], MESH_CLASSES[links.link_class[n]]) for n in used]
            assert sorted(walked) == sorted(expected)
            assert routes.start[pair + 1] - routes.start[pair] <= 2


@pytest.mark.parametrize("shape", [(3, 2, 1, 1), (2, 2, 2, 3), (1, 1, 1, 1), (1, 4, 2, 1)])
def test_links_join_all_neighbours_both_ways_once(shape):
    width, height, chips_x, chips_y = shape
    system = nm.mesh_system(width, height, chips_x=chips_x, chips_y=chips_y)
    xy = system.router_xy
    pairs = list(zip(system.links.source.tolist(), system.links.target.tolist(), strict=True))
    neighbours = {
        (a, b) for a in range(system.n_routers) for b in range(system.n_routers) if np.abs(xy[a] - xy[b]).sum() == 1
    }
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == neighbours
    columns, rows = width * chips_x, height * chips_y
    assert len(pairs) == 2 * (rows * (columns - 1) + columns * (rows - 1))


def test_route_of_a_larger_chip_by_hand():
    # loihi2, 8 x 4: router 1 at (1, 0) to router 19 at (3, 2): 1 -> 2 -> 3 east, then 3 -> 11 -> 19 south
    system = nm.load_system("loihi2")
    pair = 1 * 32 + 19
    start, stop = system.routes.start[pair : pair + 2]
    links = [n for j in range(start, stop) for n in range(system.routes.first[j], system.routes.stop[j])]
    path = [(system.links.source[n], system.links.target[n]) for n in links]
    assert path == [(1, 2), (2, 3), (3, 11), (11, 19)]
    assert system.links.link_class[links].tolist() == [0, 0, 1, 1]


def test_costs_per_link_follow_the_class():
    system = nm.mesh_system(2, 1, chips_x=2, e_link_j={"mesh_x": 1.0, "mesh_y": 2.0, "chip": 3.0})
    # east 0-1, 1-2 (chip border), 2-3, then the same westward
    assert system.per_link("e_link_j").tolist() == [1.0, 3.0, 1.0, 1.0, 3.0, 1.0]


# ---------------------------------------------------------------------------------------------------------- barrier


def test_barrier_between_the_given_numbers_of_chips_by_hand():
    system = nm.load_system("loihi2")  # chips_1 0.2 us, 2: 1 us, 8: 10 us, 256: 14.3 us, 768: 16.2 us
    chips = np.array([1, 2, 4, 8, 16, 256, 768, 5000])
    # 4 chips: log(4/2)/log(8/2) = 1/2 of the way from 1 to 10; 16: log(2)/log(32) = 1/5 from 10 to 14.3
    expected = [0.2e-6, 1e-6, 5.5e-6, 10e-6, 10.86e-6, 14.3e-6, 16.2e-6, 16.2e-6]
    np.testing.assert_allclose(system.barrier_s(chips), expected, rtol=1e-12)


def test_barrier_with_one_number_is_the_same_for_all():
    system = nm.mesh_system(2, 2, t_barrier_s=3e-7)
    np.testing.assert_allclose(system.barrier_s(np.array([1.0, 3.0, 9.0])), 3e-7, rtol=1e-15)


# ------------------------------------------------------------------------------------------------------ mesh_system


def test_mesh_system_takes_numbers_and_dicts():
    base = nm.mesh_system(3, 2)
    system = nm.mesh_system(
        3,
        2,
        t_synop_s=1e-9,
        synapse_words=500,
        neurons=64,
        bandwidth_bit_per_s=1e9,
        e_link_j={"chip": 7e-12},
        t_barrier_s={"chips_1": 1e-9, "chips_4": 2e-9},
        name="mine",
        combine="max_plus_barrier",
    )
    assert (system.name, system.combine) == ("mine", "max_plus_barrier")
    assert system.cost("t_synop_s") == 1e-9
    assert (system.synapse_words, system.neurons_per_core) == (500, 64)
    assert {system.cost(f"bandwidth_bit_per_s.{c}") for c in ("mesh_x", "mesh_y", "chip", "inject", "eject")} == {1e9}
    assert system.cost("e_link_j.chip") == 7e-12
    assert system.cost("e_link_j.mesh_x") == base.cost("e_link_j.mesh_x")
    assert system.cost("t_barrier_s.chips_4") == 2e-9
    assert system.cost("t_barrier_s.chips_8") == base.cost("t_barrier_s.chips_8")
    given_constant = system.costs["t_synop_s"]
    assert (given_constant.unit, given_constant.kind, given_constant.source) == ("s", "assumed", "given by the user")


def test_mesh_system_of_the_size_of_loihi2_equals_the_preset():
    assert nm.mesh_system(8, 4, 4) == nm.load_system("loihi2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_synop": 1e-9}, "unknown cost 't_synop'; did you mean 't_synop_s'"),
        ({"synapse_word": 5}, "unknown cost 'synapse_word'; did you mean 'synapse_words'"),
        ({"e_link_j": {"chp": 1.0}}, r"unknown key 'e_link_j\.chp'; did you mean 'e_link_j\.chip'"),
        ({"t_synop_s": {"fast": 1.0}}, r"unknown key 't_synop_s\.fast'; did you mean 't_synop_s'"),
        ({"t_synop_s": -1.0}, r"costs\.t_synop_s: expected a number >= 0 in s, got -1\.0"),
        ({"t_synop_s": float("nan")}, r"costs\.t_synop_s: expected a number >= 0 in s, got nan"),
        ({"t_synop_s": float("inf")}, r"costs\.t_synop_s: expected a number >= 0 in s, got inf"),
        ({"t_synop_s": "fast"}, r"costs\.t_synop_s: expected a number >= 0 in s, got 'fast'"),
        ({"t_synop_s": True}, r"costs\.t_synop_s: expected a number >= 0 in s, got True"),
        ({"t_synop_s": None}, r"costs\.t_synop_s: expected a number >= 0 in s, got None"),
        ({"message_bits": 0}, r"costs\.message_bits: expected a number > 0 in bit, got 0"),
        ({"bandwidth_bit_per_s": {"chip": 0}}, r"bandwidth_bit_per_s\.chip: expected a number > 0 in bit/s, got 0"),
        ({"synapse_words": 0}, r"capacities\.synapse_words: expected a number > 0 in word, got 0"),
        ({"neurons": -5}, r"capacities\.neurons: expected .* got -5"),
        ({"t_barrier_s": {"two": 1.0}}, r"t_barrier_s\.two: expected keys chips_1, chips_2"),
        ({"t_barrier_s": {"chips_0": 1e-9}}, r"t_barrier_s\.chips_0: expected keys chips_1, chips_2"),
        ({"masked_cores": [4]}, r"masked_cores: expected core ids in 0\.\.3, got \[4\]"),
        ({"masked_cores": [-1]}, "masked_cores: expected .*-1"),
        ({"masked_cores": [0.5]}, r"masked_cores: expected .*whole.*got 0\.5"),
        ({"masked_cores": [True]}, "masked_cores: expected .*whole.*got True"),
        ({"masked_cores": [0, 1, 2, 3]}, "masked_cores: all 4 cores are masked; leave some to use"),
        ({"combine": "maximum"}, "combine: got 'maximum'; did you mean 'max'"),
        ({"chips_x": 0}, r"topology\.chips_x: expected a whole number >= 1, got 0"),
        ({"cores_per_router": 1.5}, r"topology\.cores_per_router: expected a whole number >= 1, got 1\.5"),
        ({"width": True}, r"topology\.width: expected a whole number >= 1, got True"),
        ({"width": 100, "height": 100}, "at most 2048 routers, got 10000; use fewer chips or more cores per router"),
    ],
)
def test_mesh_system_refuses_wrong_values_by_their_full_name(arguments, message):
    with pytest.raises(nm.InputError, match=message):
        nm.mesh_system(**({"width": 2, "height": 2} | arguments))


@pytest.mark.parametrize("key", ["neurons", "synapse_words"])
def test_capacity_below_one_is_refused(key):
    with pytest.raises(nm.InputError, match=key):
        nm.mesh_system(2, 2, **{key: 0.5})


# ------------------------------------------------------------------------------------------------------------ dicts


@pytest.mark.parametrize("name", PRESETS)
def test_dict_round_trip_keeps_everything(name):
    system = nm.load_system(name)
    back = system_from_dict(system.to_dict())
    assert back.digest == system.digest
    assert back.to_dict() == system.to_dict()


def test_dict_round_trip_of_a_system_with_masks_as_yaml(tmp_path):
    system = nm.mesh_system(2, 3, 2, chips_y=2, masked_cores=(1, 4), combine="max_plus_barrier", e_link_j=1e-12)
    path = write_yaml(tmp_path / "mine.yaml", yaml.safe_dump(system.to_dict()))
    assert nm.load_system(path) == system
    assert nm.load_system(str(path)).digest == system.digest


def test_digest_counts_numbers_not_names():
    base = nm.mesh_system(2, 2)
    assert nm.mesh_system(2, 2, name="other") == base
    assert nm.mesh_system(2, 2, t_synop_s=base.cost("t_synop_s")) == base
    assert len({nm.mesh_system(2, 2, name="other"), base}) == 1
    assert base != "mesh"
    others = [
        nm.mesh_system(2, 3),
        nm.mesh_system(3, 2),
        nm.mesh_system(2, 2, 2),
        nm.mesh_system(2, 2, chips_x=2),
        nm.mesh_system(2, 2, chips_y=2),
        nm.mesh_system(2, 2, masked_cores=[0]),
        nm.mesh_system(2, 2, combine="max_plus_barrier"),
        nm.mesh_system(2, 2, t_synop_s=1e-9),
        nm.mesh_system(2, 2, neurons=10),
        nm.mesh_system(2, 2, e_link_j={"eject": 1e-9}),
        nm.mesh_system(2, 2, t_barrier_s={"chips_3": 1e-9}),
    ]
    assert len({base.digest, *(s.digest for s in others)}) == len(others) + 1


def test_equal_numbers_of_other_types_give_the_same_digest():
    assert nm.mesh_system(2, 2, synapse_words=500.0) == nm.mesh_system(2, 2, synapse_words=500)
    assert nm.mesh_system(2, 2, t_synop_s=np.float64(1e-9)) == nm.mesh_system(2, 2, t_synop_s=1e-9)


def test_numpy_integers_are_accepted_as_integers():
    assert nm.mesh_system(np.int64(2), 2, synapse_words=np.int64(500)) == nm.mesh_system(2, 2, synapse_words=500)


def edit(data, *path, value):
    """Set (or, with value Ellipsis, delete) one entry of nested dicts."""
    for key in path[:-1]:
        data = data[key]
    if value is ...:
        del data[path[-1]]
    else:
        data[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("topology",), ..., "topology: expected a mapping, got None; start the file with 'defaults:"),
        (("costs",), [], r"costs: expected a mapping, got \[\]"),
        (("capacities",), ..., "capacities: expected a mapping, got None"),
        (("colour",), "red", "unknown key 'colour'; choose one of: capacities, combine"),
        (("cost",), {}, "unknown key 'cost'; did you mean 'costs'"),
        (("topology", "type"), "donut", "topology.type: no 'donut'; choose one of: graph, mesh, torus, tree"),
        (("topology", "widht"), 3, "topology: unknown key 'widht'; did you mean 'width'"),
        (("topology", "width"), ..., "topology.width: missing; expected routers per chip"),
        (("topology", "height"), "4", "topology.height: expected a whole number >= 1, got '4'"),
        (("masked_cores",), 5, "masked_cores: expected a list of core ids, got 5"),
        (("masked_cores",), 0, "masked_cores: expected a list of core ids, got 0"),
        (("masked_cores",), "12", "masked_cores: expected a list of core ids, got '12'"),
        (("masked_cores",), list(range(128)), "masked_cores: all 128 cores are masked"),
        (("combine",), "sum", "combine: got 'sum'; choose one of: max, max_plus_barrier"),
        (("costs", "t_synop_s"), ..., "costs.t_synop_s: missing; expected a number in s with unit, source and kind"),
        (("costs", "e_link_j", "chip"), ..., "costs.e_link_j.chip: missing; expected a number in J"),
        (("costs", "t_barrier_s", "chips_1"), ..., "t_barrier_s.chips_1: missing; expected the barrier time of one"),
        (("capacities", "neurons"), ..., "capacities.neurons: missing"),
        (("costs", "t_synops"), {"value": 1}, "costs.t_synops: 'unit' is missing"),
        (("costs", "t_synop_s"), 1e-9, "costs.t_synop_s: expected value, unit, source and kind, got 1e-09"),
        (("costs", "t_synop_s", "value"), -1.0, r"t_synop_s: expected a number >= 0 in s, got -1\.0"),
        (("costs", "t_synop_s", "value"), float("nan"), "t_synop_s: expected a number >= 0 in s, got nan"),
        (("costs", "t_synop_s", "value"), "fast", "t_synop_s: expected a number >= 0 in s, got 'fast'"),
        (("costs", "t_synop_s", "value"), None, "t_synop_s: expected a number >= 0 in s, got None"),
        (("costs", "t_synop_s", "unit"), "ns", "t_synop_s: expected unit 's', got 'ns'; convert the value"),
        (("costs", "t_synop_s", "kind"), "guess", r"t_synop_s: expected kind published \| derived \| assumed, got 'gu"),
        (("costs", "t_synop_s", "source"), ..., "t_synop_s: 'source' is missing; expected value, unit, source"),
        (("costs", "t_synop_s", "kinds"), "assumed", "t_synop_s: unknown key 'kinds'; did you mean 'kind'"),
        (("capacities", "synapse_words", "unit"), "byte", "synapse_words: expected unit 'word', got 'byte'"),
    ],
)
def test_system_from_dict_names_what_is_wrong(loihi2_dict, path, value, message):
    edit(loihi2_dict, *path, value=value)
    with pytest.raises(nm.InputError, match="'mine.yaml'.*" + message.replace("costs.", r"costs\.")):
        system_from_dict({k: v for k, v in loihi2_dict.items() if k != "name"}, where="mine.yaml")


def test_unknown_cost_is_refused_with_a_suggestion(loihi2_dict):
    loihi2_dict["costs"]["t_synops"] = dict(loihi2_dict["costs"]["t_synop_s"])
    with pytest.raises(nm.InputError, match="costs: unknown key 't_synops'; did you mean 't_synop_s'"):
        system_from_dict(loihi2_dict)


def test_system_from_dict_refuses_what_is_no_mapping():
    with pytest.raises(nm.InputError, match=r"system 'x': expected a mapping with topology, .* got \[1\]"):
        system_from_dict([1], where="x")


# ------------------------------------------------------------------------------------------------------------- YAML


def test_yaml_that_changes_one_number_of_a_preset(tmp_path):
    path = write_yaml(
        tmp_path / "mine.yaml",
        "defaults: [loihi2, _self_]\nname: mine\ncosts:\n  t_synop_s: {value: 1.0e-9}\n",
    )
    system, base = nm.load_system(path), nm.load_system("loihi2")
    assert system.name == "mine"
    assert system.cost("t_synop_s") == 1e-9
    changed = {key for key in base.costs if system.cost(key) != base.cost(key)}
    assert changed == {"t_synop_s"}
    assert system.capacities == base.capacities
    assert system.topology == base.topology


def test_yaml_may_take_another_file_of_ones_own(tmp_path):
    first = write_yaml(tmp_path / "first.yaml", "defaults: [loihi2, _self_]\nmasked_cores: [0, 1]\n")
    second = write_yaml(tmp_path / "second.yaml", f"defaults: ['{first}', _self_]\ncombine: max_plus_barrier\n")
    system = nm.load_system(second)
    assert (system.masked_cores, system.combine) == ((0, 1), "max_plus_barrier")


def test_number_without_a_point_is_a_number(tmp_path):
    # YAML 1.1 takes 4e-9 for text
    path = write_yaml(tmp_path / "mine.yaml", "defaults: [loihi2, _self_]\ncosts:\n  t_synop_s: {value: 4e-9}\n")
    assert nm.load_system(path).cost("t_synop_s") == 4e-9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"expected YAML, got something else"),
        ("", "expected a mapping, got nothing"),
        ("- 1\n- 2\n", r"expected a mapping, got \[1, 2\]"),
        ("name: x\n", "topology: expected a mapping, got None; start the file with 'defaults"),
        ("defaults: loihi2\n", "defaults: expected presets and then _self_, got 'loihi2'"),
        ("defaults: [1]\n", r"defaults: expected presets and then _self_, got \[1\]"),
    ],
)
def test_broken_yaml_is_named_with_what_is_wrong(tmp_path, text, message):
    path = write_yaml(tmp_path / "broken.yaml", text)
    with pytest.raises(nm.InputError, match=re.escape(str(path)) + ".*" + message):
        nm.load_system(path)


def test_binary_yaml_is_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(nm.InputError, match=r"binary\.yaml.*expected YAML, got something else"):
        nm.load_system(tmp_path / "binary.yaml")


def test_yaml_that_takes_itself_is_refused(tmp_path):
    path = tmp_path / "loop.yaml"
    write_yaml(path, f"defaults: ['{path}', _self_]\n")
    with pytest.raises(nm.InputError, match=r"loop\.yaml.*defaults: expected presets"):
        nm.load_system(path)


def test_unknown_preset_inside_defaults_is_refused(tmp_path):
    path = write_yaml(tmp_path / "mine.yaml", "defaults: [loihi_2, _self_]\n")
    with pytest.raises(nm.InputError, match="no such preset; did you mean 'loihi2'"):
        nm.load_system(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(nm.InputError, match=r"nowhere\.yaml.*no such file"):
        nm.load_system(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lohi2", r"'lohi2': no such preset; did you mean 'loihi2'\?"),
        ("xyz", "no such preset; choose one of: kapoho_point, loihi1, loihi2, loihi2_152, mesh, torus, tree"),
        ("file", r"no such preset.*or give the path of a \.yaml file"),
    ],
)
def test_unknown_preset_is_refused_with_a_suggestion(name, message):
    with pytest.raises(nm.InputError, match=message):
        nm.load_system(name)


def test_a_changed_number_loses_the_source_of_the_old_one(tmp_path):
    changed = "costs:\n  t_synop_s: {value: 5.0e-9}\n  e_synop_j: {value: 1.0e-12, source: mine}\n"
    (tmp_path / "mine.yaml").write_text("defaults: [loihi2, _self_]\n" + changed)
    costs = nm.load_system(tmp_path / "mine.yaml").costs
    assert (costs["t_synop_s"].value, costs["t_synop_s"].source, costs["t_synop_s"].kind) == (
        5e-9,
        "given by the user",
        "assumed",
    )
    assert costs["e_synop_j"].source == "mine"
    assert costs["t_dendop_s"] == nm.load_system("loihi2").costs["t_dendop_s"]


def test_defaults_are_found_beside_the_file_and_self_comes_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path / "base.yaml").write_text("defaults: [loihi2, _self_]\ntopology: {width: 3}\n")
    (tmp_path / "mine.yaml").write_text("defaults: [base.yaml, _self_]\ntopology: {height: 2}\n")
    topology = nm.load_system(tmp_path / "mine.yaml").topology
    assert (topology.width, topology.height) == (3, 2)
    (tmp_path / "mine.yaml").write_text("defaults: [_self_, base.yaml]\n")
    with pytest.raises(nm.InputError, match=r"expected presets and then _self_, got \['_self_', 'base.yaml'\]"):
        nm.load_system(tmp_path / "mine.yaml")
