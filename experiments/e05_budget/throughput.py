"""What unreliable boards cost: the same search of 300 evaluations on four virtual boards, faultless and not.

    python experiments/e05_budget/throughput.py [--delay-s 5]

A measurement takes 5 seconds and scatters by 3 %. Faulty boards crash in 10 % of the measurements and hang in 5 % until
the time limit, three times as long as a measurement; then one of them dies for good after 40 measurements, and the host
is killed with -9 five times and started again by the same command. The network is small, so that the time is that of
the boards, and the searches run at the same time. Writes throughput.md beside this file; takes about 15 minutes,
nearly all of it waiting.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tabulate import tabulate

from neuromap_moo.boards.store import DONE, attempts_table
from neuromap_moo.files import whole_file

HERE = Path(__file__).resolve().parent

BOARDS, EVALUATIONS, KILLS = 4, 300, 5
SEARCH = (sys.executable, "-m", "neuromap_moo", "network.sizes=[64,128,64]", "algorithm=nsga2", "output=run")
FAULTS = "--crashes 0.1 --hangs 0.05"


def run(delay_s: float, faulty: bool, dies: bool, kills: int) -> list[float]:
    """A row of the table but for the last column."""
    with tempfile.TemporaryDirectory() as folder:
        return searched(Path(folder), delay_s, faulty, dies, kills)


def searched(folder: Path, delay_s: float, faulty: bool, dies: bool, kills: int) -> list[float]:
    worker = f"{shlex.quote(sys.executable)} -m neuromap_moo.workers.virtual_board --delay-s {delay_s:g}"
    worker += f" {FAULTS}" if faulty else ""
    boards = [f"{worker} --luck {i}" for i in range(BOARDS)]
    if dies:
        boards[-1] += f" --dies-after 40 --memory {folder / 'memory'}"
    command = [
        *(*SEARCH, "evaluator=device", f"budget.evaluations={EVALUATIONS}", "algorithm.population=40"),
        *(f"evaluator.command={json.dumps(boards)}", f"evaluator.time_limit_s={3 * delay_s:g}", "evaluator.repeats=1"),
    ]
    store = folder / "run" / "measurements.sqlite"
    began = time.monotonic()
    for kill in range(kills + 1):
        host = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        while kill < kills and host.poll() is None and not store_has(store, (kill + 1) * 50):
            time.sleep(0.2)
        if kill < kills:
            host.kill()
        code = host.wait()
    if code:
        raise SystemExit(f"ended with code {code}: {shlex.join(command)}")
    wall_s = time.monotonic() - began
    table = attempts_table(store)
    took_s = np.nan_to_num(np.subtract(table["ended_s"], table["started_s"]))  # those that a kill cut off have no end
    done = np.array(table["status"]) == DONE
    measuring, failing = (100 * took_s[rows].sum() / (BOARDS * wall_s) for rows in (done, ~done))
    return [done.size, done.sum(), wall_s, measuring, failing, 100 - measuring - failing]


def store_has(store: Path, n_attempts: int) -> bool:
    return store.exists() and len(attempts_table(store)["id"]) >= n_attempts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay-s", type=float, default=5.0, help="of a measurement")
    delay_s = parser.parse_args().delay_s
    cases = {
        "faultless": (False, False, 0),
        "10 % crashes, 5 % hangs": (True, False, 0),
        "and one board dead after 40": (True, True, 0),
        f"and the host killed {KILLS} times": (True, True, KILLS),
    }
    with tempfile.TemporaryDirectory() as folder:  # what is compiled once on a machine is no part of the time
        subprocess.run([*SEARCH, "evaluator=packet", "budget.evaluations=50"], cwd=folder, check=True)
    with ThreadPoolExecutor(len(cases)) as pool:
        rows = list(pool.map(lambda case: run(delay_s, *case), cases.values()))
    table = []
    for name, row in zip(cases, rows, strict=True):
        table.append([name, *row, 100 * (1 - row[1] / row[2] / (rows[0][1] / rows[0][2]))])
    head = ("boards", "attempts", "done", "wall s", "measuring %", "failing %", "waiting %", "fewer results/s %")
    text = tabulate(table, head, tablefmt="github", floatfmt=("", ".0f", ".0f", ".0f", ".1f", ".1f", ".1f", ".1f"))
    lines = [
        "# What unreliable boards cost",
        "",
        f"Four virtual boards, {delay_s:g} s a measurement, a time limit of {3 * delay_s:g} s; NSGA-II with 300",
        "evaluations of a small network, the four searches at the same time. Of the time of four boards: in",
        "measurements that gave a result, in others, and waiting (for a restart, a pause, the last of them, or dead).",
        "Made by `python experiments/e05_budget/throughput.py`.",
        "",
        text,
        "",
    ]
    with whole_file(HERE / "throughput.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
