"""Benchmark instances: the same everywhere, with fronts that are what they say, replaced only by what was checked."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import neuromap_moo as nm
from neuromap_moo.app.settings import build_system
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.files import config_folder
from neuromap_moo.models.metrics import minimised
from neuromap_moo.problem.networks import build_network
from neuromap_moo.results.benchmark import best_known, instances
from neuromap_moo.results.benchmark.best_known import improve, start_instance, verify
from neuromap_moo.results.benchmark.instances import BLOCKS, INSTANCES

SHIPPED = ROOT / "instances"
PLANTED = [n for n, i in INSTANCES.items() if len(i.objectives) == 1 and i.build().planted is not None]


@pytest.fixture(scope="module")
def known():
    """Return a function: name -> benchmark, each made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = nm.benchmark(name)
        return made[name]

    return get


@pytest.fixture
def fronts(tmp_path):
    shutil.copytree(SHIPPED / "qap_36", tmp_path / "qap_36")
    shutil.copytree(SHIPPED / "placement_32", tmp_path / "placement_32")
    return tmp_path


def test_every_instance_is_listed_and_shipped():
    assert set(nm.benchmarks()) == set(INSTANCES) == {p.name for p in SHIPPED.iterdir()}
    assert all(nm.benchmarks().values())


def test_unknown_name_is_refused():
    with pytest.raises(nm.InputError, match=r"benchmark: no 'mlp_c'; did you mean 'mlp_b'\?"):
        nm.benchmark("mlp_c")


@pytest.mark.parametrize("name", INSTANCES)
@pytest.mark.default_cases(4)
def test_generators_make_the_same_at_every_call(name, known):
    built = INSTANCES[name].build()
    facts = json.loads((SHIPPED / name / "instance.json").read_text())
    assert (built.network.digest, built.system.digest) == (facts["network"], facts["system"])
    assert facts["generator"] == INSTANCES[name].call
    assert known(name).planted == built.planted


@pytest.mark.parametrize("name", INSTANCES)
@pytest.mark.default_cases(6)
def test_shipped_front_is_legal_non_dominated_and_gives_the_stored_numbers(name, known):
    b = known(name)
    for mapping in b.mappings:
        nm.check(mapping, b.problem)
    again = minimised(b.problem.evaluate_mappings(b.mappings), b.problem.objectives)
    np.testing.assert_allclose(b.objectives, again, rtol=1e-12)
    assert non_dominated_rows(b.objectives).all()
    assert (np.diff(b.objectives[:, 0]) >= 0).all()
    assert (b.objectives < b.reference_point).all()
    assert 1 <= len(b.mappings) <= best_known.MOST_POINTS
    facts = json.loads((SHIPPED / name / "instance.json").read_text())
    assert len(facts["points"]) == len(b.mappings)
    assert all("algorithm" in facts["runs"][i] for i in facts["points"])


@pytest.mark.parametrize("name", ["mlp_b", "placement_120", "torus_64", "qap_64"])
def test_oracle_agrees_on_shipped_mappings(name, known):
    for mapping in {known(name).mappings[0], known(name).mappings[-1]}:
        verify(known(name).problem, mapping)


@pytest.mark.parametrize("name", ["mlp_a", "mlp_b", "mlp_b_two_chips"])
def test_instances_of_experiments_are_those_of_the_command_line(name, known):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=[f"+experiment={name}"])
    network, system = (OmegaConf.to_container(config[group], resolve=True) for group in ("network", "system"))
    assert build_network(network) == known(name).problem.network
    assert build_system(system) == known(name).problem.system


@pytest.mark.parametrize(("shape", "least"), [(shape, least) for shape, least in BLOCKS.items() if shape != (3, 3)])
def test_blocks_cost_the_least_that_so_many_cells_allow(shape, least):
    cells = list(itertools.product(range(shape[0]), range(shape[1])))
    assert spread_of(cells) == least
    # As many cells anywhere in a box that holds every connected shape of so many.
    box = list(itertools.product(range(4), range(4)))
    assert min(spread_of(other) for other in itertools.combinations(box, len(cells))) == least


def test_nine_cells_cost_least_as_a_square():
    box = np.array(list(itertools.product(range(4), range(4))))
    distance = np.abs(box[:, None] - box[None]).sum(axis=2)
    chosen = np.array(list(itertools.combinations(range(16), 9)))
    total = sum(distance[chosen[:, i], chosen[:, j]] for i, j in itertools.combinations(range(9), 2))
    assert total.min() == BLOCKS[3, 3]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def spread_of(cells):
    return sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in itertools.combinations(cells, 2))


@pytest.mark.parametrize("name", PLANTED)
def test_planted_optimum_is_the_hops_of_the_planted_placement(name, known):
    b = known(name)
    nm.check(b.planted, b.problem)
    graph, system = b.problem.network, b.problem.system
    place = np.array(b.planted.core_of_slice)
    x, y = place % system.topology.width, place // system.topology.width
    s, t = graph.source, graph.target
    assert b.optimum == (graph.messages * (abs(x[s] - x[t]) + abs(y[s] - y[t]))).sum()
    assert b.objectives.min() == b.optimum
    if name == "grid_120":  # every message goes to a neighbour: none can do with less
        assert b.optimum == graph.messages.sum()


@pytest.mark.parametrize("name", PLANTED)
def test_no_swap_of_two_slices_beats_the_planted_placement(name, known):
    b = known(name)
    place = np.array(b.planted.core_of_slice)
    pairs = np.array(list(itertools.combinations(range(place.size), 2)))
    swapped = np.tile(place, (len(pairs), 1))
    swapped[np.arange(len(pairs))[:, None], pairs] = place[pairs[:, ::-1]]
    mappings = [nm.Mapping(b.planted.cores_per_layer, row) for row in swapped[:: len(swapped) // 500]]
    assert (b.problem.evaluate_mappings(mappings)["message_hops"] >= b.optimum).all()


def test_a_search_does_not_draw_the_planted_placement(known):
    planted = known("qap_36").planted.core_of_slice
    assert tuple(np.random.default_rng(0).permutation(36).tolist()) != planted


def test_measures_of_the_best_known_front_itself(known):
    b = known("placement_32")
    assert b.relative_hypervolume(b.objectives) == 1.0
    assert b.igd_plus(b.objectives) == 0.0
    worse = 0.5 * (b.objectives + b.reference_point)
    assert 0.0 < b.relative_hypervolume(worse) < 1.0
    assert b.igd_plus(worse) > 0.0
    assert b.hypervolume(b.reference_point[None]) == 0.0
    assert known("qap_36").igd_plus(known("qap_36").reference_point[None]) == pytest.approx(1.0)


@pytest.mark.parametrize("what", ["network", "system"])
def test_front_of_another_instance_is_refused(fronts, what):
    path = fronts / "qap_36" / "instance.json"
    facts = json.loads(path.read_text())
    facts[what] = "0" * 64
    path.write_text(json.dumps(facts))
    with pytest.raises(nm.InputError, match=f"benchmark 'qap_36': its {what} has digest .* belongs to 000000000000"):
        nm.benchmark("qap_36", fronts)


def test_damaged_folders_are_refused(fronts):
    (fronts / "qap_36" / "front.csv").write_text("mapping_id,message_hops\nm007,1.0\n")
    with pytest.raises(nm.InputError, match=r"benchmark 'qap_36': .* is damaged \(KeyError\('m007'\)\)"):
        nm.benchmark("qap_36", fronts)
    (fronts / "qap_36" / "instance.json").write_text("{}")
    with pytest.raises(nm.InputError, match=r"instance\.json': expected the description of a benchmark instance"):
        nm.benchmark("qap_36", fronts)


def test_better_mappings_are_merged_and_others_change_nothing(tmp_path):
    start_instance("placement_32", tmp_path)
    before = nm.benchmark("placement_32", tmp_path)
    origin = {"algorithm": "mine", "seed": 3}
    assert improve("placement_32", before.mappings, origin, tmp_path) == (0, 1.0)
    files = {p.name: p.read_bytes() for p in (tmp_path / "placement_32").iterdir()}
    worst = nm.baselines(before.problem)["vendor_default"]
    assert improve("placement_32", [worst], origin, tmp_path) == (0, 1.0)
    assert {p.name: p.read_bytes() for p in (tmp_path / "placement_32").iterdir()} == files

    better = nm.benchmark("placement_32").mappings
    added, gain = improve("placement_32", better, origin, tmp_path)
    after = nm.benchmark("placement_32", tmp_path)
    assert added == len(better) == len(after.mappings)
    assert gain == pytest.approx(before.relative_hypervolume(after.objectives))
    assert gain > 1.0
    facts = json.loads((tmp_path / "placement_32" / "instance.json").read_text())
    assert facts["runs"] == [origin]
    np.testing.assert_array_equal(after.reference_point, before.reference_point)


def test_points_beyond_the_most_are_thinned_out_but_the_ends_stay(fronts, monkeypatch):
    monkeypatch.setattr(best_known, "MOST_POINTS", 5)
    known = nm.benchmark("placement_32")
    (fronts / "placement_32" / "front.csv").unlink()
    start_instance("placement_32", fronts)
    improve("placement_32", known.mappings, {"algorithm": "mine"}, fronts)
    thin = nm.benchmark("placement_32", fronts)
    assert len(thin.mappings) == 5
    np.testing.assert_array_equal(thin.objectives.min(axis=0), known.objectives.min(axis=0))


def test_what_the_oracle_does_not_confirm_is_not_taken(tmp_path, monkeypatch):
    start_instance("placement_32", tmp_path)
    files = {p.name: p.read_bytes() for p in (tmp_path / "placement_32").iterdir()}
    better = nm.benchmark("placement_32").mappings
    told = best_known.reference_metrics
    monkeypatch.setattr(
        best_known,
        "reference_metrics",
        lambda *a: {k: 1.001 * v if k == "message_hops" else v for k, v in told(*a).items()},
    )
    with pytest.raises(nm.InputError, match=r"mapping with message_hops .*: the oracle gives"):
        improve("placement_32", better, {"algorithm": "mine"}, tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "placement_32").iterdir()} == files


def test_illegal_mappings_are_not_taken(fronts):
    with pytest.raises(nm.InputError, match="both on core 0; a core holds one slice"):
        improve("qap_36", [nm.Mapping((1,) * 36, (0,) * 36)], {"algorithm": "mine"}, fronts)


def test_seeds_give_other_instances():
    one, other = (instances.random_graph(4, 4, 4, seed) for seed in (0, 1))
    assert one.network.digest != other.network.digest


@pytest.mark.slow
def test_quality_benchmark_runs_goes_on_and_reports(fronts, tmp_path):
    out = tmp_path / "out"
    chosen = ["--instances", "qap_36", "placement_32", "--seeds", "2", "--fronts", str(fronts), "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "quality.py"), *chosen, "--seconds"]

    def run(*more):
        return subprocess.run([*command, *more], env=environment(), capture_output=True, text=True, timeout=300)

    first = run("0.3", "--jobs", "2", "--acceptance", "--update")
    assert first.returncode == 0, first.stderr
    assert "[32/32, 0 min left]" in first.stderr
    assert {line.split()[0] for line in first.stdout.splitlines() if line[:4] in ("PASS", "FAIL")} <= {"PASS", "FAIL"}
    with open(out / "results.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 32
    assert {r["algorithm"] for r in rows} >= {"nsga2", "annealing", "stock_nsga2", "scipy_faq", "scipy_2opt"}
    assert all(0.0 < float(r["relative_hypervolume"]) <= 1.0 + 1e-6 for r in rows if r["algorithm"] == "nsga2")
    assert "## placement_32" in (out / "table.md").read_text()
    assert (out / "anytime_qap_36.pdf").exists()
    nm.benchmark("placement_32", fronts)

    files = {p.name: p.read_bytes() for p in out.glob("*.csv")}
    (out / "runs" / "qap_36" / "random_s1.npz").unlink()
    again = run("0.3")
    assert again.returncode == 0, again.stderr
    assert "[1/1, 0 min left] qap_36 random seed 1" in again.stderr
    assert files.keys() == {p.name for p in out.glob("*.csv")}
    assert "holds runs of 0.3 s, this command asks for 0.4 s" in run("0.4").stderr


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import quality_report

    return quality_report


def test_holm_adjusts_as_in_his_paper(report):
    assert report.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert report.holm([0.9, 0.8]) == [1.0, 1.0]
    assert report.holm([]) == []


def test_history_keeps_rows_and_replaces_its_own(report, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{report.HISTORY_HEAD} ours |\n|---|---|---|---|---|\n\nText after.\n")
    for row in ("| d1 | v | 2 | 1 x 2 | 0.1 |", "| d2 | v | 2 | 1 x 2 | 0.2 |", "| d1 | v | 2 | 1 x 2 | 0.3 |"):
        report.add_to_history(page, row)
    assert page.read_text().splitlines()[4:] == [
        "| d2 | v | 2 | 1 x 2 | 0.2 |",
        "| d1 | v | 2 | 1 x 2 | 0.3 |",
        "",
        "Text after.",
    ]


def test_marks_get_the_state_before_them(monkeypatch, known):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import quality_rivals

    b = known("placement_32")
    recorder = quality_rivals.Recorder(b, 2.0)
    recorder.see(0.7, 10, b.objectives[:1])
    recorder.see(1.5, 20, b.objectives)
    history = recorder.finish()
    np.testing.assert_array_equal(history[:, 0], quality_rivals.marks(2.0))
    at = {seconds: history[history[:, 0] == seconds][0] for seconds in (0.5, 1.0, 2.0)}
    assert [at[s][1] for s in (0.5, 1.0, 2.0)] == [0, 10, 20]
    assert at[0.5][2] == 0.0
    assert at[2.0][2] == b.hypervolume(b.objectives)


@pytest.mark.slow
def test_stock_nsga2_keeps_to_the_seconds_and_finds_legal_mappings(monkeypatch, known):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import quality_rivals

    for name in ("mlp_a", "placement_32"):
        record = quality_rivals.run(name, "stock_nsga2", 0, 0.3, None)
        assert 0.3 <= record.facts["seconds"] < 3.0
        assert record.history[-1][1] >= 100
        for mapping in record.mappings:
            nm.check(mapping, known(name).problem)
