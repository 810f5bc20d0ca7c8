"""Two checkouts of this package on one machine: what evaluation, moves and starts cost, as ratios.

    python benchmarks/compare_builds.py OTHER_CHECKOUT [--python OTHER_PYTHON] [--repeats 3]

Each build runs its own benchmarks/evaluation.py and benchmarks/moves.py, so its modules may have other names; what is
compared are the columns of times that both print. Starts are commands of the command line, given as multiples of a
bare import of numpy, numba and pymoo by the same interpreter. All times are the processor's, the builds take turns, and
the least of the repeats counts: another process on the machine does less harm that way. A repeat takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("evaluation", "moves")

#: Runs a script as `python SCRIPT` does, but with the processor's time where the script takes that of the wall.
ON_PROCESSOR_TIME = """
import runpy, sys, time
time.perf_counter = time.process_time
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
BARE_IMPORT = ("-c", "import numpy, numba, pymoo.core.problem")

#: What a start costs: name, arguments of the command line ({folder} is an empty one), exit code.
STARTS = (
    ("--help", ("--help",), 0),
    ("a wrong key", ("algoritm=nsga2",), 2),
    ("100 evaluations of mlp_b", ("+experiment=mlp_b", "budget.evaluations=100", "output={folder}/run"), 0),
)

#: Times by what they are of.
Times = dict[str, float]


@dataclass(frozen=True)
class Build:
    """A checkout and the interpreter whose packages it is run with."""

    checkout: Path
    python: str

    def run(self, *arguments: str, expected: int = 0) -> tuple[str, float]:
        """Run the interpreter with this checkout first in its path: what it prints, and seconds of the processor."""
        environment = os.environ | {"PYTHONPATH": str(self.checkout)}
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                [self.python, *arguments], cwd=self.checkout, env=environment, stdout=out, stderr=err
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = code = os.waitstatus_to_exitcode(status)
            if code != expected:
                err.seek(0)
                raise SystemExit(
                    f"{self.python} {' '.join(arguments)[-200:]}: expected exit code {expected}, got {code}, in "
                    f"{self.checkout}: {err.read()[-2000:]}"
                )
            out.seek(0)
            return out.read(), usage.ru_utime + usage.ru_stime

    def script(self, name: str, options: list[str]) -> Times:
        """Times that one of the build's own benchmarks prints."""
        path = self.checkout / "benchmarks" / f"{name}.py"
        return times_in(self.run("-c", ON_PROCESSOR_TIME, str(path), *options)[0])

    def starts(self) -> Times:
        """Seconds of the bare import and of each start."""
        times = {"bare import s": self.run(*BARE_IMPORT)[1]}
        for name, arguments, code in STARTS:
            with tempfile.TemporaryDirectory() as folder:
                told = [argument.format(folder=folder) for argument in arguments]
                times[f"{name} s"] = self.run("-m", "neuromap_moo", *told, expected=code)[1]
        return times


def times_in(text: str) -> Times:
    """Read the times of all tables and sentences that a benchmark prints.

    A table is a line of column names, two spaces or more between them, and the lines of numbers after it. Columns with
    a unit are times, those before them say what the row is of; ratios are left out.

    >>> times_in("edges   ours ms   loop/ours\\n 1000   2.5   3.1\\nchanged layers 24 us, whole 32 us, 1.3 times")
    {'edges 1000: ours ms': 2.5, 'changed layers us': 24.0, 'whole us': 32.0}
    """
    times: Times = {}
    head: list[str] = []
    for line in text.splitlines():
        cells = line.split()
        if re.fullmatch(r"[\d. e+-]+", line) and len(cells) == len(head):
            row = dict(zip(head, cells, strict=True))
            of = " ".join(f"{name} {value}" for name, value in row.items() if not is_time(name) and "/" not in name)
            times |= {f"{of}: {name}": float(value) for name, value in row.items() if is_time(name)}
            continue
        head = re.split(r" {2,}", line.strip())
        for name, value, unit in re.findall(r"([a-z][a-z ]*) ([\d.]+) (ms|us|ns)\b", line):
            times[f"{name} {unit}"] = float(value)
    return times


def is_time(column: str) -> bool:
    return re.search(r"\b(ms|us|ns)\b", column) is not None


def least(measure: Callable[[Build], Times], builds: tuple[Build, Build], repeats: int) -> list[Times]:
    """Least time of some repeats for each build; the builds take turns."""
    found: list[Times] = [{}, {}]
    for _ in range(repeats):
        for times, build in zip(found, builds, strict=True):
            for name, value in measure(build).items():
                times[name] = min(value, times.get(name, value))
    return found


def table_of(this: Times, other: Times) -> str:
    """Every time that both builds have; the last column is below 1 where this build is the quicker one."""
    rows = [(name, this[name], other[name], this[name] / other[name]) for name in this if name in other]
    return tabulate(rows, ("", "this", "other", "this / other"), floatfmt=("", ".3f", ".3f", ".2f"))


def table_of_starts(this: Times, other: Times) -> str:
    """Starts as multiples of the bare import by the same interpreter."""
    rows: list[tuple[str, float, float, float]] = []
    for name, *_ in STARTS:
        a, b = (times[f"{name} s"] / times["bare import s"] for times in (this, other))
        rows.append((name, a, b, a / b))
    return tabulate(rows, ("start / bare import", "this", "other", "this / other"), floatfmt=("", ".2f", ".2f", ".2f"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT", help="folder of the build to compare with")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the other build (default: this one)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each build, the least counts (default: 3)")
    parser.add_argument(
        "--only", nargs="+", choices=[*SCRIPTS, "starts"], default=[*SCRIPTS, "starts"], help="a part (default: all)"
    )
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="of the benchmarks themselves, if both builds have them"
    )
    arguments = parser.parse_args()
    builds = Build(ROOT, sys.executable), Build(arguments.other.resolve(), arguments.python)
    if not (builds[1].checkout / "benchmarks").is_dir():
        parser.error(f"argument OTHER_CHECKOUT: expected a checkout with benchmarks/, got '{arguments.other}'")
    for name in arguments.only:
        if name == "starts":
            least(Build.starts, builds, 1)  # compiles
            print(f"\n{table_of_starts(*least(Build.starts, builds, arguments.repeats))}", flush=True)
        else:
            script = partial(Build.script, name=name, options=arguments.options)
            found = least(script, builds, arguments.repeats)
            print(f"\n{name}\n{table_of(*found)}", flush=True)


if __name__ == "__main__":
    main()
