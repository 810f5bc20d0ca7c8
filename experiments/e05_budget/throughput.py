"""What unreliable boards cost: the same search of 300 evaluations on four virtual boards, faultless and not.

    python experiments/e05_budget/throughput.py [--delay-s 5]

A measurement takes 5 seconds and scatters by 3 %. Faulty boards crash in 10 % of the measurements and hang in 5 % until
the time limit, three times as long as a measurement; then one of them dies for good after 40 measurements, and the host
is killed with -9 five times and started again by the same command. Writes throughput.md beside this file; takes about
40 minutes, nearly all of it waiting.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from neuromap_moo.files import whole_file

HERE = Path(__file__).resolve().parent

BOARDS, EVALUATIONS, KILLS = 4, 300, 5
FAULTS = "--crashes 0.1 --hangs 0.05"


def attempts(store: Path, what: str) -> list[tuple]:
    if not store.exists():
        return []
    connection = sqlite3.connect(store, timeout=30)
    try:
        return connection.execute(f"SELECT {what} FROM attempts").fetchall()
    except sqlite3.OperationalError:  # not yet made
        return []
    finally:
        connection.close()


def run(folder: Path, delay_s: float, faulty: bool, dies: bool, kills: int) -> list:
    """A row of the table."""
    worker = f"{shlex.quote(sys.executable)} -m neuromap_moo.workers.virtual_board --delay-s {delay_s:g}"
    worker += f" {FAULTS}" if faulty else ""
    boards = [f"{worker} --luck {i}" for i in range(BOARDS)]
    if dies:
        boards[-1] += f" --dies-after 40 --memory {folder / 'memory'}"
    command = [
        *(sys.executable, "-m", "neuromap_moo", "network.sizes=[256,512,512,128]", "evaluator=device"),
        *(f"evaluator.command={json.dumps(boards)}", f"evaluator.time_limit_s={3 * delay_s:g}", "evaluator.repeats=1"),
        *(f"budget.evaluations={EVALUATIONS}", "algorithm=nsga2", "algorithm.population=40", "output=run"),
    ]
    store = folder / "run" / "measurements.sqlite"
    began = time.monotonic()
    for kill in range(kills + 1):
        host = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        while kill < kills and host.poll() is None and len(attempts(store, "id")) < (kill + 1) * 50:
            time.sleep(0.2)
        if kill < kills:
            host.kill()
        code = host.wait()
    if code:
        raise SystemExit(f"ended with code {code}: {shlex.join(command)}")
    wall_s = time.monotonic() - began
    ended = attempts(store, "status, ended_s - started_s")
    done = [s for status, s in ended if status == "done"]
    lost = sum(s or 0.0 for status, s in ended if status != "done")
    waiting = 1.0 - (sum(done) + lost) / (BOARDS * wall_s)
    return [len(ended), len(done), wall_s, *(100 * sum(x) / (BOARDS * wall_s) for x in (done, [lost])), 100 * waiting]


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
    rows = []
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            rows.append([name, *run(Path(folder), delay_s, *case)])
        rows[-1].append(100 * (1 - rows[-1][2] / rows[-1][3] / (rows[0][2] / rows[0][3])))
        print(rows[-1], file=sys.stderr, flush=True)
    head = ("boards", "attempts", "done", "wall s", "measuring %", "failing %", "waiting %", "fewer results/s %")
    text = tabulate(rows, head, tablefmt="github", floatfmt=("", ".0f", ".0f", ".0f", ".1f", ".1f", ".1f", ".1f"))
    lines = [
        "# What unreliable boards cost",
        "",
        f"Four virtual boards, {delay_s:g} s a measurement, a time limit of {3 * delay_s:g} s; NSGA-II with 300",
        "evaluations. Of the time of four boards: in measurements that gave a result, in others, and waiting (for a",
        "restart, a pause, the last of a generation, or dead). Made by `python experiments/e05_budget/throughput.py`.",
        "",
        text,
        "",
    ]
    with whole_file(HERE / "throughput.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
