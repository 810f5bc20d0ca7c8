"""Calibration: planted constants come back, and what the data cannot say is said so."""

import csv
from dataclasses import replace

import numpy as np
import pytest

import neuromap_moo as nm
from neuromap_moo.calibration import fit
from neuromap_moo.calibration.fit import calibrate
from neuromap_moo.calibration.measurements import Measurement, load_measurements
from neuromap_moo.calibration.terms import PREDICTED
from neuromap_moo.problem.evaluators import evaluator_for

PLANTED = {
    "t_dendop_s": 0.5,
    "t_synop_s": 1.6,
    "bandwidth_bit_per_s.mesh_x": 0.5,
    "bandwidth_bit_per_s.mesh_y": 0.7,
    "p_core_w": 1.5,
    "e_synop_j": 2.0,
    "e_message_j": 0.5,
}


def planted(system, factors):
    return system.with_costs({name: system.cost(name) * factor for name, factor in factors.items()})


def case(n=60, **costs):
    """A problem in which every one of dendops, synops and links binds in some mappings, and those mappings."""
    network = nm.sparse_mlp([200, 240, 60], [0.4, 0.02], activity=0.3, seed=2)
    costs = {"t_dendop_s": 3e-8, "bandwidth_bit_per_s": {"mesh_x": 6e9, "mesh_y": 6e9}, **costs}
    system = nm.mesh_system(5, 4, synapse_words=3000, **costs)
    problem = nm.MappingProblem(network, system)
    return problem, list(nm.varied_mappings(problem, n, np.random.default_rng(1)).values())


def measured(problem, system, mappings, evaluator, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    metrics = nm.MappingProblem(problem.network, system, evaluator=evaluator).evaluate_mappings(mappings)
    return [
        Measurement(str(i), *(float(metrics[c][i] * np.exp(noise * rng.normal())) for c in PREDICTED), 1)
        for i in range(len(mappings))
    ]


def fitted(problem, mappings, measurements, evaluator=None):
    def make(system):
        return evaluator_for(evaluator, problem.partitioner, system)

    return calibrate(
        problem.partitioner, problem.system, mappings, measurements, np.random.default_rng(0), "test.csv", make
    )


@pytest.mark.parametrize("combine", ["max", "max_plus_barrier"])
def test_exact_measurements_give_back_the_constants(monkeypatch, combine):
    monkeypatch.setattr(fit, "BOOTSTRAPS", 20)
    problem, mappings = case()
    problem = nm.MappingProblem(problem.network, replace(problem.system, combine=combine))
    system = planted(problem.system, PLANTED)
    metrics = nm.MappingProblem(problem.network, system).evaluate_mappings(mappings)
    bound = {name: (metrics["bottleneck"] == name).sum() for name in ("dendops", "synops", "link")}
    assert min(bound.values()) >= 3  # else there is nothing to find
    result = fitted(problem, mappings, measured(problem, system, mappings, "analytic"))
    found = {c.name: c for c in result.constants}
    for name in ("t_dendop_s", "t_synop_s", "p_core_w", "p_chip_w", "e_synop_j"):
        assert found[name].value == pytest.approx(system.cost(name), rel=1e-3), name
        assert found[name].status == "fitted"
    assert result.errors()["latency_s"]["largest"] < 1e-3 < 0.05 < result.errors()["latency_s"]["median_before"]
    assert result.errors()["energy_j"]["largest"] < 1e-3
    assert found["t_synop_s"].low <= found["t_synop_s"].value * 1.001
    # The calibrated system predicts what was measured, and says where its constants come from.
    again = nm.MappingProblem(problem.network, result.system).evaluate_mappings(mappings)
    np.testing.assert_allclose(again["latency_s"], metrics["latency_s"], rtol=1e-3)
    assert "fitted to 60 mappings of test.csv; 95 % interval" in result.system.costs["t_synop_s"].source
    assert result.system.costs["t_synop_s"].kind == "derived"


@pytest.mark.slow
def test_constants_planted_in_the_packet_simulator_come_back(monkeypatch):
    monkeypatch.setattr(fit, "BOOTSTRAPS", 50)
    problem, mappings = case(48)
    system = planted(problem.system, PLANTED)
    evaluator = {"name": "packet", "steps": 4}
    # The spikes of the measurement are others than those of the fit.
    taken = measured(problem, system, mappings, {**evaluator, "seed": 7}, noise=0.01)
    result = fitted(problem, mappings, taken, evaluator)
    found = {c.name: c for c in result.constants}
    told = [name for name in PLANTED if found[name].status == "fitted"]
    assert {"t_synop_s", "p_core_w", "e_synop_j"} <= set(told)
    assert {"bandwidth_bit_per_s.mesh_x", "bandwidth_bit_per_s.mesh_y"} & set(told)
    for name in told:
        if name.startswith(("t_", "bandwidth")):
            assert found[name].value == pytest.approx(system.cost(name), rel=0.05), name
        else:  # noise of 1 % of the energy is much more of a part of it, and the interval says so
            reach = found[name].high - found[name].low
            assert found[name].low - reach / 2 <= system.cost(name) <= found[name].high + reach / 2, name
    errors = result.errors()
    assert errors["latency_s"]["median"] < 0.03 < 0.15 < errors["latency_s"]["median_before"]
    # The analytic model alone cannot come as close: queues are not in it.
    plain = fitted(problem, mappings, taken).errors()
    assert errors["latency_s"]["median"] < plain["latency_s"]["median"]


def test_what_the_data_cannot_say_is_said(monkeypatch):
    monkeypatch.setattr(fit, "BOOTSTRAPS", 10)
    problem, mappings = case(40, e_synmem_j=0.0)
    result = fitted(problem, mappings, measured(problem, problem.system, mappings, "analytic", noise=0.01))
    found = {c.name: c for c in result.constants}
    assert found["t_barrier_s.chips_1"].status.startswith("does not bind")
    assert found["bandwidth_bit_per_s.chip"].status == "no data"  # there is one chip
    assert found["e_synmem_j"].status == "zero in preset"
    # All that is injected is ejected.
    assert found["e_link_j.inject"].status in ("only together with e_link_j.eject", "not identifiable")
    for c in result.constants:
        if c.status != "fitted":
            assert np.isnan([c.low, c.high]).all()
        if c.status in ("no data", "zero in preset"):
            assert c.value == c.preset


def test_a_constant_that_does_not_bind_stays_below_what_would_show(monkeypatch):
    monkeypatch.setattr(fit, "BOOTSTRAPS", 10)
    problem, mappings = case(40)
    # Measured on a chip whose updates take no time, fitted from one where they would decide.
    system = planted(problem.system, {"t_dendop_s": 1e-3})
    slow = nm.MappingProblem(problem.network, planted(problem.system, {"t_dendop_s": 20.0}))
    result = fitted(slow, mappings, measured(problem, system, mappings, "analytic", noise=0.002))
    found = {c.name: c for c in result.constants}
    assert found["t_dendop_s"].status.startswith("does not bind")
    assert found["t_dendop_s"].value < found["t_dendop_s"].preset / 5
    assert result.errors()["latency_s"]["largest"] < 0.05


def test_energy_may_be_missing(monkeypatch):
    monkeypatch.setattr(fit, "BOOTSTRAPS", 5)
    problem, mappings = case(24)
    taken = [m._replace(energy_j=np.nan) for m in measured(problem, problem.system, mappings, "analytic", 0.01)]
    result = fitted(problem, mappings, taken)
    assert set(result.errors()) == {"latency_s"}
    assert all(c.value == c.preset for c in result.constants if c.name.startswith(("e_", "p_")))
    assert {c.status for c in result.constants if c.name.startswith("p_")} == {"no data"}


def test_too_few_or_equal_measurements_are_refused():
    problem, mappings = case(12)
    taken = measured(problem, problem.system, mappings, "analytic")
    with pytest.raises(nm.InputError, match=r"expected at least 8 mappings .*got 5 of"):
        fitted(problem, mappings[:5], taken[:5])
    with pytest.raises(nm.InputError, match="do not all take the same time, got 12"):
        fitted(problem, mappings, [m._replace(latency_s=1e-6) for m in taken])


# ------------------------------------------------------------------------------------------------------ measurements


def write(path, *rows):
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(rows)
    return path


def test_repeats_of_a_mapping_are_taken_together(tmp_path):
    path = write(
        tmp_path / "m.csv",
        ("mapping_id", "latency_s", "energy_j", "repeats"),
        ("a", "1e-6", "2e-9", "3"),
        ("a", "2e-6", "", "1"),
        ("b", "5e-6", "", ""),
    )
    a, b = load_measurements(path, {"a": 0, "b": 0})
    assert a == Measurement("a", pytest.approx(1.25e-6), pytest.approx(2e-9), 4)
    assert (b.latency_s, b.repeats) == (5e-6, 1)
    assert np.isnan(b.energy_j)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("mapping_id", "latency"), ("a", "1")], "'latency_s' is missing"),
        ([], "'mapping_id' is missing"),
        ([("mapping_id", "latency_s"), ("c", "1")], "line 2: no mapping 'c'"),
        ([("mapping_id", "latency_s"), ("a", "0")], "line 2, latency_s: expected a positive number, got '0'"),
        ([("mapping_id", "latency_s"), ("a", "nan")], "latency_s: expected a positive number, got 'nan'"),
        ([("mapping_id", "latency_s"), ("a",)], "latency_s: expected a positive number, got None"),
        ([("mapping_id", "latency_s", "energy_j"), ("a", "1", "-2")], "energy_j: expected a positive number"),
        ([("mapping_id", "latency_s", "repeats"), ("a", "1", "0")], "repeats: expected a whole number of at least 1"),
    ],
)
def test_wrong_measurements_are_refused(tmp_path, rows, message):
    with pytest.raises(nm.InputError, match=message):
        load_measurements(write(tmp_path / "m.csv", *rows), {"a": 0})


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(nm.InputError, match=r"none\.csv'?: cannot be read"):
        load_measurements(tmp_path / "none.csv", {})
    (tmp_path / "raw.csv").write_bytes(b"\xff\xfe\x00mapping_id")
    with pytest.raises(nm.InputError, match=r"expected a CSV, got something else|is missing"):
        load_measurements(tmp_path / "raw.csv", {})


# --------------------------------------------------------------------------------------------------- varied mappings


def test_varied_mappings_are_legal_different_and_spread():
    problem, mappings = case(40)
    assert len(set(mappings)) == 40
    metrics = problem.evaluate_mappings(mappings)  # raises for one that breaks a rule
    assert metrics["cores_used"].max() >= 0.9 * problem.system.n_cores
    assert metrics["cores_used"].min() <= problem.partitioner.minimum.sum() + 1
    again = nm.varied_mappings(problem, 40, np.random.default_rng(1))
    assert list(again.values()) == mappings


def test_a_problem_of_few_mappings_gives_those_it_has():
    network = nm.sparse_mlp([4, 4], 1.0)
    problem = nm.MappingProblem(network, nm.mesh_system(2, 1))
    assert len(nm.varied_mappings(problem, 50, np.random.default_rng(0))) == 2
