"""Robust fronts: which mappings stay non-dominated when constants move within their brackets."""

from dataclasses import replace

import numpy as np
import pytest

import neuromap_moo as nm
from neuromap_moo.evolution.robust import robustness, sampled_costs
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.system.costs import Constant


def test_costs_are_drawn_within_their_brackets():
    system = nm.load_system("loihi2")
    drawn = [sampled_costs(system, np.random.default_rng(seed)) for seed in range(200)]
    t_synop = np.array([d["t_synop_s"] for d in drawn])
    assert 0.37e-9 <= t_synop.min() < 0.4e-9
    assert 0.7e-9 < t_synop.max() <= 0.76e-9
    assert np.median(t_synop) == pytest.approx(np.sqrt(0.37e-9 * 0.76e-9), rel=0.1)  # log-uniform
    e_dendop = np.array([d["e_dendop_j"] for d in drawn]) / system.cost("e_dendop_j")  # assumed, without a bracket
    assert 0.5 <= e_dendop.min() < 0.6 < 1.7 < e_dendop.max() <= 2.0
    assert all(d["bandwidth_bit_per_s.mesh_x"] == d["bandwidth_bit_per_s.mesh_y"] for d in drawn)
    assert "message_bits" not in drawn[0]  # published
    assert all(d["e_synmem_j"] == 0.0 for d in drawn)


def test_a_choice_that_hangs_on_one_constant_by_hand():
    layers = (nm.Layer("in", 8, "input", np.zeros(8)), nm.Layer("out", 8, "lif", np.zeros(8)))
    network = nm.Network("two", layers, (nm.Projection("in", "out", nm.Dense(8, 8), 8),))
    nothing = dict.fromkeys(("e_dendop_j", "e_synop_j", "e_synmem_j", "e_message_j", "e_link_j", "t_barrier_s"), 0.0)
    system = nm.mesh_system(6, 1, t_dendop_s=1.0, **nothing).with_costs(
        {
            "p_chip_w": Constant(1.0, "W", "by hand", "published"),
            "p_core_w": Constant(0.5, "W", "by hand", "published", 0.05, 5.0),
        }
    )
    # Two cores take 8 s, so (1 + 2p) * 8 J; six take 4 s, so (1 + 6p) * 4 J: the slower pays where p > 0.5 W.
    slow, fast = nm.Mapping((1, 1), (0, 1)), nm.Mapping((4, 2), (0, 1, 2, 3, 4, 5))
    problem = nm.MappingProblem(network, system)
    np.testing.assert_allclose(problem.evaluate_mappings([slow, fast])["energy_j"], (16.0, 16.0))
    shares = robustness(problem, stack([slow, fast]), 400, np.random.default_rng(0))
    assert shares[1] == 1.0
    assert shares[0] == pytest.approx(0.5, abs=0.08)


def test_shares_are_those_of_every_system_one_by_one():
    network = nm.sparse_mlp([60, 90, 40], 0.2, activity=0.3, seed=2)
    problem = nm.MappingProblem(network, nm.mesh_system(4, 4, synapse_words=400))
    mappings = list(nm.varied_mappings(problem, 12, np.random.default_rng(0)).values())
    shares = robustness(problem, stack(mappings), 25, np.random.default_rng(3))
    rng, stays = np.random.default_rng(3), np.zeros(12)
    for _ in range(25):
        system = problem.system.with_costs(sampled_costs(problem.system, rng))
        metrics = nm.MappingProblem(network, replace(system)).evaluate_mappings(mappings)
        F = np.stack([metrics["latency_s"], metrics["energy_j"]], axis=1)
        stays += [not any((g <= f).all() and (g < f).any() for g in F) for f in F]
    np.testing.assert_allclose(shares, stays / 25, atol=0.0401)  # ties count as one mapping
    assert 0 < (shares > 0).sum() <= 12


@pytest.mark.slow
def test_fronts_have_the_share_and_it_can_be_left_out():
    network = nm.sparse_mlp([60, 90, 40], 0.2, activity=0.3, seed=2)
    problem = nm.MappingProblem(network, nm.mesh_system(4, 4, synapse_words=400))
    run = nm.search(problem, evaluations=300, seed=1)
    share = run.front.table["robustness"]
    assert share.shape == (len(run.front),)
    assert (share >= 0).all()
    assert (share <= 1).all()
    assert share.max() > 0
    assert run.summary()["robust_mappings"] == (share >= 0.9).sum()
    bare = nm.search(problem, evaluations=300, seed=1, robustness_samples=0)
    assert "robustness" not in bare.front.table
    assert "robust_mappings" not in bare.summary()
    assert bare.front.mappings == run.front.mappings


def test_brackets_are_checked_and_go_with_the_value(tmp_path):
    constant = {"value": 1e-9, "unit": "s", "source": "me", "kind": "assumed"}
    for bracket, message in (
        ({"low": 2e-9, "high": 3e-9}, "expected low <= value <= high"),
        ({"low": 1e-10, "high": None}, r"t_synop_s\.high"),
        ({"low": "x", "high": 2e-9}, r"t_synop_s\.low"),
    ):
        with pytest.raises(nm.InputError, match=message):
            nm.load_system("loihi2", {"costs": {"t_synop_s": constant | bracket}})
    # Another value without a bracket has none: the preset's spoke of another number.
    changed = nm.load_system("loihi2", {"costs": {"t_synop_s": {"value": 5e-9}}}).costs["t_synop_s"]
    assert (changed.low, changed.high) == (None, None)
    kept = nm.load_system("loihi2", {"costs": {"t_synop_s": {"value": 5e-9, "low": 1e-9, "high": 6e-9}}})
    assert kept.costs["t_synop_s"].high == 6e-9
    assert kept.digest == nm.load_system("loihi2", {"costs": {"t_synop_s": {"value": 5e-9}}}).digest


def test_with_costs_shares_topology_and_checks():
    system = nm.mesh_system(3, 3)
    before = system.digest
    other = system.with_costs({"t_synop_s": 1e-9})
    assert other.topology is system.topology
    assert other.cost("t_synop_s") == 1e-9 != system.cost("t_synop_s")
    assert other.digest != before == system.digest
    with pytest.raises(nm.InputError, match="no cost 't_synops_s'; did you mean 't_synop_s'"):
        system.with_costs({"t_synops_s": 1.0})
    with pytest.raises(nm.InputError, match="t_synop_s"):
        system.with_costs({"t_synop_s": -1.0})
