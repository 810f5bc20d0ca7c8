"""The command line as a process of its own: killed, interrupted, started again, swept, on a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, SMALL, call

#: The program, with checkpoints so often that a short run has many, and nothing drawn.
WITH_CHECKPOINTS = """
from neuromap_moo.app.cli import main
from neuromap_moo.results import plotting
from neuromap_moo.evolution import driver
driver.CHECKPOINT_SECONDS = 0.1
plotting.save_figure = lambda figure, folder, name: (folder / f"{name}.png").write_bytes(b"")
main()
"""


#: The program, held up where it has written its first checkpoint until there is a file named go.
HELD = """
import pathlib, time
from neuromap_moo.app.cli import main
from neuromap_moo.results import plotting
from neuromap_moo.evolution import driver
save = driver.save_checkpoint

def save_and_wait(*given):
    save(*given)
    pathlib.Path("held").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)

driver.CHECKPOINT_SECONDS = 0.0
driver.save_checkpoint = save_and_wait
plotting.save_figure = lambda figure, folder, name: (folder / f"{name}.png").write_bytes(b"")
main()
"""


def start(*arguments, cwd, program=("-m", "neuromap_moo")):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *program, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["killed", "ctrl-c"]
)
@pytest.mark.process
def test_a_run_that_was_broken_off_goes_on_to_the_same_front(sent, code, here, monkeypatch, capsys):
    arguments = [*SMALL, "algorithm.local_share=0.5", "budget.evaluations=700"]
    process = start(*arguments, "output=run", cwd=here, program=("-c", HELD))
    wait_for(here / "held", process)
    process.send_signal(sent)
    (here / "go").touch()
    ended, out, err = finish(process)
    assert ended == code, err
    assert "Traceback" not in err
    if sent == signal.SIGINT:
        assert "non-dominated mappings" in out
        summary = json.loads((here / "run" / "summary.json").read_text())
        assert summary["ended"] == "stopped"
        assert 0 < summary["evaluations"] < 700
    ended, _, err = call(monkeypatch, capsys, *arguments, "seed=5", "output=run")
    assert (ended, "belongs to a different search" in err) == (2, True)
    ended, _, err = call(monkeypatch, capsys, *arguments, "output=run")
    assert (ended, "resuming" in err) == (0, True), err
    assert call(monkeypatch, capsys, *arguments, "output=whole")[0] == 0
    for name in ("front.csv", "mappings.json", "baselines.csv"):
        assert (here / "run" / name).read_bytes() == (here / "whole" / name).read_bytes()
    assert not (here / "run" / "checkpoint.pkl").exists()


@pytest.mark.process
def test_killed_three_times_and_started_again_the_front_is_byte_identical(here):
    often = ("-c", WITH_CHECKPOINTS)
    arguments = [*SMALL, "algorithm.local_share=0.5", "budget.evaluations=5000", "output="]
    undisturbed = start(*arguments[:-1], "output=whole", cwd=here, program=often)
    assert finish(undisturbed)[0] == 0
    for kill in range(3):
        process = start(*arguments[:-1], "output=killed", cwd=here, program=often)
        checkpoint = here / "killed" / "checkpoint.pkl"
        known = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 60
        while not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > known) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, f"kill {kill} came too late"
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        assert not (here / "killed" / "front.csv").exists()
    code, _, err = finish(start(*arguments[:-1], "output=killed", cwd=here, program=often))
    assert code == 0, err
    assert "resuming" in err
    for name in ("front.csv", "mappings.json", "baselines.csv"):
        assert (here / "killed" / name).read_bytes() == (here / "whole" / name).read_bytes()
    assert not (here / "killed" / "checkpoint.pkl").exists()


@pytest.mark.process
def test_ctrl_c_saves_everything_and_the_run_goes_on_from_there(here):
    often = ("-c", WITH_CHECKPOINTS)
    arguments = [*SMALL, "algorithm.local_share=0.5", "budget.evaluations=4000"]
    process = start(*arguments, "output=run", cwd=here, program=often)
    while not (here / "run" / "checkpoint.pkl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, err
    assert "Traceback" not in err
    assert "non-dominated mappings" in out
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert summary["ended"] == "stopped"
    assert 0 < summary["evaluations"] < 4000
    code, _, err = finish(start(*arguments, "seed=5", "output=run", cwd=here, program=often))
    assert code == 2
    assert "belongs to a different search" in err
    assert finish(start(*arguments, "output=run", cwd=here, program=often))[0] == 0
    assert finish(start(*arguments, "output=whole", cwd=here, program=often))[0] == 0
    assert (here / "run" / "front.csv").read_bytes() == (here / "whole" / "front.csv").read_bytes()


@pytest.mark.process
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_sweeps_over_seeds_and_algorithms(launcher, here):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code, _, err = finish(
        start(
            "-m",
            *SMALL,
            f"hydra/launcher={launcher}",
            "algorithm=nsga2,es",
            "seed=0,1",
            "budget.evaluations=200",
            cwd=here,
        )
    )
    assert code == 0, err
    summaries = [json.loads(p.read_text()) for p in (here / "outputs" / "small").glob("*/summary.json")]
    assert sorted((s["algorithm"], s["seed"]) for s in summaries) == [("es", 0), ("es", 1), ("nsga2", 0), ("nsga2", 1)]


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a Unix thing")
def test_progress_is_a_live_bar_on_a_terminal(here):
    import fcntl
    import pty
    import struct
    import termios

    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "neuromap_moo", *SMALL, "algorithm.local_share=0.5", "budget.evaluations=3000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=end)
    os.close(end)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    assert process.wait() == 0
    assert b"100%|" in shown
    assert b"3000/3000 evaluations" in shown


@pytest.mark.process
def test_a_reader_that_closes_early_is_no_error(here):
    process = start(*SMALL, "budget.evaluations=200", "output=run", cwd=here)
    process.stdout.close()
    process.stdout = None
    code, _, err = finish(process)
    assert code == 0, err
    assert "Traceback" not in err
    assert (here / "run" / "summary.json").exists()


@pytest.mark.process
def test_a_second_process_is_kept_out_of_a_folder_at_work(here):
    arguments = [*SMALL, "algorithm.local_share=0.5", "budget.evaluations=8000", "output=run"]
    first = start(*arguments, cwd=here, program=("-c", WITH_CHECKPOINTS))
    while not (here / "run" / "checkpoint.pkl").exists():
        assert first.poll() is None
        time.sleep(0.01)
    code, _, err = finish(start(*arguments, cwd=here))
    assert code == 2
    assert "another process is at work in it" in err
    assert finish(first)[0] == 0
    assert {p.name for p in here.iterdir()} == {"run"}


@pytest.mark.process
def test_sigterm_saves_like_ctrl_c(here):
    process = start(*SMALL, "budget.evaluations=100000", "output=run", cwd=here)
    while not (here / "run" / "checkpoint.pkl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 130, err
    assert (here / "run" / "front.csv").exists()
