"""Quality of the fronts: ours against rivals, on every benchmark instance, for equal seconds and many seeds.

    python benchmarks/quality.py --seeds 10 --seconds 15 --jobs 2 --out outputs/quality

Every run is a file in OUT/runs, so a benchmark that was stopped goes on where it was; tables and figures are made anew
from these files each time (--report makes them without running anything). --update merges what was found into the
best-known fronts in instances/, after an independent check. --docs writes a row into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import quality_report as report
import quality_rivals as rivals

import neuromap_moo as nm
from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.results.benchmark.best_known import improve, start_instance
from neuromap_moo.results.folder import load_json, save_json
from neuromap_moo.results.provenance import provenance_of

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))

from common import above_zero, one_thread_each

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ("nsga2", "annealing", "annealing_single", "stock_nsga2", "es", "scipy_faq", "scipy_2opt", "random")
SETTINGS = "settings.json"

Task = tuple[str, str, int, float, str, str]


def main() -> int:
    arguments = parse()
    try:
        return benchmark(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--instances", nargs="+", default=list(nm.benchmarks()), metavar="NAME", help="which of them (default: all)"
    )
    parser.add_argument("--algorithms", nargs="+", default=list(DEFAULT), metavar="NAME", help="the first one is ours")
    parser.add_argument("--seeds", type=above_zero, default=10, help="runs of each algorithm (default: 10)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of every run (default: 10)")
    parser.add_argument("--out", type=Path, default=Path("outputs") / "quality", help="folder of runs and tables")
    parser.add_argument("--jobs", type=above_zero, default=1, help="runs at a time; no more than there are free cores")
    parser.add_argument("--fronts", type=Path, default=ROOT / "instances", help="folder of the best-known fronts")
    parser.add_argument("--update", action="store_true", help="merge what was found into the best-known fronts")
    parser.add_argument("--report", action="store_true", help="run nothing, make tables and figures")
    parser.add_argument("--acceptance", action="store_true", help="print PASS or FAIL per criterion")
    parser.add_argument(
        "--docs",
        type=Path,
        nargs="?",
        const=ROOT / "docs" / "benchmarks.md",
        metavar="PAGE",
        help="write a row into the history in a page (default: docs/benchmarks.md)",
    )
    return parser.parse_args()


def benchmark(arguments: argparse.Namespace) -> int:
    for what, chosen, names in (
        ("instance", arguments.instances, list(nm.benchmarks())),
        ("algorithm", arguments.algorithms, rivals.algorithms()),
    ):
        for name in chosen:
            if name not in names:
                raise InputError(f"{what}: no '{name}'{did_you_mean(name, names)}")
    if arguments.seconds <= 0:
        raise InputError(f"seconds: expected a number above 0, got {arguments.seconds}")
    for name in arguments.instances:
        if arguments.update and not (arguments.fronts / name).exists():
            start_instance(name, arguments.fronts)
    settings = open_output(arguments)
    if not arguments.report:
        run_all(arguments, float(settings["seconds"]))
    records = [rivals.load(path) for path in paths_of(arguments) if path.exists()]
    if not records:
        raise InputError(f"output '{arguments.out}': holds none of these runs; leave out --report to make them")
    if arguments.update:
        update(records, settings, arguments.fronts)
    known = {name: nm.benchmark(name, arguments.fronts) for name in arguments.instances}
    summary = report.write(records, known, arguments.algorithms, arguments.out)
    print(summary.markdown)
    criteria = report.acceptance(summary)
    if arguments.acceptance:
        for name, verdict, text in criteria:
            print(f"{verdict:4s} {name}: {text}")
    if arguments.docs:
        report.add_to_history(arguments.docs, report.history_row(summary, criteria, settings))
    return 0


def open_output(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that all runs of an output folder share; raises InputError where they are other ones."""
    path = arguments.out / SETTINGS
    if path.exists():
        settings = dict(load_json(path))
        if not arguments.report and settings["seconds"] != arguments.seconds:
            raise InputError(
                f"output '{arguments.out}': holds runs of {settings['seconds']} s, this command asks for "
                f"{arguments.seconds} s; choose another output"
            )
        return settings
    provenance = provenance_of(nm.benchmark(arguments.instances[0], arguments.fronts).problem, {})
    settings = {"seconds": arguments.seconds}
    settings |= {key: provenance[key] for key in ("versions", "git_revision", "machine")}
    save_json(path, settings)
    return settings


def path_of(out: Path, instance: str, algorithm: str, seed: int) -> Path:
    return out / "runs" / instance / f"{algorithm}_s{seed}.npz"


def paths_of(arguments: argparse.Namespace) -> Iterator[Path]:
    for seed in range(arguments.seeds):
        for instance in arguments.instances:
            for algorithm in arguments.algorithms:
                yield path_of(arguments.out, instance, algorithm, seed)


def run_all(arguments: argparse.Namespace, seconds: float) -> None:
    """Run what is not there yet, seed after seed, so that a benchmark stopped early has whole seeds."""
    known = {name: nm.benchmark(name, arguments.fronts) for name in arguments.instances}
    tasks = [
        (instance, algorithm, seed, seconds, str(arguments.fronts), str(arguments.out))
        for seed in range(arguments.seeds)
        for instance in arguments.instances
        for algorithm in arguments.algorithms
        if rivals.applies(algorithm, known[instance]) and not path_of(arguments.out, instance, algorithm, seed).exists()
    ]
    started = time.perf_counter()
    for n, line in enumerate(results(tasks, arguments.jobs), 1):
        left = (time.perf_counter() - started) / n * (len(tasks) - n)
        print(f"[{n}/{len(tasks)}, {left / 60:.0f} min left] {line}", file=sys.stderr, flush=True)


def results(tasks: list[Task], jobs: int) -> Iterable[str]:
    """Work in fresh processes of one thread each, whoever's libraries would start more."""
    one_thread_each()
    # Ctrl-C is for this process alone; processes that it ends leave whole files or none.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("spawn").Pool(jobs, signal.signal, ignore) as pool:
        yield from pool.imap_unordered(work, tasks)


def work(task: Task) -> str:
    instance, algorithm, seed, seconds, fronts, out = task
    record = rivals.run(instance, algorithm, seed, seconds, Path(fronts))
    rivals.save(record, path_of(Path(out), instance, algorithm, seed))
    volume, best = record.history[-1][2], record.F.min(axis=0)
    return f"{instance} {algorithm} seed {seed}: hypervolume {volume:.4f}, best {' '.join(f'{v:.6g}' for v in best)}"


def update(records: list[rivals.Record], settings: dict[str, Any], fronts: Path) -> None:
    """Merge every run's front into the best-known one; `improve` checks each mapping that is taken."""
    for record in records:
        origin = {key: record.facts[key] for key in ("algorithm", "seed", "budget_s", "date", "version")}
        origin["git_revision"] = settings["git_revision"]
        added, gain = improve(record.facts["instance"], record.mappings, origin, fronts)
        if added:
            name = f"{record.facts['instance']}: {record.facts['algorithm']} seed {record.facts['seed']}"
            print(f"{name} adds {added} points, hypervolume x {gain:.6f}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
