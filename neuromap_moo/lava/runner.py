"""Run a script on Lava in a process of its own, with a time limit, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError, last_line
from neuromap_moo.processes import KEEPER

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).resolve().parents[2]  # where this package can be imported from

#: For one call of the worker.
TIME_LIMIT_S = 300.0

#: Characters of a folder for Lava's temporary files: it has sockets there, whose paths may have 107.
LONGEST_FOLDER = 60


def run_lava(
    worker: Path, what: str, given: str | Mapping[str, Any], *arguments: str, limit_s: float
) -> tuple[int | None, dict[str, NDArray[Any]], str]:
    """Run a worker that imports Lava; return its exit code, the arrays it wrote and the last line it said.

    It is told what to do and what is given: a path, or an object that it finds in a JSON file. The code is None where
    it had to be stopped after `limit_s` seconds. Nothing of it is left behind, however it, this process or the keeper
    between them ends; SLURM jobs that it starts are named for that.
    """
    prefix = f"nm{secrets.token_hex(2)}_"
    with tempfile.TemporaryDirectory(prefix="neuromap_moo_") as name:
        result, said, job = (Path(name) / file for file in ("result.npz", "said.txt", "job.json"))
        if not isinstance(given, str):
            job.write_text(json.dumps(given), encoding="utf-8")
            given = str(job)
        reading, writing = os.pipe()
        command = [sys.executable, str(KEEPER), str(reading), "--clean", prefix, name]
        command += [sys.executable, str(worker), what, given, str(result), prefix, *arguments]
        environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ  # of each of many processes
        environment |= {"TMPDIR": name} if len(name) < LONGEST_FOLDER else {}
        environment |= {"SLURM_JOB_NAME": prefix} if os.environ.get("SLURM") == "1" else {}
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        try:
            with open(said, "wb") as log:  # a pipe that fills up would stop it
                keeper = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(reading,), env=environment
                )
        finally:
            os.close(reading)
        code: int | None = None
        try:
            code = keeper.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(BrokenPipeError):
                os.write(writing, b".")  # upon which the keeper ends all, and cleans up
            os.close(writing)
            group = Path(name) / "group"
            if keeper.wait() < 0 and group.exists():  # killed itself
                left = [sys.executable, str(KEEPER), "--left", prefix, group.read_text(encoding="ascii")]
                subprocess.run(left, env=environment, check=False)
        arrays: dict[str, NDArray[Any]] = {}
        if code == 0 and result.is_file():
            with np.load(result, allow_pickle=False) as found:
                arrays = {key: found[key] for key in found.files}
        last = last_line(said.read_text(encoding="utf-8", errors="replace"))
        return code, arrays, last.removeprefix(f"{worker.stem}: ")[:300]


def called(path: Path, limit_s: float, what: str, *arguments: str) -> dict[str, NDArray[Any]]:
    """Run the worker on a user's model and return its arrays; InputError where it hangs or fails."""
    code, arrays, last = run_lava(WORKER, what, str(path.resolve()), *arguments, limit_s=limit_s)
    last = f": {last}" if last else ""
    if code is None:
        raise InputError(
            f"'{path}': Lava did not {what} it within {limit_s:g} s; it hangs where a process model raises{last}"
        )
    if not arrays:
        raise InputError(f"'{path}': expected a graph of Lava processes, could not {what} it{last}")
    return arrays
