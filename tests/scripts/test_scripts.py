"""Every script of benchmarks/ and experiments/ runs, small, and writes what it says it writes."""

from __future__ import annotations

import ast
import csv
import doctest
import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import neuromap_moo as nm

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
)


@pytest.fixture
def run(tmp_path):
    """Return a function: path of a script from the root, its options -> what it prints; run in a temporary folder."""

    def go(script, options):
        return python(str(ROOT / script), *shlex.split(options), folder=tmp_path)

    return go


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Return the same function for scripts that leave nothing behind in a process: without the time of imports."""

    def go(script, options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str((ROOT / script).parent))
        monkeypatch.setattr(sys, "argv", [script, *shlex.split(options)])
        runpy.run_path(str(ROOT / script), run_name="__main__")
        return capsys.readouterr().out

    return go


def python(*arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    command = [sys.executable, *arguments]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture
def load(monkeypatch):
    """Return a function: folder and name of a module of the scripts -> the module."""

    def get(folder, name):
        monkeypatch.syspath_prepend(str(ROOT / folder))
        return importlib.import_module(name)

    return get


def tables_in(page):
    """All rows of the Markdown tables in a text but their heads, as lists of cells."""
    lines = [line[1:-1] for line in page.splitlines() if line[:1] == "|"]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    rules = [n for n, row in enumerate(rows) if all(re.fullmatch("-+", cell) for cell in row)]
    return [row for n, row in enumerate(rows) if n not in rules and n + 1 not in rules]


def columns_of(path):
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_names_its_command_and_says_what_its_options_are(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert f"    python {path.relative_to(ROOT)}" in ast.get_docstring(tree, clean=False)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
            assert "help" in {keyword.arg for keyword in call.keywords}, f"line {call.lineno}"


@pytest.mark.parametrize(("folder", "name"), [("experiments", "common"), ("benchmarks", "compare_builds")])
def test_examples_in_docstrings(load, folder, name):
    failed, tried = doctest.testmod(load(folder, name))
    assert tried
    assert not failed


def test_tables_keep_cells_as_they_are(load):
    common = load("experiments", "common")
    page = common.table_of([{"a": "+0.10 %", "b": 3}, {"a": "", "b": "1e5"}])
    assert page.splitlines()[0] == "| a | b |"
    assert tables_in(page) == [["+0.10 %", "3"], ["", "1e5"]]


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        ([3.0, 1.0, 2.0], {}, "+2.0 (+1.0 to +3.0)"),
        ([0.0, 1.0, 2.0, 3.0, 4.0], {"quantiles": (0.25, 0.75)}, "+2.0 (+1.0 to +3.0)"),
        ([1.0, 1.04], {"unit": " %", "narrow": 0.05}, "+1.0 %"),
        ([1.0, 1.06], {"unit": " %", "narrow": 0.05}, "+1.0 % (+1.0 to +1.1)"),
        ([2.0], {}, "+2.0 (+2.0 to +2.0)"),
    ],
)
def test_spread(load, values, options, text):
    assert load("experiments", "common").spread(values, "{:+.1f}", **options) == text


# --------------------------------------------------------------------------------------------------------- benchmarks


def test_evaluation(run_here):
    out = run_here("benchmarks/evaluation.py", "--edges 300 600 --placements 20")
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["300", "600"]
    assert out.splitlines()[-1].startswith("time grows with edges to the power ")


def test_moves(run_here):
    out = run_here("benchmarks/moves.py", "--moves 500 --largest 120")
    assert re.search(r"^ +120 +2400 ", out, re.MULTILINE)
    assert re.search(r"^ +64 +\d+ +\d+$", out, re.MULTILINE)
    assert "changed layers" in out


@pytest.mark.slow
def test_search_profile(run):
    out = run("benchmarks/search_profile.py", "--evaluations 250").splitlines()
    parts = dict(re.findall(r"^  (\S[a-z ]*?) +([\d.]+) s ", "\n".join(out), re.MULTILINE))
    assert list(parts) == ["evaluation", "annealing runs", "other operators", "archive", "pymoo and the rest"]
    assert sum(map(float, parts.values())) == pytest.approx(float(out[0].split()[-2]), abs=0.03)
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    head = next(line for line in page.splitlines() if "| annealing runs |" in line)
    assert out[-1].count("|") == head.count("|")


def test_builds_are_compared_by_times_that_both_print(load):
    builds = load("benchmarks", "compare_builds")
    this, other = {"move us": 2.0, "new us": 1.0}, {"move us": 4.0, "old us": 1.0}
    assert builds.table_of(this, other).splitlines()[2].split() == ["move", "us", "2.000", "4.000", "0.50"]
    assert len(builds.table_of(this, other).splitlines()) == 3
    a = builds.Build(ROOT, sys.executable)
    turns = []
    times = iter([3.0, 4.0, 1.0, 6.0])

    def measure(build):
        turns.append(build)
        return {"s": next(times)}

    b = builds.Build(ROOT, "python")
    assert builds.least(measure, (a, b), 2) == [{"s": 1.0}, {"s": 4.0}]
    assert turns == [a, b, a, b]


def test_a_build_that_fails_is_told(load, tmp_path):
    build = load("benchmarks", "compare_builds").Build(tmp_path, sys.executable)
    assert build.run("-c", "print('told')")[0] == "told\n"
    with pytest.raises(SystemExit, match=r"expected exit code 0, got 3, in .*: no such thing"):
        build.run("-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)")


@pytest.mark.slow
def test_compare_builds(run):
    names = ["--help", "a wrong key", "100 evaluations of mlp_b"]
    out = run("benchmarks/compare_builds.py", f"'{ROOT}' --repeats 1 --only starts")
    assert [line.split("  ")[0] for line in out.splitlines()[-3:]] == names
    small = "--options --edges 300 --placements 50"
    out = run("benchmarks/compare_builds.py", f"'{ROOT}' --repeats 1 --only evaluation {small}")
    assert "edges 300: ours ms" in out


@pytest.mark.slow
def test_tracked_speeds(tmp_path):
    pytest.importorskip("pytest_benchmark")
    script = str(ROOT / "benchmarks" / "test_speed.py")
    out = python("-m", "pytest", script, "-n0", "--benchmark-disable", "-p", "no:cacheprovider", folder=tmp_path)
    assert re.search(r"\d+ passed", out)


@pytest.mark.slow
def test_quality(run, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("| date | version | instances | s x seeds |\n|---|---|---|---|\n")
    small = "--instances qap_36 --algorithms nsga2 stock_nsga2 scipy_faq --seeds 1 --seconds 0.2 --out out"
    out = run("benchmarks/quality.py", f"{small} --docs '{page}' --acceptance")
    assert [row[0] for row in tables_in(out)][:3] == ["nsga2", "stock_nsga2", "scipy_faq"]
    assert "SKIP hypervolume, qap_36: needs runs of annealing" in out
    assert page.read_text().splitlines()[2].split(" | ")[2:4] == ["1", "0.2 x 1"]
    assert (tmp_path / "out" / "anytime_qap_36.pdf").exists()


# -------------------------------------------------------------------------------------------------------- experiments


@pytest.mark.slow
def test_paper_tables(run, tmp_path):
    run("experiments/e01_paper_tables/run.py", "--seeds 1 --experiments mlp_a --evaluations 200 --out found")
    rows = tables_in((tmp_path / "found" / "table.md").read_text())
    assert [row[:2] for row in rows] == [["mlp_a", by] for by in ("nsga2", "es", "balanced_latency_s")]
    assert columns_of(tmp_path / "found" / "table.csv")[0]["latency_of_the_fastest"] == rows[0][2]


def test_what_an_ablation_takes_out_is_there(load, monkeypatch):
    ablation = load("experiments", "e02_ablation.run")
    taken = []
    monkeypatch.setattr(ablation, "replace", lambda of, name, value: taken.append((getattr(of, name), value)))
    for take_out, _ in ablation.VARIANTS.values():
        if take_out is not None:
            take_out()
    assert len(taken) == 6
    assert all(callable(old) == callable(new) for old, new in taken)
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="has no 'gone' any more: this script must follow the change"):
        ablation.replace(nm, "gone", 0)


@pytest.mark.slow
def test_ablation_takes_every_ingredient_out(run, tmp_path):
    run("experiments/e02_ablation/run.py", "--seeds 1 --seconds 0.3 --instances mlp_b --out found")
    rows = columns_of(tmp_path / "found" / "table.csv")
    assert [row["taken out"] for row in rows[:3]] == ["nothing", "memetic step", "norm over links"]
    assert len(rows) == 7


@pytest.mark.slow
def test_fidelity(run, tmp_path):
    small = "--seeds 1 --jobs 1 --networks mlp_a --mappings 3 --evaluations 100 30 --neurons 64 --out found"
    run("experiments/e03_fidelity/run.py", small)
    rows = tables_in((tmp_path / "found" / "table.md").read_text())
    assert [row[:2] for row in rows[:4]] == [[r, "mlp_a"] for r in ("compute", "traffic", "preset", "barrier")]
    assert [row[:3] for row in rows[4:]] == [["mlp_a", "analytic", "100"], ["mlp_a", "packet", "30"]]
    assert len(columns_of(tmp_path / "found" / "dense_layer.csv")) == 2
    assert {p.name for p in tmp_path.glob("found/*.png")} == {"agreement.png", "dense_layer.png"}


@pytest.mark.slow
def test_outside_opinion(run, tmp_path):
    if (interpreter := os.environ.get("SANAFE_PYTHON")) is None:
        pytest.skip("SANAFE_PYTHON names no interpreter with SANA-FE")
    small = f"--python '{interpreter}' --mappings 4 --networks mlp_a --out found"
    run("experiments/e03_fidelity/outside_opinion.py", small)
    rows = tables_in((tmp_path / "found" / "sanafe.md").read_text())
    assert [row[2] for row in rows[:2]] == ["analytic", "packet"]
    assert len(rows) == 6


@pytest.mark.slow
def test_architectures(run, tmp_path):
    small = "--seeds 1 --jobs 1 --experiments rnn_a --evaluations 100 --out found"
    run("experiments/e04_architectures/run.py", small)
    rows = tables_in((tmp_path / "found" / "table.md").read_text())
    assert [row[:2] for row in rows] == [["rnn_a", "model"], ["rnn_a", "simulator"]]


@pytest.mark.slow
def test_orders(run_here, tmp_path):
    small = "--seeds 1 --networks power_law --evaluations 50 --out found"
    run_here("experiments/e04_architectures/orders.py", small)
    (row,) = tables_in((tmp_path / "found" / "orders.md").read_text())
    assert row[:2] == ["power_law", "3 of 3"]


@pytest.mark.slow
def test_graphs(run, tmp_path):
    run("experiments/e04_architectures/graphs.py", "--graphs shufflenet --evaluations 20 --out found")
    (row,) = tables_in((tmp_path / "found" / "graphs.md").read_text())
    assert row[:5] == ["shufflenet", "3.67 M", "0.13 G", "498 of 784", "12000"]


@pytest.mark.slow
def test_budget(run, tmp_path):
    small = "--seeds 1 --networks mlp_a --measurements 50 --out found"
    run("experiments/e05_budget/run.py", small)
    rows = tables_in((tmp_path / "found" / "table.md").read_text())
    assert [row[0] for row in rows] == ["guided (ours)", "NSGA-II", "ES of arXiv 2602.04717", "random"]
    assert {float(row["measurements"]) for row in columns_of(tmp_path / "found" / "curves.csv")} == {30.0, 50.0}
    assert (tmp_path / "found" / "mlp_a.png").exists()
    assert json.loads(next(tmp_path.glob("outputs/e05_budget/*.json")).read_text())["hypervolume"]


@pytest.mark.slow
def test_throughput(run, tmp_path):
    small = "--delay-s 0.7 --evaluations 12 --out found"
    run("experiments/e05_budget/throughput.py", small)
    rows = tables_in((tmp_path / "found" / "throughput.md").read_text())
    assert len(rows) == 4
    assert all(int(row[1]) >= int(row[2]) >= 12 for row in rows)
