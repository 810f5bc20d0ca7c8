"""The tasks of the command line, each a function of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from neuromap_moo.app.messages import say
from neuromap_moo.app.overrides import GROUPS, given_keys, lay_over_run, mark_given
from neuromap_moo.app.process import alone_in, closing_boards, interruptible
from neuromap_moo.app.screen import print_attempts, print_tables, progress, show_run, telling_of_compilation
from neuromap_moo.app.settings import Settings, build_system
from neuromap_moo.boards.evaluator import STORE, DeviceEvaluator
from neuromap_moo.boards.store import attempts_table, key_of
from neuromap_moo.calibration.fit import calibrate
from neuromap_moo.calibration.measurements import load_measurements
from neuromap_moo.errors import InputError
from neuromap_moo.evolution.algorithms import check_algorithm
from neuromap_moo.evolution.checkpoint import fingerprint_of
from neuromap_moo.evolution.driver import warm_up
from neuromap_moo.evolution.varied import varied_mappings
from neuromap_moo.mapping.check import check
from neuromap_moo.mapping.files import placement_of, save_mappings
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.evaluator import Evaluator
from neuromap_moo.network.activity import save_activity
from neuromap_moo.network.files import save_network
from neuromap_moo.network.network import Network, layer_table
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.fixed import partitioner_for
from neuromap_moo.problem.evaluators import evaluator_for
from neuromap_moo.problem.networks import has_activity, network_for
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.readers.files import MEASURED, measure_activity
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
from neuromap_moo.results.front import reductions, save_columns, save_parquet, save_table
from neuromap_moo.results.provenance import provenance_of
from neuromap_moo.results.rescore import mappings_of, rescore
from neuromap_moo.results.run import front_of, hypervolume, reference_point, search, with_robustness
from neuromap_moo.system.system import System, save_system

LAYERS, ACTIVITY = "layers.csv", "activity.npz"


def run_task(config: DictConfig) -> None:
    """Check a composed configuration and do its task; raises InputError where it is wrong."""
    for key in sorted(OmegaConf.missing_keys(config)):
        raise InputError(f"{key}: expected a value, got none; give {key}=...")
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    mark_given(resolved)
    if isinstance(resolved.get("constraints"), str):  # a file: a run keeps what it says
        resolved["constraints"] = Constraints.from_config(resolved["constraints"]).to_dict()
    settings = Settings.from_config(resolved)
    WORK[settings.task](settings, resolved)


def _optimize(settings: Settings, resolved: dict[str, Any]) -> None:
    options = {key: value for key, value in settings.algorithm.items() if key != "name"}
    algorithm = str(settings.algorithm.get("name"))
    check_algorithm(algorithm, options)
    say(f"preparing {settings.name}")
    folder = _folder(settings)
    with telling_of_compilation():
        problem = _problem(settings, folder)
    network, system = cast(Network, problem.network), problem.system  # a command line makes no core graphs
    fingerprint = fingerprint_of(problem, algorithm, options, settings.budget, settings.seed, settings.keep_evaluations)
    with alone_in(folder):
        resumes = open_folder(folder, settings.overwrite, fingerprint)
        provenance = provenance_of(problem, resolved)
        cores = f"at least {problem.partitioner.minimum.sum()} of {problem.partitioner.n_cores} cores of {system.name}"
        size = f"{len(network.layers)} layers, {network.n_neurons} neurons, {network.n_synapses} synapses"
        say(f"{settings.name}: {size}; {cores}")
        if isinstance(problem.evaluator, DeviceEvaluator):
            problem.evaluator.say = say
        with interruptible() as stopped, closing_boards(problem):
            with telling_of_compilation():
                warm_up(problem)
            say(f"{'resuming' if resumes else 'searching'} with {algorithm}, seed {settings.seed}, in '{folder}'")
            with progress(problem, settings.budget) as on_generation:
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
        wanted = {"tables": True, "figures": settings.figures, "report": settings.report}
        say(f"writing {', '.join(name for name, is_wanted in wanted.items() if is_wanted)}")
        save_tables(run, folder)
        if settings.figures:
            from neuromap_moo.results.plotting import write_pictures

            write_pictures(run, folder)
        if settings.report:
            from neuromap_moo.results.report import write_report

            write_report(run, folder)
        finish_folder(run, folder, stopped=not run.ended)
        show_run(run, folder)
    if not run.ended:
        say(f"stopped early; the same command with output='{folder}' goes on from here")
        raise KeyboardInterrupt


def _problem(settings: Settings, folder: Path) -> MappingProblem:
    """Make the problem; what its evaluator writes goes into the run folder."""
    config, evaluator = settings.network, dict(settings.evaluator)
    if evaluator.get("name") == DeviceEvaluator.name:
        evaluator["folder"] = str(folder)
    if config.get("type") == "file" and not has_activity(config) and "network.activity" not in given_keys():
        say(f"activity: '{config.get('path')}' holds none; a mean of {config.get('activity')} per neuron is assumed")
    system = build_system(settings.system)
    network = _network(config, system)
    return MappingProblem(network, system, settings.objectives, evaluator, settings.constraints, cut="as_given")


def _network(config: Mapping[str, Any], system: System) -> Network:
    """Make or read the network, number its neurons for the system, and say what it lost on the way."""
    network = network_for(config, system, given_keys())
    for text in network.notes:
        say(f"note: {text}")
    return network


def _as_in_run(settings: Settings, resolved: dict[str, Any]) -> tuple[Settings, MappingProblem, Path, Path]:
    """Return settings and problem of a run, changed by what this command line names, its folder and the new one."""
    if settings.run is None:
        raise InputError(f"run: expected the folder of a run, got null; task={settings.task} needs run=outputs/...")
    source = Path(settings.run)
    provenance = load_json(source / PROVENANCE)
    earlier = provenance.get("config") if isinstance(provenance, dict) else None
    if not isinstance(earlier, dict) or not set(GROUPS) <= {*earlier, "constraints"}:  # older runs have none
        raise InputError(f"'{source / PROVENANCE}': expected the provenance.json of a run, it has no configuration")
    lay_over_run({"constraints": None, **earlier}, resolved)
    settings = Settings.from_config(resolved)
    folder = _folder(settings)
    problem = _problem(settings, folder)
    if folder.resolve() == source.resolve():
        raise InputError(f"output '{folder}': is the run itself; choose another output")
    return settings, problem, source, folder


def _evaluate(settings: Settings, resolved: dict[str, Any]) -> None:
    settings, problem, source, folder = _as_in_run(settings, resolved)
    with closing_boards(problem):
        result = rescore(problem, source)
    open_folder(folder, settings.overwrite)
    save_table(folder / "evaluated.csv", result.scored, extra={"non_dominated": result.non_dominated})
    front = with_robustness(
        problem, result.front, stack(result.front.mappings), settings.robustness_samples, settings.seed
    )
    save_front(problem, front, result.baselines, folder)
    save_json(folder / PROVENANCE, provenance_of(problem, resolved))
    if settings.figures:
        from neuromap_moo.results.plotting import write_pareto

        write_pareto(front, result.baselines, folder, earlier=result.scored)
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
    print_tables(front, result.baselines)
    print(f"\nTables{' and figure' if settings.figures else ''}: {folder}")


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
        say(f"{settings.mappings} mappings were asked for, no more than {len(varied)} different ones were found")
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
    say(f"fitting the constants of {problem.system.name} to {len(measured)} mappings")
    rng = np.random.default_rng(settings.seed)

    def evaluator(system: System) -> Evaluator:
        return evaluator_for(settings.evaluator, problem.partitioner, system)

    # What was measured itself is predicted by the analytic model.
    predicts = evaluator if problem.measuring is None else None
    result = calibrate(problem.partitioner, problem.system, mappings, measured, rng, table.name, predicts)
    save_calibration(result, folder)
    save_json(folder / PROVENANCE, provenance_of(problem, resolved))
    if settings.figures:
        from neuromap_moo.results.plotting import write_predicted

        write_predicted(result, folder)
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
    print(f"\nSystem and tables{', with a figure' if settings.figures else ''}: {folder}")


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
            say("note: no samples given, random ones taken; samples=... names an .npy or .npz file of real ones")
        if measured.not_shown:
            say(f"note: {', '.join(measured.not_shown)}: a run does not show what they send; taken as every step")
        summary |= {"samples": measured.n_samples, "not_shown": list(measured.not_shown)}
    system = build_system(settings.system)
    network = _network(config, system)
    try:
        fewest = partitioner_for(network, system, settings.constraints).minimum.tolist()
    except InputError as error:  # the table says more about what does not fit
        fewest = None
        say(f"note: {error}")
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
    if settings.run is None and settings.measurements is None:
        raise InputError("run: expected the folder of a run with measurements, got null; or measurements=FILE.sqlite")
    save: Callable[[Path, Mapping[str, Any]], None] = save_columns if settings.format == "csv" else save_parquet
    if settings.run is None:
        folder, store = _folder(settings), str(settings.measurements)
        table = attempts_table(store)
        open_folder(folder, settings.overwrite)
    else:
        problem, evaluator, folder = _measured_run(settings, resolved)
        store = str(evaluator.store_path)
        table = attempts_table(store)
        open_folder(folder, settings.overwrite)
        _save_measured(problem, evaluator, folder, save, settings.format)
        save_json(folder / PROVENANCE, provenance_of(problem, resolved))
        for label, board in evaluator.summary()["boards"].items():
            drift = ", ".join(f"{name} {value:+.1%}" for name, value in board["drift"].items())
            print(f"{label}: control last {drift}{', corrected' if board['drift_corrected'] else ', within scatter'}")
        evaluator.close()
    save(folder / f"attempts.{settings.format}", table)
    save_json(folder / SUMMARY, {"name": settings.name, "store": store, "attempts": len(table["id"])})
    print_attempts(table)
    print(f"\n{len(table['id'])} attempts at {len(set(table['mapping']))} mappings: {folder}")


def _measured_run(settings: Settings, resolved: dict[str, Any]) -> tuple[MappingProblem, DeviceEvaluator, Path]:
    """Return the problem of a finished run on boards, its evaluator with the run's store, and the new folder."""
    unfinished = Path(str(settings.run)) / STORE
    if unfinished.exists() and not (Path(str(settings.run)) / PROVENANCE).exists():
        raise InputError(
            f"run '{settings.run}': expected a finished run; measurements={unfinished} in place of run=... lists "
            "what was measured so far"
        )
    settings, problem, source, folder = _as_in_run(settings, resolved)
    evaluator = problem.evaluator
    if not isinstance(evaluator, DeviceEvaluator):
        raise InputError(f"run '{source}': expected one with evaluator=device, got '{evaluator.name}'")
    evaluator.store_path = Path(settings.measurements or settings.evaluator.get("store") or source / STORE)
    return problem, evaluator, folder


def _save_measured(
    problem: MappingProblem,
    evaluator: DeviceEvaluator,
    folder: Path,
    save: Callable[[Path, Mapping[str, Any]], None],
    ending: str,
) -> None:
    """Write the mappings that were measured and what is known of each."""
    mappings = evaluator.measured()
    if not mappings:
        return
    named = {key_of(mapping)[:12]: mapping for mapping in mappings}
    metrics = evaluator.estimated_metrics(stack(mappings))
    chosen = ("latency_s", "latency_ci95_s", "energy_j", "energy_ci95_j", "attempts")
    columns = {"mapping_id": list(named), **{name: metrics[name] for name in chosen}}
    save(folder / f"measured.{ending}", columns | {"repeats": metrics["attempts"] * evaluator.repeats})
    save_mappings(folder / "mappings.json", named, problem.network, problem.system)


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
