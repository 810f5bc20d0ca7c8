"""Runs in memory and as folders."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

import neuromap_moo as nm
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.checkpoint import CHECKPOINT_SCHEMA, fingerprint_of
from neuromap_moo.models.metrics import COLUMNS
from neuromap_moo.oracles.analytic import reference_metrics
from neuromap_moo.results.folder import CHOSEN, finish_folder, load_json, open_folder, save_tables
from neuromap_moo.results.front import load_table
from neuromap_moo.results.mesh_plot import _layer_colours, mesh_figure
from neuromap_moo.results.plotting import pareto_figure, write_pictures
from neuromap_moo.results.provenance import provenance_of
from neuromap_moo.results.report import write_report
from neuromap_moo.results.rescore import rescore
from neuromap_moo.results.run import search
from neuromap_moo.results.style import save_figure
from neuromap_moo.results.text import cell, headline


@pytest.fixture(scope="module")
def problem():
    return nm.MappingProblem(nm.sparse_mlp([64, 96, 64], 0.3, seed=2), nm.mesh_system(4, 3, 2, t_barrier_s=0.0))


@pytest.fixture(scope="module")
def run(problem):
    return search(problem, evaluations=800, seed=1, name="tiny", keep_evaluations=True)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    made = tmp_path_factory.mktemp("runs") / "run"
    open_folder(made, overwrite=False)
    save_tables(run, made)
    write_pictures(run, made)
    write_report(run, made)
    finish_folder(run, made, stopped=False)
    return made


def test_a_run_folder_holds_what_the_documents_promise(folder):
    pictures = ["pareto", "convergence", "operators", *(f"mesh_{name}" for name in CHOSEN)]
    expected = {f"{name}.{ending}" for name in pictures for ending in ("pdf", "png")} | {
        "front.csv",
        "baselines.csv",
        "mappings.json",
        "history.csv",
        "summary.json",
        "provenance.json",
        "report.html",
        "evaluations.npz",
    }
    assert {path.name for path in folder.iterdir()} == expected


def test_tables_have_the_promised_columns(folder, problem):
    assert list(load_table(folder / "front.csv")) == ["mapping_id", *COLUMNS, "robustness"]
    baselines = load_table(folder / "baselines.csv")
    assert list(baselines) == ["name", *COLUMNS, "note"]
    assert baselines["name"][0] == "vendor_default"
    history = load_table(folder / "history.csv")
    assert list(history)[:6] == [
        *("evaluations", "seconds", "hypervolume", "best_latency_s", "best_energy_j", "moves"),
    ]
    shares = [name for name in history if name.startswith("share_")]
    assert sum(float(history[name][-1]) for name in shares) == pytest.approx(2.0)  # of crossovers and of mutations
    assert int(history["moves"][-1]) > 0
    assert history["evaluations"][-1] == "800"


def test_metrics_recomputed_from_the_mappings_file_alone_are_identical(folder, problem):
    mappings, network, system = nm.load_mappings(folder / "mappings.json")
    assert (network, system) == (problem.network.digest, problem.system.digest)
    for table, key in (("front.csv", "mapping_id"), ("baselines.csv", "name")):
        rows = load_table(folder / table)
        # one by one and in another order than they were written in
        for i, name in reversed(list(enumerate(rows[key]))):
            metrics = problem.evaluate_mappings([mappings[name]])
            for column, unit in COLUMNS.items():
                value = metrics[column][0]
                read = rows[column][i]
                assert (str(value) if unit is None else float(value)) == (read if unit is None else float(read))


def test_summary_says_what_was_found(folder, run):
    summary = json.loads((folder / "summary.json").read_text())
    assert {k: summary[k] for k in ("name", "seed", "algorithm", "objectives", "evaluations", "ended")} == {
        "name": "tiny",
        "seed": 1,
        "algorithm": "nsga2",
        "objectives": ["latency_s", "energy_j"],
        "evaluations": 800,
        "ended": "evaluations",
    }
    front = load_table(folder / "front.csv")
    baselines = load_table(folder / "baselines.csv")
    for name in ("latency_s", "energy_j"):
        best, vendor = min(map(float, front[name])), float(baselines[name][0])
        worst = max(map(float, baselines[name]))
        assert summary["reference_point"][name] == pytest.approx(max(1.5 * vendor, 1.1 * worst))
        assert summary["best"][name]["reduction_vs_vendor_default"] == pytest.approx(1 - best / vendor)
        rival = min(map(float, baselines[name]))
        assert summary["best"][name]["reduction_vs_best_baseline"] == pytest.approx(1 - best / rival)
        assert float(baselines[name][baselines["name"].index(summary["best"][name]["best_baseline"])]) == rival
    assert summary["knee"] in front["mapping_id"]
    assert summary["hypervolume"] == pytest.approx(_hypervolume_by_hand(front, summary["reference_point"]))


def _hypervolume_by_hand(front, reference):
    """Area between the front and the reference point in units of the reference point, rectangle by rectangle."""
    points = sorted(zip(map(float, front["latency_s"]), map(float, front["energy_j"]), strict=True))
    area, ceiling = 0.0, 1.0
    for latency, energy in points:
        x, y = latency / reference["latency_s"], energy / reference["energy_j"]
        if x < 1 and y < ceiling:
            area += (1 - x) * (ceiling - y)
            ceiling = y
    return area


def test_kept_evaluations_hold_every_mapping(folder, problem, run):
    with np.load(folder / "evaluations.npz") as kept:
        k, cores, objectives = kept["cores_per_layer"], kept["core_of_slice"], kept["objectives"]
    assert len(k) == len(objectives) == 800
    ends = np.cumsum(k.sum(axis=1))
    for i in (0, 399, 799):
        mapping = nm.Mapping(k[i], cores[ends[i] - k[i].sum() : ends[i]])
        nm.check(mapping, problem)
        metrics = problem.evaluate_mappings([mapping])
        assert [metrics["latency_s"][0], metrics["energy_j"][0]] == objectives[i].tolist()


def test_report_is_one_self_contained_page(folder):
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 + len(CHOSEN)
    assert "http" not in page.replace("http-equiv", "")
    assert 'src="' in page
    for name in ("vendor_default", "equal_split", "m000"):
        assert f"<td>{name}</td>" in page


@pytest.mark.slow
def test_objectives_more_or_fewer_than_two_are_drawn_too(tmp_path):
    network, system = nm.sparse_mlp([64, 96, 64], 0.3), nm.mesh_system(4, 3)
    for objectives, panels in ((("energy_j",), 1), (("latency_s", "energy_j", "message_hops"), 3)):
        run = search(nm.MappingProblem(network, system, objectives), evaluations=200)
        figure = pareto_figure(run.front, run.baselines)
        assert len(figure.axes) == panels
        assert all(ax.get_xlabel() in objectives for ax in figure.axes)


def test_pareto_axes_carry_column_names_and_units(run):
    ax = pareto_figure(run.front, run.baselines).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("latency_s", "energy_j")
    assert ax.xaxis.get_major_formatter()(2e-6).endswith("µs")
    assert ax.yaxis.get_major_formatter()(2e-9).endswith("nJ")
    labels = ax.get_legend_handles_labels()[1]
    assert set(run.baselines.ids) | {"knee"} <= set(labels)


def test_every_baseline_is_drawn_once_where_it_is_by_a_marker_of_its_own(run):
    ax = pareto_figure(run.front, run.baselines).axes[0]
    drawn = [line for line in ax.lines if line.get_label() in run.baselines.ids]
    assert [line.get_label() for line in drawn] == list(run.baselines.ids)
    assert np.array([line.get_xydata()[0] for line in drawn]).tolist() == run.baselines.objectives.tolist()
    assert len({line.get_marker() for line in drawn}) == len(drawn) > 10


def test_mesh_picture_names_the_binding_term_and_the_busiest_link(run, problem):
    mapping = run.front.mappings[0]
    title = _title(problem, mapping)
    metrics = problem.evaluate_mappings([mapping])
    assert f"bound by {metrics['bottleneck'][0]}" in title
    assert "messages" in title.split("busiest link: ")[1]


def test_layer_shades_get_darker_from_layer_to_layer():
    for n in (2, 7, 20):
        grey = np.array(_layer_colours(n))[:, :3] @ [0.299, 0.587, 0.114]
        assert (np.diff(grey) < 0).all()


def test_provenance_names_versions_config_and_digests(problem):
    provenance = provenance_of(problem, {"seed": 1})
    assert provenance["config"] == {"seed": 1}
    assert provenance["network"] == problem.network.digest
    assert provenance["versions"]["numpy"] == np.__version__
    json.dumps(provenance)


def test_fingerprint_changes_with_everything_that_decides_the_result(problem):
    class Other(type(problem.evaluator)):
        name = "other"

    network, system = problem.network, problem.system
    usual = (problem, "nsga2", {"population": 20}, Budget(100), 1, False)
    others = [
        (nm.MappingProblem(nm.sparse_mlp([64, 96, 64], 0.3, seed=9), system), *usual[1:]),
        (nm.MappingProblem(network, nm.mesh_system(4, 4)), *usual[1:]),
        (nm.MappingProblem(network, system, ("energy_j",)), *usual[1:]),
        (nm.MappingProblem(network, system, evaluator=Other(problem.partitioner, system)), *usual[1:]),
        (problem, "nsga3", *usual[2:]),
        (problem, "nsga2", {"population": 30}, *usual[3:]),
        (*usual[:3], Budget(200), *usual[4:]),
        (*usual[:4], 2, False),
        (*usual[:5], True),
    ]
    assert len({fingerprint_of(*usual), *(fingerprint_of(*other) for other in others)}) == 1 + len(others)
    assert fingerprint_of(nm.MappingProblem(network, system), *usual[1:]) == fingerprint_of(*usual)


def test_folders_are_resumed_refused_or_cleared(tmp_path):
    assert open_folder(tmp_path / "new", overwrite=False) is False
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "checkpoint.pkl").write_bytes(pickle.dumps((CHECKPOINT_SCHEMA, "mine")))
    assert open_folder(unfinished, overwrite=False, fingerprint="mine") is True
    assert open_folder(unfinished, overwrite=True, fingerprint="mine") is True
    for fingerprint in ("another", ""):
        with pytest.raises(nm.InputError, match=r"unfinished run that belongs to a different search .* overwrite=true"):
            open_folder(unfinished, overwrite=False, fingerprint=fingerprint)
    assert open_folder(unfinished, overwrite=True, fingerprint="another") is False
    assert list(unfinished.iterdir()) == []
    finished = tmp_path / "finished"
    finished.mkdir()
    (finished / "summary.json").touch()
    for name in ("notes.txt", "pareto.tex", "mesh_notes.md"):
        (finished / name).touch()
    with pytest.raises(nm.InputError, match=r"holds a finished run; .* overwrite=true"):
        open_folder(finished, overwrite=False)
    assert open_folder(finished, overwrite=True) is False
    assert {p.name for p in finished.iterdir()} == {"notes.txt", "pareto.tex", "mesh_notes.md"}
    for overwrite in (False, True):
        with pytest.raises(nm.InputError, match="it holds other files"):
            open_folder(finished, overwrite=overwrite)
    (tmp_path / "file").touch()
    with pytest.raises(nm.InputError, match="expected a folder, it is a file"):
        open_folder(tmp_path / "file", overwrite=True)


def test_a_stopped_run_keeps_its_checkpoint(run, tmp_path):
    (tmp_path / "checkpoint.pkl").touch()
    (tmp_path / ".tmp_half").touch()
    finish_folder(run, tmp_path, stopped=True)
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.pkl", "summary.json"}
    finish_folder(run, tmp_path, stopped=False)
    assert {p.name for p in tmp_path.iterdir()} == {"summary.json"}


def test_rescoring_under_the_same_model_changes_nothing(run, folder, problem):
    again = rescore(problem, folder)
    assert again.non_dominated.all()
    assert again.left_out == 0
    assert set(again.front.mappings) == set(run.front.mappings)
    for column in COLUMNS:
        assert again.scored.table[column].tolist() == run.front.table[column].tolist()


def test_rescoring_under_other_costs_finds_the_front_among_all_kept_mappings(folder, problem):
    slow_links = nm.mesh_system(4, 3, 2, t_barrier_s=0.0, bandwidth_bit_per_s=1e9)
    other = nm.MappingProblem(problem.network, slow_links)
    result = rescore(other, folder)
    assert not result.non_dominated.all()
    front, scored = result.front.objectives, result.scored.objectives
    for point in scored:  # nothing among the old front beats the new one
        assert not ((point <= front).all(axis=1) & (point < front).any(axis=1)).any()
    assert len(result.front) >= 1


def test_rescoring_leaves_out_what_does_not_fit_and_refuses_what_does_not_belong(run, folder, problem, tmp_path):
    masked = nm.MappingProblem(problem.network, nm.mesh_system(4, 3, 2, masked_cores=[0]))
    with pytest.raises(nm.InputError, match=r"mapping 'm\d+' does not fit .* core 0 is masked out"):
        rescore(masked, folder)
    stranger = nm.MappingProblem(nm.sparse_mlp([64, 96, 64], 0.3, seed=3), problem.system)
    with pytest.raises(nm.InputError, match="give the network the run was made with"):
        rescore(stranger, folder)
    with pytest.raises(nm.InputError, match=r"expected the mappings\.json of a run"):
        rescore(problem, tmp_path)
    with pytest.raises(nm.InputError, match="expected the folder of a finished run"):
        load_json(tmp_path / "provenance.json")


def test_mesh_picture_names_an_inject_link_where_it_is_the_slowest():
    network = nm.sparse_mlp([8, 16], 1.0, activity=1.0, activity_sigma=0.0)
    problem = nm.MappingProblem(network, nm.mesh_system(2, 1, 2))
    # 8 messages to each of two slices on the other router: inject carries 16, the mesh link 16, eject 8; a slow
    # inject link is the one that counts.
    slow = nm.MappingProblem(network, nm.mesh_system(2, 1, 2, bandwidth_bit_per_s={"inject": 1e9}))
    mapping = nm.Mapping([1, 2], [0, 2, 3])
    assert "busiest link: (0,0)→(1,0) mesh_x, 16 messages" in _title(problem, mapping)
    assert "busiest link: inject of core 0, 16 messages" in _title(slow, mapping)
    # With one copy for both slices the core sends 8, and 8 go between the routers.
    shared = nm.MappingProblem(network, replace(slow.system, copies="per_route"))
    assert "busiest link: inject of core 0, 8 messages" in _title(shared, mapping)


def _title(problem, mapping):
    return mesh_figure(problem, mapping, "fastest").axes[0].get_title(loc="left")


def test_headline_speaks_plainly(run):
    first, *rest = headline(run)
    assert first.startswith(f"{len(run.front)} non-dominated mappings from 800 evaluations by nsga2")
    assert len(rest) == 3
    robust = f"{run.summary()['robust_mappings']} of {len(run.front)} mappings stay non-dominated on 90% or more"
    assert rest.pop().startswith(robust)
    assert "vendor_default" in rest[0]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("latency_s", 4.0874e-6, "4.087 µs"),
        ("bottleneck", "link", "link"),
        ("cores_used", 96, "96"),
        ("message_hops", 110087.4, "110.087 k"),
        ("throughput_hz", math.inf, "inf Hz"),
    ],
)
def test_cells_carry_units(column, value, text):
    assert cell(column, value) == text


@pytest.mark.parametrize(
    ("objectives", "style"),
    [(("latency_s", "energy_j"), "steps-post"), (("throughput_hz", "energy_j"), "steps-pre")],
)
def test_the_staircase_shows_only_what_is_attained(problem, objectives, style):
    run = search(nm.MappingProblem(problem.network, problem.system, objectives), evaluations=300)
    line = pareto_figure(run.front, run.baselines).axes[0].lines[0]
    assert line.get_drawstyle() == style


@pytest.mark.parametrize("shape", [(1, 60), (60, 1), (25, 25)])
@pytest.mark.default_cases(2)
def test_mesh_pictures_of_odd_shapes_fit_a_page(shape):
    problem = nm.MappingProblem(nm.sparse_mlp([30, 20], 0.5), nm.mesh_system(*shape))
    figure = mesh_figure(problem, nm.baselines(problem)["equal_split"], "split")
    assert max(figure.get_size_inches()) <= 11


# ------------------------------------------------------------------------------------------- systems that are no mesh


@pytest.mark.default_cases(1)
def test_search_on_graphs_from_end_to_end(graph_system):
    network = nm.sparse_mlp([30, 40, 20], 0.3, seed=4)
    problem = nm.MappingProblem(network, graph_system, objectives=("latency_s", "energy_j", "message_hops"))
    run = search(problem, evaluations=400, seed=1)
    for mapping, row in zip(run.front.mappings, run.front.objectives, strict=True):
        nm.check(mapping, problem)
        expected = reference_metrics(network, graph_system, mapping)
        assert row == pytest.approx([expected[name] for name in problem.objectives], rel=1e-9)
    assert search(problem, evaluations=400, seed=1).front.mappings == run.front.mappings


@pytest.mark.default_cases(1)
def test_picture_of_a_mapping_on_a_graph(graph_system, tmp_path):
    problem = nm.MappingProblem(nm.sparse_mlp([30, 40, 20], 0.3, seed=4), graph_system)
    figure = mesh_figure(problem, nm.baselines(problem)["equal_split"], "split")
    (ax, *_) = figure.axes
    assert {str(router) for router in range(graph_system.n_routers)} <= {text.get_text() for text in ax.texts}
    assert re.search(r"busiest link: router \d+→\d+ mesh_[xy], \d+ messages", ax.get_title(loc="left"))
    assert sum(hasattr(patch, "get_arrowstyle") for patch in ax.patches) == graph_system.links.source.size
    save_figure(figure, tmp_path, "split")
    assert {p.name for p in tmp_path.iterdir()} == {"split.pdf", "split.png"}


def two_slices_on(graph):
    two = nm.CoreGraph.from_networkx(nx.Graph([(0, 1, {"messages": 1.0})]))
    return nm.MappingProblem(two, nm.System.from_networkx(graph)), nm.Mapping((1, 1), (0, 1))


def test_picture_names_the_chips_of_a_graph():
    ring = nx.cycle_graph(4)
    nx.set_node_attributes(ring, {0: 0, 1: 0, 2: 1, 3: 1}, "chip")
    ax = mesh_figure(*two_slices_on(ring), "ring").axes[0]
    assert {"0:0", "0:1", "1:2", "1:3"} <= {text.get_text() for text in ax.texts}


@pytest.mark.parametrize("n", [2, 16, 300])
@pytest.mark.default_cases(1)
def test_routers_without_places_are_laid_out_the_same_every_time(n):
    problem, mapping = two_slices_on(nx.path_graph(2) if n == 2 else nx.random_regular_graph(3, n, seed=2))

    def places():
        figure = mesh_figure(problem, mapping, "graph")
        assert max(figure.get_size_inches()) <= 11
        return np.array([text.get_position() for text in figure.axes[0].texts])

    first = places()
    np.testing.assert_array_equal(first, places())
    assert len(first) == n + 2  # the routers' ids and the two slices
    assert len(np.unique(first, axis=0)) == len(first)


def test_links_past_other_routers_are_bent():
    square = nx.Graph([(0, 1), (1, 2), (0, 2)])  # 0 1 2 in a row, the link 0 - 2 goes round 1
    nx.set_node_attributes(square, {i: (10.0 * i, 0.0) for i in range(3)}, "pos")
    ax = mesh_figure(*two_slices_on(square), "row").axes[0]
    bends = [patch.get_connectionstyle().rad for patch in ax.patches if hasattr(patch, "get_connectionstyle")]
    assert sorted(bend > 0 for bend in bends) == [False] * 4 + [True] * 2
