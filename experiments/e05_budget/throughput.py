"""What unreliable boards cost: the same search of 300 evaluations on four virtual boards, faultless and not.

    python experiments/e05_budget/throughput.py [--delay-s 5]

A measurement takes 5 seconds and scatters by 3 %. Faulty boards crash in 10 % of the measurements and hang in 5 % until
the time limit, three times as long as a measurement; then one of them dies for good after 40 measurements, and the host
is killed with -9 five times and started again by the same command. The network is small, so that the time is that of
the boards, and the searches run at the same time. Writes throughput.md beside this file; takes about 15 minutes,
nearly all of it waiting.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from neuromap_moo.boards.store import DONE, attempts_table

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, parser_of, write_page

BOARDS, KILLS = 4, 5
SEARCH = (sys.executable, "-m", "neuromap_moo", "network.sizes=[64,128,64]", "algorithm=nsga2", "output=run")
FAULTS = "--crashes 0.1 --hangs 0.05"


@dataclass(frozen=True)
class Case:
    """How bad the boards are: do they crash and hang, does one die for good, and how often is the host killed?"""

    faulty: bool = False
    dies: bool = False
    kills: int = 0


CASES = {
    "faultless": Case(),
    "10 % crashes, 5 % hangs": Case(faulty=True),
    "and one board dead after 40": Case(faulty=True, dies=True),
    f"and the host killed {KILLS} times": Case(faulty=True, dies=True, kills=KILLS),
}


def run(case: Case, delay_s: float, evaluations: int) -> list[float]:
    """A row of the table but for its first and last column."""
    with tempfile.TemporaryDirectory() as folder:
        return searched(Path(folder), case, delay_s, evaluations)


def command_of(folder: Path, case: Case, delay_s: float, evaluations: int) -> list[str]:
    """Return the command of a search on boards whose measurements take `delay_s` seconds."""
    worker = f"{shlex.quote(sys.executable)} -m neuromap_moo.workers.virtual_board --delay-s {delay_s:g}"
    worker += f" {FAULTS}" if case.faulty else ""
    boards = [f"{worker} --luck {i}" for i in range(BOARDS)]
    if case.dies:
        boards[-1] += f" --dies-after 40 --memory {folder / 'memory'}"
    return [
        *(*SEARCH, "evaluator=device", f"budget.evaluations={evaluations}", "algorithm.population=40"),
        *(f"evaluator.command={json.dumps(boards)}", f"evaluator.time_limit_s={3 * delay_s:g}", "evaluator.repeats=1"),
    ]


def searched(folder: Path, case: Case, delay_s: float, evaluations: int) -> list[float]:
    """Attempts, results, wall time in s, and per cent of the boards' time: measuring, failing, waiting."""
    command = command_of(folder, case, delay_s, evaluations)
    store = folder / "run" / "measurements.sqlite"
    began = time.monotonic()
    for kill in range(1, case.kills + 1):
        host = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        while host.poll() is None and not store_has(store, kill * evaluations // (KILLS + 1)):
            time.sleep(0.2)
        host.kill()
        host.wait()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    wall_s = time.monotonic() - began
    attempts = attempts_table(store)
    took_s = np.nan_to_num(np.subtract(attempts["ended_s"], attempts["started_s"]))  # a kill leaves some without an end
    done = np.array(attempts["status"]) == DONE
    measuring, failing = (100 * took_s[rows].sum() / (BOARDS * wall_s) for rows in (done, ~done))
    return [done.size, done.sum(), wall_s, measuring, failing, 100 - measuring - failing]


def store_has(store: Path, n_attempts: int) -> bool:
    return store.exists() and len(attempts_table(store)["id"]) >= n_attempts


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--delay-s", type=float, default=5.0, help="of a measurement")
    parser.add_argument("--evaluations", type=above_zero, default=300, help="of each search")
    arguments = parser.parse_args()
    delay_s, evaluations = arguments.delay_s, arguments.evaluations
    with tempfile.TemporaryDirectory() as folder:  # what is compiled once on a machine is no part of the time
        compiling = [*SEARCH, "evaluator=packet", "budget.evaluations=50"]
        subprocess.run(compiling, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    with ThreadPoolExecutor(len(CASES)) as pool:
        found = list(pool.map(lambda case: run(case, delay_s, evaluations), CASES.values()))
    faultless = found[0][1] / found[0][2]  # results per second
    rows = [[name, *row, 100 * (1 - row[1] / row[2] / faultless)] for name, row in zip(CASES, found, strict=True)]
    head = ("boards", "attempts", "done", "wall s", "measuring %", "failing %", "waiting %", "fewer results/s %")
    form = ("", ".0f", ".0f", ".0f", ".1f", ".1f", ".1f", ".1f")
    lines = [
        "# What unreliable boards cost",
        "",
        f"Four virtual boards, {delay_s:g} s a measurement, a time limit of {3 * delay_s:g} s; NSGA-II with "
        f"{evaluations}",
        "evaluations of a small network, the four searches at the same time. Of the time of four boards: in",
        "measurements that gave a result, in others, and waiting (for a restart, a pause, the last of them, or dead).",
        "Made by `python experiments/e05_budget/throughput.py`.",
        "",
        tabulate(rows, head, tablefmt="github", floatfmt=form),
    ]
    write_page(arguments.out / "throughput.md", lines)


if __name__ == "__main__":
    main()
