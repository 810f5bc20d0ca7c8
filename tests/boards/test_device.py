"""Boards behind the device protocol: what they say is checked, what fails is tried again, nothing measured is lost."""

import hashlib
import json
import math
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.boards.protocol import FailureError, checked_ready, checked_result
from neuromap_moo.boards.scheduler import MOST_FAILURES
from neuromap_moo.boards.store import DONE, Store, key_of, keys_of
from neuromap_moo.boards.virtual_board import Options, VirtualBoard, planted, truth
from neuromap_moo.calibration.measurements import load_measurements
from neuromap_moo.errors import DeviceError, InputError
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.evaluator import MeasuringEvaluator
from neuromap_moo.models.packet import PacketEvaluator
from neuromap_moo.system.system import save_system

PYTHON = shlex.quote(sys.executable)
VIRTUAL = f"{PYTHON} -m neuromap_moo.workers.virtual_board"

#: A worker in few lines: what it answers to the n-th measurement, counted over restarts, is up to ANSWER.
WORKER = """
import json, os, sys, time
count = sys.argv[1]
def answered():
    n = int(open(count).read()) if os.path.exists(count) else 0
    open(count, "w").write(str(n + 1))
    return n
for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "hello":
        print(json.dumps({"type": "ready", "name": "fake", "metrics": ["latency_s", "energy_j"]}), flush=True)
    elif message["type"] == "measure":
        n, i, k = answered(), message["id"], message["repeats"]
        cores = len(message["mapping"]["core_of_slice"])
        good = {"type": "result", "id": i, "metrics": {"latency_s": [1.0 / cores] * k, "energy_j": [float(cores)] * k}}
        ANSWER
    else:
        break
"""


@pytest.fixture(autouse=True)
def package_for_workers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def worker(tmp_path):
    """Return a function: what to do with n, i, k and the right answer -> a command that does it."""
    made = []

    def make(answer="print(json.dumps(good), flush=True)"):
        path = tmp_path / f"worker_{len(made)}.py"
        made.append(path)
        path.write_text(WORKER.replace("ANSWER", textwrap.indent(answer, " " * 8).strip()))
        return f"{PYTHON} {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.count')))}"

    return make


@pytest.fixture(scope="module")
def network():
    return nm.sparse_mlp([24, 40, 16], 0.3, seed=1)


@pytest.fixture(scope="module")
def system():
    return nm.mesh_system(4, 3)


@pytest.fixture
def problem_on(network, system, tmp_path):
    """Return a function: command and options -> problem measured by it; all are closed at the end."""
    made = []

    def make(command, objectives=("latency_s", "energy_j"), folder=tmp_path / "run", **options):
        quick = {"time_limit_s": 20.0, "restart_s": 0.001, "control_every": 0, "confirm": 1, "repeats": 2}
        evaluator = {"name": "device", "command": command, "folder": str(folder), **quick, **options}
        made.append(nm.MappingProblem(network, system, objectives, evaluator))
        return made[-1]

    yield make
    for problem in made:
        problem.evaluator.close()


def mappings_of(problem, n):
    return list(nm.varied_mappings(problem.modelled(problem.system), n, np.random.default_rng(0)).values())


def statuses(problem):
    return [a.status for a in problem.evaluator.opened().attempts()]


# ---------------------------------------------------------------------------------------------------- protocol


RESULT = {"type": "result", "id": 7, "metrics": {"latency_s": [1.0, 2.0], "energy_j": [3.0, 4.0]}}
METRICS = ("latency_s", "energy_j")


def test_a_right_answer_is_taken():
    assert checked_result(json.dumps(RESULT), 7, METRICS, 2) == RESULT["metrics"]
    assert checked_ready('{"type":"ready","name":"x","metrics":["energy_j","latency_s","w"]}') == ("x", METRICS)


@pytest.mark.parametrize(
    ("change", "kind", "restart", "said"),
    [
        ({"id": 8}, "invalid", True, "expected an answer to id 7, got id 8"),
        ({"id": None}, "invalid", True, "id None"),
        ({"type": "ready"}, "invalid", True, "expected a result with metrics"),
        ({"metrics": {"latency_s": [1.0, 2.0]}}, "invalid", False, "energy_j: expected a list of 2 values, got None"),
        (
            {"metrics": {"latency_s": [1.0], "energy_j": [1.0, 1.0]}},
            "invalid",
            False,
            "latency_s: expected a list of 2",
        ),
        ({"metrics": {"latency_s": [1.0, math.nan], "energy_j": [1.0, 1.0]}}, "invalid", False, "finite values > 0"),
        ({"metrics": {"latency_s": [1.0, -1.0], "energy_j": [1.0, 1.0]}}, "invalid", False, "finite values > 0"),
        ({"metrics": {"latency_s": [1.0, "2"], "energy_j": [1.0, 1.0]}}, "invalid", False, "finite values > 0"),
        ({"type": "error", "kind": "transient", "message": "busy"}, "transient", False, "busy"),
        ({"type": "error", "kind": "mapping", "message": "too large"}, "refused", False, "too large"),
        ({"type": "error", "kind": "fatal", "message": "burnt"}, "transient", True, "burnt"),
        (
            {"type": "error", "kind": "odd", "message": "x"},
            "invalid",
            False,
            "expected kind transient, mapping or fatal",
        ),
    ],
)
def test_what_is_no_answer_is_refused(change, kind, restart, said):
    with pytest.raises(FailureError, match=re.escape(said)) as caught:
        checked_result(json.dumps({**RESULT, **change}), 7, METRICS, 2)
    assert (caught.value.kind, caught.value.restart) == (kind, restart)


@pytest.mark.parametrize("line", ["", "Segmentation fault", "[1]", "7", "null", "[" * 100_000, '{"type":'])
def test_garbage_is_refused(line):
    with pytest.raises(FailureError, match="expected a JSON object"):
        checked_result(line, 7, METRICS, 2)


@given(
    st.dictionaries(
        st.sampled_from(["type", "id", "kind", "metrics", "message"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=5)
            | st.sampled_from(["result", "error", "mapping", "transient", "fatal", 7]),
            lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(METRICS), x, max_size=2),
            max_leaves=6,
        ),
    )
)
def test_any_json_is_an_answer_or_a_failure(answer):
    try:
        values = checked_result(json.dumps(answer), 7, METRICS, 2)
    except FailureError:
        return
    assert all(len(v) == 2 and all(0.0 < x < math.inf for x in v) for v in values.values())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"type":"ready","name":"x","metrics":["energy_j"]}', "measures latency_s"),
        ('{"type":"ready","metrics":["latency_s"]}', "expected ready with name and metrics"),
        ('{"type":"error","kind":"fatal","message":"no chip"}', "refused to start: no chip"),
    ],
)
def test_a_worker_that_is_not_ready_is_refused(line, said):
    with pytest.raises(FailureError, match=said):
        checked_ready(line)


# ---------------------------------------------------------------------------------------------------- measuring


def test_values_come_from_the_worker_and_are_kept(worker, problem_on):
    problem = problem_on(worker())
    assert isinstance(problem.evaluator, MeasuringEvaluator)
    mappings = mappings_of(problem, 5)
    metrics = problem.evaluate_mappings(mappings)
    cores = np.array([m.cores_used for m in mappings])
    np.testing.assert_allclose(metrics["latency_s"], 1.0 / cores)
    np.testing.assert_allclose(metrics["energy_j"], cores)
    np.testing.assert_allclose(metrics["throughput_hz"], 2 * cores)  # two steps long, one inference a step
    assert metrics["attempts"].tolist() == [1] * 5
    problem.evaluate_mappings([*mappings, *mappings])
    assert statuses(problem) == [DONE] * 5
    other = problem_on("false")  # another process: the store answers
    np.testing.assert_array_equal(other.evaluate_mappings(mappings)["latency_s"], metrics["latency_s"])


def test_the_worker_is_told_network_system_and_mapping(network, system, problem_on, tmp_path):
    said = tmp_path / "said.json"
    answer = f"open({str(said)!r}, 'w').write(json.dumps([hello, message])); print(json.dumps(good), flush=True)"
    path = tmp_path / "telling.py"
    path.write_text(
        WORKER.replace("ANSWER", answer).replace(
            '    if message["type"] == "hello":\n', '    if message["type"] == "hello":\n        hello = message\n'
        )
    )
    problem = problem_on(f"{PYTHON} {path} {tmp_path / 'count'}")
    mapping = mappings_of(problem, 1)[0]
    problem.evaluate_mappings([mapping])
    hello, message = json.loads(said.read_text())
    assert nm.load_network(hello["network"]).digest == network.digest
    assert nm.load_system(Path(hello["system"])).digest == system.digest
    assert (hello["protocol"], message["repeats"], message["id"]) == (1, 2, 1)
    assert message["mapping"]["cores_per_layer"] == list(mapping.cores_per_layer)
    assert message["mapping"]["core_of_slice"] == list(mapping.core_of_slice)
    assert message["mapping"]["slices"][0]["layer"] == network.layers[0].name


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("os._exit(1)", "crashed"),
        ("time.sleep(60)", "timeout"),
        ("print('ouch', flush=True)", "invalid"),
        ("print('x' * 20_000_000, flush=True)", "invalid"),
        ("print(json.dumps({**good, 'id': i + 1}), flush=True)", "invalid"),
        ("print(json.dumps({'type': 'error', 'id': i, 'kind': 'transient', 'message': 'm'}), flush=True)", "transient"),
        ("good['metrics'].pop('energy_j'); print(json.dumps(good), flush=True)", "invalid"),
    ],
)
@pytest.mark.default_cases(3)
def test_a_failure_is_written_down_and_tried_again(answer, kind, worker, problem_on):
    usual = "print(json.dumps(good), flush=True)"
    problem = problem_on(worker(f"if n == 1:\n    {answer}\nelse:\n    {usual}"), time_limit_s=2.0)
    metrics = problem.evaluate_mappings(mappings_of(problem, 3))
    assert np.isfinite(metrics["latency_s"]).all()
    assert sorted(statuses(problem)) == sorted([DONE] * 3 + [kind])


def test_a_mapping_that_fails_three_times_is_infeasible_and_left_alone(worker, problem_on):
    problem = problem_on(worker("if cores == 3:\n    os._exit(1)\nprint(json.dumps(good), flush=True)"))
    mappings = sorted(mappings_of(problem, 8), key=lambda m: -m.cores_used)  # it works at first
    bad = [m.cores_used == 3 for m in mappings]
    assert 0 < sum(bad) < 8
    metrics = problem.evaluate_mappings(mappings)
    assert np.isnan(metrics["latency_s"]).tolist() == bad
    assert statuses(problem).count("crashed") == MOST_FAILURES * len(
        {m for m, b in zip(mappings, bad, strict=True) if b}
    )
    before = len(statuses(problem))
    problem.evaluate_mappings(mappings)
    assert len(statuses(problem)) == before


def test_a_board_that_is_busy_for_a_while_is_waited_for(worker, problem_on):
    busy = "print(json.dumps({'type': 'error', 'id': i, 'kind': 'transient', 'message': 'busy'}), flush=True)"
    problem = problem_on(worker(f"if 0 < n < 6:\n    {busy}\nelse:\n    print(json.dumps(good), flush=True)"))
    metrics = problem.evaluate_mappings(mappings_of(problem, 3))
    assert np.isfinite(metrics["latency_s"]).all()


@pytest.mark.slow
def test_a_mapping_is_not_blamed_for_a_board_that_dies(worker, problem_on):
    problem = problem_on(worker("if n:\n    os._exit(1)\nprint(json.dumps(good), flush=True)"))
    first, second = mappings_of(problem, 2)
    problem.evaluate_mappings([first])
    with pytest.raises(DeviceError, match="no board is left"):
        problem.evaluate_mappings([second])
    repaired = problem_on(worker())
    assert np.isfinite(repaired.evaluate_mappings([second])["latency_s"]).all()


def test_a_board_that_refuses_what_others_measure_is_left_alone(worker, problem_on):
    no = "print(json.dumps({'type': 'error', 'id': i, 'kind': 'mapping', 'message': 'no'}), flush=True)"
    problem = problem_on(worker(f"if n:\n    {no}\nelse:\n    print(json.dumps(good), flush=True)"))
    with pytest.raises(DeviceError, match="no"):
        problem.evaluate_mappings(mappings_of(problem, 6))


def test_boards_that_measure_different_things_are_refused(worker, problem_on, tmp_path):
    path = tmp_path / "latency_only.py"
    path.write_text(WORKER.replace(', "energy_j"]', "]").replace("ANSWER", "print(json.dumps(good), flush=True)"))
    slow = "time.sleep(0.2); print(json.dumps(good), flush=True)"
    problem = problem_on([worker(slow), f"{PYTHON} {path} {tmp_path / 'count'}"])
    metrics = problem.evaluate_mappings(mappings_of(problem, 12))
    measured = np.isfinite(metrics["energy_j"])
    assert measured.all() or not measured.any()  # whichever was ready first
    assert sum("all have to agree" in b.given_up for b in problem.evaluator.boards) == 1


def test_every_board_measures_the_control_at_first_and_now_and_then(worker, problem_on):
    slow = "time.sleep(0.01); print(json.dumps(good), flush=True)"
    problem = problem_on([worker(slow), worker(slow), f"{PYTHON} -c 'raise SystemExit(4)'"], control_every=5)
    mappings = mappings_of(problem, 40)
    problem.evaluate_mappings(mappings)
    attempts = problem.evaluator.opened().attempts()
    control = key_of(mappings[0])
    for board in ("board_0", "board_1"):
        own = [a.mapping == control for a in attempts if a.board == board]
        assert own.index(True) <= 1  # a board may begin before the control has
        gaps = np.diff(np.flatnonzero(own))
        assert (gaps <= 6).all()
        assert len(own) - np.flatnonzero(own)[-1] <= 6


def test_a_mapping_that_is_refused_is_asked_for_once(worker, problem_on):
    no = "print(json.dumps({'type': 'error', 'id': i, 'kind': 'mapping', 'message': 'no'}), flush=True)"
    problem = problem_on(worker(f"if cores == 3:\n    {no}\nelse:\n    print(json.dumps(good), flush=True)"))
    mappings = sorted(mappings_of(problem, 8), key=lambda m: -m.cores_used)
    for _ in range(2):
        metrics = problem.evaluate_mappings(mappings)
    assert np.isnan(metrics["energy_j"]).tolist() == [m.cores_used == 3 for m in mappings]
    assert statuses(problem).count("refused") == len({m for m in mappings if m.cores_used == 3})


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/nowhere/at_all", "ended with code 127"),
        (f"{PYTHON} -c 'raise SystemExit(4)'", "ended with code 4"),
        (f"{PYTHON} -c 'print(1, flush=True); input(); input()'", "expected a JSON object"),
    ],
)
@pytest.mark.default_cases(1)
def test_where_no_board_is_left_it_says_why(command, said, problem_on, tmp_path):
    problem = problem_on(command)
    with pytest.raises(DeviceError, match=f"no board is left to measure 1 mappings: board_0: .*{said}.*board_0.log"):
        problem.evaluate_mappings(mappings_of(problem, 1))
    assert (tmp_path / "run" / "device" / "board_0.log").exists()


def test_a_dead_board_holds_the_others_up_only_for_what_it_has(worker, problem_on):
    problem = problem_on(
        [
            worker(),
            f"{PYTHON} -c 'raise SystemExit(4)'",
            worker("if n > 2:\n    os._exit(1)\nprint(json.dumps(good), flush=True)"),
        ]
    )
    metrics = problem.evaluate_mappings(mappings_of(problem, 12))
    assert np.isfinite(metrics["latency_s"]).all()
    assert {a.board for a in problem.evaluator.opened().attempts() if a.status == DONE} <= {"board_0", "board_2"}


def test_a_board_without_energy_cannot_be_searched_for_it(problem_on, tmp_path):
    path = tmp_path / "latency_only.py"
    path.write_text(WORKER.replace(', "energy_j"]', "]").replace("ANSWER", "print(json.dumps(good), flush=True)"))
    problem = problem_on(f"{PYTHON} {path} {tmp_path / 'count'}", objectives=("latency_s", "cores_used"))
    run = nm.search(problem, "random", evaluations=20, options={"population": 10}, robustness_samples=0)
    assert np.isnan(run.front.table["energy_j"]).all()
    assert len(run.front) >= 1
    both = problem_on(f"{PYTHON} {path} {tmp_path / 'count'}")
    with pytest.raises(
        InputError, match=r"no board measures energy_j; leave it out, as in objectives=\[latency_s,cores"
    ):
        nm.search(both, "random", evaluations=20)


@pytest.mark.process
def test_a_run_with_latency_alone_ends_with_tables_figures_and_a_calibration(tmp_path):
    path = tmp_path / "latency_only.py"
    path.write_text(WORKER.replace(', "energy_j"]', "]").replace("ANSWER", "print(json.dumps(good), flush=True)"))
    command = [sys.executable, "-m", "neuromap_moo", "network.sizes=[24,40,16]", "evaluator=device", "output=run"]
    command += [f"evaluator.command='{sys.executable} {path} {tmp_path / 'count'}'", "budget.evaluations=20"]
    command += ["objectives=[latency_s,cores_used]", "algorithm=random"]
    for arguments in (command, [*command[:3], "task=measurements", "run=run", "output=tables"]):
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    pictures = {p.name for p in (tmp_path / "run").glob("mesh_*.png")}
    assert pictures == {"mesh_fastest.png", "mesh_knee.png", "mesh_vendor_default.png"}
    mappings = nm.load_mappings(tmp_path / "tables" / "mappings.json")[0]
    measured = load_measurements(tmp_path / "tables" / "measured.csv", mappings)
    assert len(measured) == len(mappings)
    assert all(np.isnan(m.energy_j) and m.latency_s > 0 for m in measured)


@pytest.mark.parametrize("stop_after", [3, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in (9, 20))])
@pytest.mark.default_cases(1)
def test_guided_search_can_be_stopped_in_its_first_generation(worker, problem_on, stop_after):
    """Before the baselines are measured, between them and the first generation, and within it."""
    problem = problem_on(worker("time.sleep(0.1); print(json.dumps(good), flush=True)"))

    def enough():
        return statuses(problem).count(DONE) >= stop_after

    n_baselines = len({key_of(b.mapping) for b in problem.named_baselines.values()})
    if stop_after < n_baselines:
        with pytest.raises(KeyboardInterrupt, match="measurements are kept"):
            nm.search(problem, "guided", evaluations=60, should_stop=enough, robustness_samples=0)
    else:
        run = nm.search(problem, "guided", evaluations=60, should_stop=enough, robustness_samples=0)
        assert not run.ended
        assert len(run.front) >= 1
    assert stop_after <= statuses(problem).count(DONE) <= stop_after + 4


def test_a_board_that_only_starts_does_not_hold_up_the_end(problem_on):
    problem = problem_on("sleep 60")
    mappings = mappings_of(problem, 2)
    began = time.monotonic()
    problem.evaluator.should_stop = lambda: time.monotonic() > began + 0.3
    assert np.isnan(problem.evaluator.evaluate(stack(mappings))["latency_s"]).all()
    assert time.monotonic() - began < 20.0
    board = problem.evaluator.boards[0]
    assert (board.failures, board.given_up, board.starting) == (0, "", False)


@pytest.mark.slow
def test_an_unfinished_run_is_listed_by_its_store(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "measurements.sqlite").touch()
    command = [sys.executable, "-m", "neuromap_moo", "task=measurements", "run=run", "output=tables"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected a finished run; measurements=run/measurements.sqlite in place of run=... lists" in done.stderr


@pytest.mark.slow
def test_a_worker_that_is_not_ready_in_time_is_stopped(problem_on):
    problem = problem_on(f"{PYTHON} -c 'import time; time.sleep(60)'", start_limit_s=0.2)
    with pytest.raises(DeviceError, match=r"no board is left .* board_0: no answer within the time limit"):
        problem.evaluate_mappings(mappings_of(problem, 1))
    assert {a.status for a in problem.evaluator.opened().attempts()} <= {"timeout"}


def test_a_board_that_does_not_start_is_told_of_at_once_and_with_its_last_words(problem_on):
    problem = problem_on(f"{PYTHON} -c 'raise SystemExit(\"no chip here\")'")
    said = []
    problem.evaluator.say = said.append
    with pytest.raises(DeviceError, match="no chip here"):
        problem.evaluate_mappings(mappings_of(problem, 1))
    assert said[0].startswith("board_0 does not start: the worker ended with code 1 (no chip here)")
    assert said[1].startswith("board_0 is left alone: ")
    assert len(said) == 2


def test_workers_end_with_the_evaluator_and_with_the_host(worker, problem_on, tmp_path):
    pid = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    problem = problem_on(worker(f"{pid}; print(json.dumps(good), flush=True)"))
    problem.evaluate_mappings(mappings_of(problem, 1))
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    problem.evaluator.close()
    assert not lives(pid)


@pytest.mark.process
def test_a_host_that_is_killed_leaves_no_process(tmp_path):
    pid = tmp_path / "pid"
    script = textwrap.dedent(f"""
        import time, pathlib
        from neuromap_moo.boards.process import BoardProcess
        from neuromap_moo.boards.protocol import FailureError
        hang = "import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
        log = pathlib.Path({str(tmp_path / "log")!r})
        board = BoardProcess("b", {PYTHON!r} + f" -c {{hang!r}}", {{}}, log, 600.0, 1.0)
        board.ready()
    """)
    host = subprocess.Popen([sys.executable, "-c", script])
    for _ in range(300):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.1)
    worker = int(pid.read_text())
    os.kill(worker, 0)
    host.kill()
    host.wait()
    for _ in range(100):
        if not lives(worker):
            break
        time.sleep(0.1)
    assert not lives(worker)


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": None}, "evaluator.command: expected the command line of a worker"),
        ({"command": []}, "evaluator.command: expected the command line"),
        ({"command": [3]}, "evaluator.command: expected the command line"),
        ({"command": " "}, "got an empty one"),
        ({"command": "a 'b"}, "No closing quotation"),
        ({"repeats": 0}, "evaluator.repeats: expected a whole number >= 1"),
        ({"time_limit_s": 0}, "evaluator.time_limit_s: expected a number > 0"),
        ({"reapets": 1}, "did you mean 'repeats'"),
    ],
)
def test_wrong_options_are_refused(options, said, network, system):
    with pytest.raises(InputError, match=re.escape(said)):
        nm.MappingProblem(network, system, evaluator={"name": "device", "command": "x", **options})


def test_core_graphs_are_refused(system):
    graph = nm.CoreGraph.from_networkx(nx.empty_graph(3))
    with pytest.raises(InputError, match="expected a network, got a core graph"):
        nm.MappingProblem(graph, system, evaluator={"name": "device", "command": "x"})


# ---------------------------------------------------------------------------------------------------- virtual board


def test_a_virtual_board_is_the_packet_simulator_with_other_constants(network, system, problem_on):
    problem = problem_on(f"{VIRTUAL} --seed 3 --noise 0")
    mappings = mappings_of(problem, 6)
    measured = problem.evaluate_mappings(mappings)
    exact = truth(network, system, Options(seed=3)).evaluate(stack(mappings))
    for name in METRICS:
        np.testing.assert_allclose(measured[name], exact[name], rtol=1e-12)
    as_told = nm.MappingProblem(network, system, evaluator="packet").evaluate_mappings(mappings)
    assert np.abs(measured["latency_s"] / as_told["latency_s"] - 1.0).min() > 0.02


def test_a_virtual_board_compiles_before_it_is_ready(network, system, tmp_path, monkeypatch):
    """A limit that a measurement is given is not used up by compiling, again and again where it is killed for that."""
    nm.save_network(network, tmp_path / "network.npz")
    save_system(system, tmp_path / "system.yaml")
    simulated, evaluate = [], PacketEvaluator.evaluate
    monkeypatch.setattr(PacketEvaluator, "evaluate", lambda self, ms: simulated.append(ms) or evaluate(self, ms))
    board = VirtualBoard(Options())
    board.start({"network": tmp_path / "network.npz", "system": tmp_path / "system.yaml"})
    assert len(simulated) == 1


def test_planted_constants_are_off_by_at_most_the_spread_and_differ_by_seed():
    system = nm.load_system("loihi2")
    drawn = [planted(system, seed, 2.0) for seed in (0, 1)]
    for other in drawn:
        factors = {n: other.cost(n) / system.cost(n) for n in system.costs if system.cost(n)}
        assert factors.pop("message_bits") == 1.0
        assert all(0.5 <= f <= 2.0 for f in factors.values())
        assert factors["e_link_j.mesh_x"] == pytest.approx(factors["e_link_j.mesh_y"])
    assert drawn[0].digest != drawn[1].digest


def test_noise_scatters_as_told_and_differs_by_attempt(problem_on):
    problem = problem_on(f"{VIRTUAL} --noise 0.05", repeats=40)
    mapping = mappings_of(problem, 1)
    problem.evaluate_mappings(mapping)
    problem.evaluator.request_attempts(mapping, 2)
    first, second = (a.metrics["latency_s"] for a in problem.evaluator.opened().attempts())
    assert np.std(np.log(first)) == pytest.approx(0.05, rel=0.5)
    assert set(first).isdisjoint(second)


@pytest.mark.slow
def test_a_virtual_board_dies_for_good(problem_on, tmp_path):
    problem = problem_on(f"{VIRTUAL} --dies-after 3 --memory {tmp_path / 'memory'} --crashes 0")
    problem.evaluate_mappings(mappings_of(problem, 3))
    problem.evaluator.close()
    other = problem_on(f"{VIRTUAL} --dies-after 3 --memory {tmp_path / 'memory'}", folder=tmp_path / "other")
    with pytest.raises(DeviceError, match="dead after 3 measurements"):
        other.evaluate_mappings(mappings_of(other, 1))


# ---------------------------------------------------------------------------------------------------- store


def some_mappings(n):
    return [nm.Mapping((1, 1), (0, i + 1)) for i in range(n)]


def test_attempts_come_back_as_they_were_written(tmp_path):
    store = Store(tmp_path / "s.sqlite", "net", "sys")
    first, second = some_mappings(2)
    a = store.begin(first, "board_0", "chip", "mapping", 2)
    b = store.begin(second, "board_1", "chip", "repeat", 3)
    store.end(b, "crashed", error="gone")
    store.end(a, DONE, {"latency_s": [1.5, 2.5]})
    store.end(a, "crashed", error="too late")  # ended already
    got = store.attempts()
    assert [(x.id, x.mapping, x.board, x.purpose, x.repeats, x.status) for x in got] == [
        (a, key_of(first), "board_0", "mapping", 2, DONE),
        (b, key_of(second), "board_1", "repeat", 3, "crashed"),
    ]
    assert (got[0].metrics, got[1].error) == ({"latency_s": [1.5, 2.5]}, "gone")
    assert got[0].ended_s >= got[0].started_s
    assert store.mappings([key_of(second)]) == {key_of(second): second}
    assert Store(tmp_path / "s.sqlite", "other", "sys").attempts() == []
    again = Store(tmp_path / "s.sqlite", "net", "sys").attempts()
    assert again == got


def test_keys_of_a_batch_are_those_of_its_mappings_and_stay_as_they_are_on_disk():
    mappings = [nm.Mapping((1, 2), (4, 0, 2**31 - 1)), nm.Mapping((2, 1), (4, 0, 7)), nm.Mapping((1, 1), (4, 0))]
    for _ in range(2):
        assert keys_of(stack(mappings)) == [key_of(m) for m in mappings]
    text = "[[1, 1], [4, 0]]"
    assert key_of(mappings[2]) == hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.process
def test_attempts_of_a_killed_process_are_lost_and_those_of_a_living_one_are_not(tmp_path):
    path = tmp_path / "s.sqlite"
    script = textwrap.dedent(f"""
        import time
        import neuromap_moo as nm
        from neuromap_moo.boards.store import Store
        store = Store({str(path)!r}, "net", "sys")
        mapping = nm.Mapping((1, 1), (0, 1))
        store.end(store.begin(mapping, "b", "d", "mapping", 1), "done", {{"latency_s": [1.0]}})
        store.begin(mapping, "b", "d", "mapping", 1)
        print("begun", flush=True)
        time.sleep(600)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    assert [a.status for a in Store(path, "net", "sys").attempts()] == [DONE, "running"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [a.status for a in Store(path, "net", "sys").attempts()] == [DONE, "lost"]


@pytest.mark.process
def test_several_processes_write_one_store(tmp_path):
    path = tmp_path / "s.sqlite"
    script = textwrap.dedent(f"""
        import sys
        import neuromap_moo as nm
        from neuromap_moo.boards.store import Store
        store = Store({str(path)!r}, "net", "sys")
        for i in range(40):
            attempt = store.begin(nm.Mapping((1, 1), (0, i + 1)), sys.argv[1], "d", "mapping", 1)
            store.end(attempt, "done", {{"latency_s": [float(attempt)]}})
    """)
    processes = [subprocess.Popen([sys.executable, "-c", script, f"board_{i}"]) for i in range(4)]
    assert [p.wait() for p in processes] == [0] * 4
    attempts = Store(path, "net", "sys").attempts()
    assert [a.id for a in attempts] == list(range(1, 161))
    assert all(a.metrics["latency_s"] == [float(a.id)] for a in attempts)


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path):
    from neuromap_moo.boards import store as module

    path = tmp_path / "s.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(module.MIGRATIONS[0])
    connection.execute("PRAGMA user_version = 1")
    connection.execute(
        "INSERT INTO attempts (network, system, mapping, board, device, purpose, repeats, status, metrics, host, "
        "process, started_s) VALUES ('net', 'sys', 'm', 'b', 'd', 'mapping', 1, 'done', "
        "'{\"latency_s\": [2.0]}', 'h', '1', 5.0)"
    )
    connection.commit()
    connection.close()
    assert [a.metrics for a in Store(path, "net", "sys").attempts()] == [{"latency_s": [2.0]}]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(module.MIGRATIONS),)
    connection.close()


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "text").write_text("latency\n" * 1000)
    with pytest.raises(InputError, match="expected an SQLite file that can be written, got 'file is not a database'"):
        Store(tmp_path / "text", "n", "s")
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE songs (name TEXT)")
    foreign.close()
    with pytest.raises(InputError, match="expected a store, it is another program's database"):
        Store(tmp_path / "foreign", "n", "s")
    Store(tmp_path / "newer", "n", "s").close()
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(InputError, match="expected schema version 2 or older, got 99"):
        Store(tmp_path / "newer", "n", "s")


# ---------------------------------------------------------------------------------------------------- command line


@pytest.mark.slow
@pytest.mark.process
def test_a_run_that_is_killed_again_and_again_loses_and_repeats_nothing(tmp_path):
    """Four boards that crash and hang, one of them dead after a while, the host killed five times."""
    boards = [
        f"{VIRTUAL} --crashes 0.1 --hangs 0.05 --delay-s 0.02 --luck {i}"
        + (f" --dies-after 40 --memory {tmp_path / 'memory'}" if i == 3 else "")
        for i in range(4)
    ]
    quoted = ",".join('"' + b.replace('"', '\\"') + '"' for b in boards)
    command = [
        *(sys.executable, "-m", "neuromap_moo", "network.sizes=[24,40,16]", "network.density=0.3", "name=hard"),
        *("system=mesh", "system.topology.width=4", "system.topology.height=3", "evaluator=device"),
        *(f"evaluator.command=[{quoted}]", "evaluator.time_limit_s=2", "evaluator.restart_s=0.1"),
        *("budget.evaluations=300", "algorithm.population=40", "output=run"),
    ]
    store = tmp_path / "run" / "measurements.sqlite"
    for _ in range(5):
        host = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_attempts(store, 30)
        host.kill()
        host.wait()
    before = rows(store, "SELECT id, metrics FROM attempts WHERE status = 'done'")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    after = dict(rows(store, "SELECT id, metrics FROM attempts WHERE status = 'done'"))
    assert all(after[i] == metrics for i, metrics in before)
    assert rows(store, "SELECT count(*) FROM attempts WHERE status = 'running'") == [(0,)]
    first = "SELECT mapping FROM attempts WHERE status = 'done' AND purpose = 'mapping'"
    twice = f"{first} GROUP BY mapping HAVING count(*) > 1"
    assert rows(store, twice) == []
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["evaluations"] == 300
    assert summary["measurements"]["done"] == len(after)
    listed = subprocess.run(
        [*command[:3], "task=measurements", "run=run", "output=listed", "format=parquet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    assert "board_2" in listed.stdout
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "listed" / "attempts.parquet")
    assert table.num_rows == len(rows(store, "SELECT id FROM attempts"))


def rows(store, query):
    connection = sqlite3.connect(store)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def wait_for_attempts(store, more):
    start = None
    for _ in range(600):
        time.sleep(0.1)
        try:
            n = rows(store, "SELECT count(*) FROM attempts WHERE status = 'done'")[0][0]
        except sqlite3.OperationalError:
            continue
        start = n if start is None else start
        if n >= start + more:
            return
    raise AssertionError("the run does not get on")


@pytest.mark.process
def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(tmp_path):
    command = [
        *(sys.executable, "-m", "neuromap_moo", "network.sizes=[24,40,16]", "network.density=0.3", "system=mesh"),
        *("system.topology.width=4", "system.topology.height=3", "evaluator=device"),
        *(f"evaluator.command='{VIRTUAL} --delay-s 0.1'", "budget.evaluations=40", "algorithm=random"),
        *("algorithm.population=20", "output=run"),
    ]
    host = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_attempts(tmp_path / "run" / "measurements.sqlite", 20)
    host.send_signal(signal.SIGINT)
    _, err = host.communicate(timeout=60)
    assert host.returncode == 130, err
    assert "Traceback" not in err
    before = rows(tmp_path / "run" / "measurements.sqlite", "SELECT count(*) FROM attempts")[0][0]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    after = rows(tmp_path / "run" / "measurements.sqlite", "SELECT count(*) FROM attempts")[0][0]
    assert after > before
    others = "SELECT count(*) FROM attempts WHERE status != 'done'"
    assert rows(tmp_path / "run" / "measurements.sqlite", others) == [(0,)]
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"<p>{after} of {after} attempts gave a result" in page
    assert "<td>board_0 (virtual board 0)</td>" in page
    assert re.search(r"<td>[\d.]+ [µn]s ±\d\.\d%</td>", page)


@pytest.mark.process
def test_a_host_without_boards_ends_with_one_line(tmp_path):
    command = [sys.executable, "-m", "neuromap_moo", "network.sizes=[24,40,16]", "evaluator=device", "output=run"]
    done = subprocess.run(
        [*command, "evaluator.command=/nowhere", "evaluator.restart_s=0"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert re.search("no board is left to measure .* the same command goes on", done.stderr)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "evaluator.command: expected the command line of a worker" in done.stderr


def test_the_example_of_the_documentation_works(problem_on, monkeypatch):
    problem = problem_on(f"{PYTHON} {shlex.quote(str(ROOT / 'docs' / 'example_worker.py'))}")
    mappings = mappings_of(problem, 3)
    metrics = problem.evaluate_mappings(mappings)
    np.testing.assert_allclose(metrics["energy_j"], [m.cores_used * 1e-9 for m in mappings])
    sizes = [layer.size for layer in problem.network.layers]
    fullest = [max(-(-n // k) for n, k in zip(sizes, m.cores_per_layer, strict=True)) for m in mappings]
    np.testing.assert_allclose(metrics["latency_s"], np.array(fullest) * 1e-6)
