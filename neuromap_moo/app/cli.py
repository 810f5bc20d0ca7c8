"""The command line: the only place that knows Hydra."""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
import yaml
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tabulate import tabulate
from tqdm import tqdm

from neuromap_moo.app.settings import Settings, build_network, build_system, cut_network, has_activity
from neuromap_moo.boards.evaluator import STORE, DeviceEvaluator
from neuromap_moo.boards.protocol import DeviceError
from neuromap_moo.boards.store import attempts_table, key_of
from neuromap_moo.calibration.fit import calibrate
from neuromap_moo.calibration.measurements import load_measurements
from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.evolution.algorithms import check_algorithm
from neuromap_moo.evolution.checkpoint import fingerprint_of
from neuromap_moo.evolution.generation import Budget, SearchState
from neuromap_moo.evolution.guided import GuidedSearch
from neuromap_moo.evolution.varied import varied_mappings
from neuromap_moo.files import config_folder
from neuromap_moo.mapping.check import check
from neuromap_moo.mapping.files import placement_of, save_mappings
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.evaluator import Evaluator, MeasuringEvaluator
from neuromap_moo.network.activity import save_activity
from neuromap_moo.network.files import save_network
from neuromap_moo.network.network import Network, layer_table
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.fixed import partitioner_for
from neuromap_moo.problem.evaluators import evaluator_for
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.readers.files import MEASURED, measure_activity
from neuromap_moo.results import plotting, report
from neuromap_moo.results.folder import CHECKPOINT as CHECKPOINT_FILE
from neuromap_moo.results.folder import (
    PROVENANCE,
    SAMPLE,
    SUMMARY,
    finish_folder,
    load_json,
    open_folder,
    save_calibration,
    save_front,
    save_json,
    save_tables,
)
from neuromap_moo.results.front import Front, reductions, save_columns, save_parquet, save_table
from neuromap_moo.results.provenance import provenance_of
from neuromap_moo.results.rescore import mappings_of, rescore
from neuromap_moo.results.run import Run, front_of, hypervolume, reference_point, search, with_robustness
from neuromap_moo.system.costs import BRACKET
from neuromap_moo.system.system import System, save_system
from neuromap_moo.system.topology import GIVEN

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130
ROWS_ON_SCREEN = 12
LAYERS, ACTIVITY = "layers.csv", "activity.npz"
LINE_SECONDS = 5.0  # between progress lines where there is no terminal

#: What a task takes from the run that it works on unless the command line names it.
GROUPS = ("network", "system", "constraints", "evaluator", "objectives", "name")


def main() -> None:
    """Run the command line and exit with its code: 0 done, 2 wrong input, 130 interrupted, 1 anything else."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through as they are
    refused: list[Exception] = []

    def job(config: DictConfig) -> None:
        try:
            _job(config)
        except BrokenPipeError:  # the reader of the table has seen enough; every file is written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (InputError, OmegaConfBaseException, OSError, MemoryError, DeviceError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # perhaps in another process; Hydra then says which job it was
            refused.append(error)

    application = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(job)
    try:
        application()
        if refused:
            raise refused[0]
    except InputError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_plain(str(error)))
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; free it or choose another path")
    except DeviceError as error:
        _say(f"neuromap_moo: {error}; the same command goes on where this one ended")
        sys.exit(FAILED)
    except MemoryError as error:
        _fail(f"not enough memory ({error}); take a smaller network, system or population")
    except KeyboardInterrupt as error:
        if str(error):
            _say(f"neuromap_moo: {error}; the same command goes on from there")
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.exit(FAILED)


def _job(config: DictConfig) -> None:
    for key in sorted(OmegaConf.missing_keys(config)):
        raise InputError(f"{key}: expected a value, got none; give {key}=...")
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    _mark_given(resolved)
    if isinstance(resolved.get("constraints"), str):  # a file: a run keeps what it says
        resolved["constraints"] = Constraints.from_config(resolved["constraints"]).to_dict()
    settings = Settings.from_config(resolved)
    WORK[settings.task](settings, resolved)


def _optimize(settings: Settings, resolved: dict[str, Any]) -> None:
    options = {key: value for key, value in settings.algorithm.items() if key != "name"}
    algorithm = str(settings.algorithm.get("name"))
    check_algorithm(algorithm, options)
    _say(f"preparing {settings.name} (the first run on a machine also compiles, for about 15 s)")
    folder = _folder(settings)
    problem = _problem(settings, folder)
    network, system = cast(Network, problem.network), problem.system  # a command line makes no core graphs
    fingerprint = fingerprint_of(problem, algorithm, options, settings.budget, settings.seed, settings.keep_evaluations)
    with _alone_in(folder):
        resumes = open_folder(folder, settings.overwrite, fingerprint)
        provenance = provenance_of(problem, resolved)
        cores = f"at least {problem.partitioner.minimum.sum()} of {problem.partitioner.n_cores} cores of {system.name}"
        size = f"{len(network.layers)} layers, {network.n_neurons} neurons, {network.n_synapses} synapses"
        _say(f"{settings.name}: {size}; {cores}")
        _say(f"{'resuming' if resumes else 'searching'} with {algorithm}, seed {settings.seed}, in '{folder}'")
        if isinstance(problem.evaluator, DeviceEvaluator):
            problem.evaluator.say = _say
        with _progress(problem, settings.budget) as on_generation, _interruptible() as stopped, _let_go(problem):
            run = search(
                problem,
                algorithm,
                settings.budget.evaluations,
                settings.budget.seconds,
                settings.seed,
                settings.name,
                options,
                keep_evaluations=settings.keep_evaluations,
                robustness_samples=settings.robustness_samples,
                checkpoint=folder / CHECKPOINT_FILE,
                on_generation=on_generation,
                should_stop=lambda: bool(stopped),
            )
        run = replace(run, provenance=provenance)
        _say("writing tables, figures and report")
        save_tables(run, folder)
        report.write_pictures(run, folder)
        report.write_report(run, folder)
        finish_folder(run, folder, stopped=not run.ended)
        _show(run, folder)
    if not run.ended:
        _say(f"stopped early; the same command with output='{folder}' goes on from here")
        raise KeyboardInterrupt


def _problem(settings: Settings, folder: Path) -> MappingProblem:
    """Make the problem; what its evaluator writes goes into the run folder."""
    config, evaluator = settings.network, dict(settings.evaluator)
    if evaluator.get("name") == DeviceEvaluator.name:
        evaluator["folder"] = str(folder)
    if config.get("type") == "file" and not has_activity(config) and "network.activity" not in _given():
        _say(f"activity: '{config.get('path')}' holds none; a mean of {config.get('activity')} per neuron is assumed")
    system = build_system(settings.system)
    network = _network(config, system)
    return MappingProblem(network, system, settings.objectives, evaluator, settings.constraints)


def _network(config: Mapping[str, Any], system: System) -> Network:
    """Make or read the network, say what it lost on the way, and cut its feature maps for the system."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network = build_network(config, _given())
    for text in dict.fromkeys(str(x.message) for x in caught if x.category is UserWarning):
        _say(f"note: {text}")
    return cut_network(network, config, system)


def _as_in_run(settings: Settings, resolved: dict[str, Any]) -> tuple[Settings, MappingProblem, Path, Path]:
    """Return settings and problem of a run, changed by what this command line names, its folder and the new one."""
    if settings.run is None:
        raise InputError(f"run: expected the folder of a run, got null; task={settings.task} needs run=outputs/...")
    source = Path(settings.run)
    provenance = load_json(source / PROVENANCE)
    earlier = provenance.get("config") if isinstance(provenance, dict) else None
    if not isinstance(earlier, dict) or not set(GROUPS) <= {*earlier, "constraints"}:  # older runs have none
        raise InputError(f"'{source / PROVENANCE}': expected the provenance.json of a run, it has no configuration")
    _as_it_was({"constraints": None, **earlier}, resolved)
    settings = Settings.from_config(resolved)
    folder = _folder(settings)
    problem = _problem(settings, folder)
    if folder.resolve() == source.resolve():
        raise InputError(f"output '{folder}': is the run itself; choose another output")
    return settings, problem, source, folder


def _evaluate(settings: Settings, resolved: dict[str, Any]) -> None:
    settings, problem, source, folder = _as_in_run(settings, resolved)
    with _let_go(problem):
        result = rescore(problem, source)
    open_folder(folder, settings.overwrite)
    save_table(folder / "evaluated.csv", result.scored, extra={"non_dominated": result.non_dominated})
    front = with_robustness(problem, result.front, settings.robustness_samples, settings.seed)
    save_front(problem, front, result.baselines, folder)
    save_json(folder / PROVENANCE, provenance_of(problem, resolved))
    plotting.save_figure(plotting.pareto_figure(front, result.baselines, result.scored), folder, "pareto")
    kept = int(result.non_dominated.sum())
    summary = {
        "name": settings.name,
        "run": str(source),
        "system": problem.system.name,
        "evaluator": problem.evaluator.name,
        "objectives": list(problem.objectives),
        "scored": len(result.scored),
        "still_non_dominated": kept,
        "mappings": len(front),
        "left_out": result.left_out,
        "reference_point": reference_point(problem),
        "hypervolume": hypervolume(problem, front),
        "best": reductions(front, result.baselines),
    }
    save_json(folder / SUMMARY, summary)
    print(f"{kept} of {len(result.scored)} mappings of '{source}' stay non-dominated on {problem.system.name}.")
    if result.left_out:
        print(f"{result.left_out} kept mappings do not fit {problem.system.name} and were left out.")
    _print_tables(front, result.baselines)
    print(f"\nTables and figure: {folder}")


def _sample(settings: Settings, resolved: dict[str, Any]) -> None:
    folder = _folder(settings)
    problem = _problem(settings, folder)
    open_folder(folder, settings.overwrite)
    varied = varied_mappings(problem, settings.mappings, np.random.default_rng(settings.seed))
    sample = front_of(problem, tuple(varied.values()), tuple(varied))
    save_table(folder / SAMPLE, sample)
    save_mappings(folder / "mappings.json", varied, problem.network, problem.system)
    save_json(folder / PROVENANCE, provenance_of(problem, resolved))
    save_json(folder / SUMMARY, {"name": settings.name, "mappings": len(varied)})
    if len(varied) < settings.mappings:
        _say(f"{settings.mappings} mappings were asked for, no more than {len(varied)} different ones were found")
    print(f"{len(varied)} mappings of {settings.name} on {problem.system.name}: {folder}")


def _calibrate(settings: Settings, resolved: dict[str, Any]) -> None:
    if settings.measurements is None:
        raise InputError("measurements: expected a CSV of measured mappings, got null; task=calibrate needs it")
    settings, problem, source, folder = _as_in_run(settings, resolved)
    known = mappings_of(problem, source)
    table = Path(str(settings.measurements))
    measured = load_measurements(table, known)
    mappings = [known[m.mapping_id] for m in measured]
    for mapping in mappings:
        check(mapping, problem)
    open_folder(folder, settings.overwrite)
    _say(f"fitting the constants of {problem.system.name} to {len(measured)} mappings")
    rng = np.random.default_rng(settings.seed)

    def evaluator(system: System) -> Evaluator:
        return evaluator_for(settings.evaluator, problem.partitioner, system)

    # What was measured itself is predicted by the analytic model.
    predicts = None if isinstance(problem.evaluator, MeasuringEvaluator) else evaluator
    result = calibrate(problem.partitioner, problem.system, mappings, measured, rng, table.name, predicts)
    save_calibration(result, folder)
    save_json(folder / PROVENANCE, provenance_of(problem, resolved))
    plotting.save_figure(plotting.predicted_figure(result), folder, "predicted")
    errors = result.errors()
    summary = {"name": settings.name, "run": str(source), "measurements": settings.measurements}
    save_json(folder / SUMMARY, {**summary, "mappings": len(measured), "held_out_errors": errors})
    rows = [(c.name, *(f"{v:.4g}" for v in c[1:5]), result.unit_of(c.name), c.status) for c in result.constants]
    print(
        tabulate(rows, headers=["constant", "preset", "fitted", "low", "high", "unit", "status"], disable_numparse=True)
    )
    for column, error in errors.items():
        print(
            f"\n{column} of held-out mappings is off by {error['median']:.1%} (median) and at most "
            f"{error['largest']:.1%}; before by {error['median_before']:.1%} and {error['largest_before']:.1%}."
        )
    print(f"\nSystem, tables and figure: {folder}")


def _profile(settings: Settings, resolved: dict[str, Any]) -> None:
    """Run the network on samples where its format allows, and tell what a mapping has to deal with in each layer."""
    config, folder = dict(settings.network), _folder(settings)
    path = Path(str(config.get("path", "")))
    measured = None
    if config.get("type") == "file" and path.suffix in MEASURED:
        steps = config.get("steps_per_inference")
        measured = measure_activity(path, settings.samples, config.get("input_shape"), settings.seed, steps)
    elif settings.samples is not None:
        endings = ", ".join(MEASURED)
        raise InputError(f"samples: activity is measured on {endings} files, got '{path}'; leave samples out")
    open_folder(folder, settings.overwrite)
    summary: dict[str, Any] = {"name": settings.name}
    if measured is not None:
        save_activity(measured, folder / ACTIVITY)
        config["activity"] = str(folder / ACTIVITY)
        if measured.n_samples == 0:
            _say("note: no samples given, random ones taken; samples=... names an .npy or .npz file of real ones")
        if measured.not_shown:
            _say(f"note: {', '.join(measured.not_shown)}: a run does not show what they send; taken as every step")
        summary |= {"samples": measured.n_samples, "not_shown": list(measured.not_shown)}
    system = build_system(settings.system)
    network = _network(config, system)
    try:
        fewest = partitioner_for(network, system, settings.constraints).minimum.tolist()
    except InputError as error:  # the table says more about what does not fit
        fewest = None
        _say(f"note: {error}")
    table = layer_table(network, fewest)
    save_columns(folder / LAYERS, table)
    totals = {key: sum(table[key]) for key in ("neurons", "synapses", "multiplications", "messages")}
    save_json(folder / SUMMARY, summary | totals | ({} if fewest is None else {"fewest_cores": sum(fewest)}))
    print(tabulate(table, headers="keys", floatfmt=".4g", intfmt=","))
    print(f"\n{', '.join(f'{value:,.6g} {key}' for key, value in totals.items())}", end="")
    print("" if fewest is None else f"; at least {sum(fewest)} of {system.usable_cores.size} cores of {system.name}")
    if measured is not None:
        print(f"Search with it: network.activity={folder / ACTIVITY}")


def _measurements(settings: Settings, resolved: dict[str, Any]) -> None:
    """List what a store holds, and write it as tables that others read and task=calibrate takes."""
    problem = None
    if settings.run is None and settings.measurements is None:
        raise InputError("run: expected the folder of a run with measurements, got null; or measurements=FILE.sqlite")
    folder = _folder(settings)
    store = settings.measurements
    if settings.run is not None:
        unfinished = Path(settings.run) / STORE
        if unfinished.exists() and not (Path(settings.run) / PROVENANCE).exists():
            raise InputError(
                f"run '{settings.run}': expected a finished run; measurements={unfinished} in place of run=... lists "
                "what was measured so far"
            )
        settings, problem, source, folder = _as_in_run(settings, resolved)
        if not isinstance(problem.evaluator, DeviceEvaluator):
            raise InputError(f"run '{source}': expected one with evaluator=device, got '{problem.evaluator.name}'")
        given = settings.evaluator.get("store")
        problem.evaluator.store_path = Path(store or given or source / STORE)
        store = str(problem.evaluator.store_path)
    table = attempts_table(str(store))
    open_folder(folder, settings.overwrite)
    save: Any = save_columns if settings.format == "csv" else save_parquet
    save(folder / f"attempts.{settings.format}", table)
    if problem is not None and isinstance(problem.evaluator, DeviceEvaluator):
        mappings = problem.evaluator.measured()
        if mappings:
            named = {key_of(mapping)[:12]: mapping for mapping in mappings}
            metrics = problem.evaluator.estimated_metrics(stack(mappings))
            chosen = ("latency_s", "latency_ci95_s", "energy_j", "energy_ci95_j", "attempts")
            repeats = metrics["attempts"] * problem.evaluator.repeats
            columns = {"mapping_id": list(named), **{name: metrics[name] for name in chosen}, "repeats": repeats}
            save(folder / f"measured.{settings.format}", columns)
            save_mappings(folder / "mappings.json", named, problem.network, problem.system)
        save_json(folder / PROVENANCE, provenance_of(problem, resolved))
        for label, board in problem.evaluator.summary()["boards"].items():  # type: ignore[attr-defined]
            drift = ", ".join(f"{name} {value:+.1%}" for name, value in board["drift"].items())
            print(f"{label}: control last {drift}{', corrected' if board['drift_corrected'] else ', within scatter'}")
        problem.evaluator.close()
    boards = dict.fromkeys(zip(table["board"], table["device"], strict=True))
    statuses = list(dict.fromkeys(table["status"]))
    pairs = list(zip(table["board"], table["device"], table["status"], strict=True))
    rows = [[*board, *(pairs.count((*board, status)) for status in statuses)] for board in sorted(boards)]
    save_json(folder / SUMMARY, {"name": settings.name, "store": store, "attempts": len(table["id"])})
    print(tabulate(rows, headers=["board", "device", *statuses]))
    errors = [text for text in table["error"] if text]
    for text in dict.fromkeys(errors):
        print(f"{errors.count(text)} times: {text}")
    print(f"\n{len(table['id'])} attempts at {len(set(table['mapping']))} mappings: {folder}")


def _export(settings: Settings, resolved: dict[str, Any]) -> None:
    """Write a placement file for every mapping of a run, which Lava's compiler takes, and what they belong to."""
    settings, problem, source, folder = _as_in_run(settings, resolved)
    network, known = problem.network, mappings_of(problem, source)
    if not isinstance(network, Network):
        raise InputError(f"run '{source}': expected a network's mappings; a core graph has no neurons to export")
    open_folder(folder, settings.overwrite)
    for name, mapping in known.items():
        check(mapping, problem)
        save_json(folder / f"placement_{name}.json", placement_of(name, mapping, network, problem.system))
    save_network(network, folder / "network.npz")
    save_system(problem.system, folder / "system.yaml")
    save_mappings(folder / "mappings.json", known, network, problem.system)
    save_json(folder / SUMMARY, {"name": settings.name, "run": str(source), "mappings": len(known)})
    print(f"{len(known)} placement files: {folder}")


WORK = {
    "optimize": _optimize,
    "evaluate": _evaluate,
    "sample": _sample,
    "calibrate": _calibrate,
    "profile": _profile,
    "measurements": _measurements,
    "export": _export,
}


def _folder(settings: Settings) -> Path:
    if settings.output is not None:
        return Path(settings.output)
    name = f"{settings.started}_s{settings.seed}"
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        name += f"_j{HydraConfig.get().job.num}"  # jobs of one sweep may share a seed
    return Path("outputs") / settings.name / name


def _given() -> list[str]:
    """Return the keys that the command line names."""
    return [override.partition("=")[0].lstrip("+~") for override in HydraConfig.get().overrides.task]


def _mark_given(resolved: dict[str, Any]) -> None:
    """Say of a capacity or cost set on the command line that its user gave it: its source spoke of another number."""
    given = _given()
    for key in given:
        path = key.split(".")
        if path[0] == "system" and path[-1] == "value":
            constant = _find(resolved, path[:-1])
            named = {other.rpartition(".")[2] for other in given if other.rpartition(".")[0] == key.rpartition(".")[0]}
            constant.update({} if "source" in named else GIVEN)
            for end in set(BRACKET) - named:
                constant.pop(end, None)


def _as_it_was(earlier: Mapping[str, Any], resolved: dict[str, Any]) -> None:
    """Take from the run's configuration what this command line does not name, a key or a whole group."""
    given = _given()
    for group in GROUPS:
        if group in given or ("experiment" in given and group in ("network", "system", "name")):
            continue
        if group == "constraints" and resolved[group] is not None:
            continue  # given key by key, or by an experiment: they make sense together only
        now, resolved[group] = resolved[group], copy.deepcopy(earlier[group])
        for key in given:
            path = key.split(".")
            if path[0] == group:
                _find(resolved, path[:-1])[path[-1]] = _find({group: now}, path[:-1])[path[-1]]
    _mark_given(resolved)


def _find(tree: dict[str, Any], path: list[str]) -> dict[str, Any]:
    for i, part in enumerate(path):
        if not isinstance(tree.get(part), dict):
            raise InputError(f"unknown key '{'.'.join(path)}': '{'.'.join(path[: i + 1])}' holds no further keys")
        tree = tree[part]
    return tree


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the lock of a process that was killed holds nobody up."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"output '{folder}': another process is at work in it; choose another") from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Turn the first Ctrl-C, or a batch system's SIGTERM, into an entry of the list yielded: the search ends in order.

    A second one kills.
    """
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _say("stopping after this generation; results will be saved (Ctrl-C again to abort)")

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, as in some launchers: the launcher's own handling stays
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _let_go(problem: MappingProblem) -> Iterator[None]:
    """Let an evaluator that holds boards go of them at the end."""
    try:
        yield
    finally:
        if isinstance(problem.evaluator, MeasuringEvaluator):
            problem.evaluator.close()


@contextmanager
def _progress(problem: MappingProblem, budget: Budget) -> Iterator[Any]:
    """Yield a function to be called each generation: a live bar on a terminal, a line now and then elsewhere."""
    first = problem.objectives[0]
    by_time = budget.evaluations is None
    total = float(budget.seconds or 0) if by_time else float(budget.evaluations or 0)
    live = sys.stderr.isatty()
    layout = "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}]{postfix}"
    last_line = time.perf_counter()
    with tqdm(total=total, unit="s" if by_time else "evaluations", bar_format=layout, disable=not live) as bar:

        def on_generation(state: SearchState) -> None:
            nonlocal last_line
            done = min(state.seconds, total) if by_time else state.evaluations
            hypervolume, best = state.history[-1][2:4]
            text = f"front {len(state.archive_F)}, hypervolume {hypervolume:.4f}, {first} {report.cell(first, best)}"
            if isinstance(state.algorithm, GuidedSearch):
                text += f", model's rank correlation {state.algorithm.rank_correlation():.2f}"
            if live:
                bar.set_postfix_str(text, refresh=False)
                bar.update(done - bar.n)
            elif time.perf_counter() - last_line > LINE_SECONDS or state.ended:
                last_line = time.perf_counter()
                _say(f"{state.evaluations} evaluations, {state.seconds:.1f} s: {text}")

        yield on_generation


def _show(run: Run, folder: Path) -> None:
    print("\n".join(report.headline(run)))
    _print_tables(run.front, run.baselines)
    print(f"\nTables, figures and report.html: {folder}")


def _print_tables(front: Front, baselines: Front) -> None:
    columns = report.columns_shown(front.objective_names)
    marked = {front.knee: "knee"}
    rows = sorted({round(i * (len(front) - 1) / (ROWS_ON_SCREEN - 1)) for i in range(ROWS_ON_SCREEN)} | set(marked))
    for table, name, chosen in ((front, "mapping_id", rows), (baselines, "name", range(len(baselines)))):
        body = [
            [f"{table.ids[i]} {marked.get(i, '') if table is front else ''}"]
            + [report.cell(c, table.table[c][i]) for c in columns]
            for i in chosen
        ]
        print(
            "\n" + tabulate(body, headers=[name, *columns], stralign="right", colalign=("left",), disable_numparse=True)
        )
    if len(rows) < len(front):
        print(f"\n{len(rows)} of {len(front)} mappings of the front shown; all are in front.csv.")


def _plain(message: str) -> str:
    """Return what Hydra says of a wrong command line without what only its developers need."""
    unknown = re.match(r"Could not override '([^']+)'", message)
    known = _known_keys() if unknown else set()
    if unknown and unknown[1] == "experiment":
        return "experiment: an experiment is added with a plus, +experiment=NAME"
    if unknown and unknown[1].startswith("constraints."):
        return f"key '{unknown[1]}': constraints are added with a plus, +{unknown[1]}=..."
    if unknown and unknown[1] in known:
        group = unknown[1].partition(".")[0]
        if group == "system":
            return f"key '{unknown[1]}' is not in a system that comes from a file; add it as +{unknown[1]}=..."
        return f"key '{unknown[1]}' does not belong to the {group} chosen; leave it out or choose another {group}=..."
    if unknown:
        return f"unknown key '{unknown[1]}'{did_you_mean(unknown[1], known)}"
    for tail in ("Config search path:", "full_key:", "See https:"):
        message = message.partition(tail)[0]
    if "hydra/launcher/joblib" in message:
        return "hydra/launcher=joblib: not installed; pip install 'neuromap-moo[joblib]'"
    if any(words in message for words in ("LexerNoViableAlt", "mismatched input", "extraneous input")):
        return f"{message.strip()}: put values with special characters in quotes of their own, as in 'output=\"a=b\"'"
    return f"{message.strip()}; see python -m neuromap_moo --help"


def _known_keys() -> set[str]:
    """Every key that some configuration has, by its full name."""
    keys: set[str] = set()

    def walk(prefix: str, data: Any) -> None:
        for key, value in data.items() if isinstance(data, dict) else ():
            keys.add(f"{prefix}{key}")
            walk(f"{prefix}{key}.", value)

    folder = config_folder()
    for path in [folder / "config.yaml", *folder.glob("*/*.yaml")]:
        if path.parent.name == "experiment":
            continue
        keys.add(path.parent.name if path.parent != folder else "seed")
        prefix = "" if path.parent == folder else f"{path.parent.name}."
        walk(prefix, yaml.safe_load(path.read_text(encoding="utf-8")))
    return {key for key in keys if not key.startswith(("hydra", "defaults"))}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(message: str) -> None:
    _say("neuromap_moo: " + " ".join(message.split()))
    sys.exit(WRONG_INPUT)
