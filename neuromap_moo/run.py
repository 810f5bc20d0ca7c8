"""A run: front + baselines + history + provenance, in memory and as a folder."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from neuromap_moo.errors import InputError
from neuromap_moo.evaluate import MAXIMISED, Measuring, minimised
from neuromap_moo.evaluate.calibrate import PREDICTED, Calibration, Fitted
from neuromap_moo.evaluate.device import FOLDER, STORE
from neuromap_moo.files import TEMPORARY, whole_file
from neuromap_moo.front import Front, load_table, reductions, save_table
from neuromap_moo.mapping import Mapping as CoreMapping
from neuromap_moo.mapping import MappingBatch, check, load_mappings, save_mappings, stack
from neuromap_moo.search import (
    Budget,
    MappingProblem,
    SearchState,
    checkpoint_fingerprint,
    non_dominated_rows,
    robustness,
    search_mappings,
)

CHECKPOINT = "checkpoint.pkl"
SUMMARY = "summary.json"
SAMPLE = "sample.csv"
ROBUSTNESS = "robustness"  # column of front.csv
ROBUST = 0.9
PROVENANCE = "provenance.json"
#: Mappings of a run that get a picture.
CHOSEN = ("fastest", "most_frugal", "knee", "vendor_default")
#: Pictures of a run, each as PDF and PNG.
PICTURES = ("pareto", "convergence", "operators", "predicted", *(f"mesh_{name}" for name in CHOSEN))
CALIBRATED_FILES = CALIBRATED, CONSTANTS, PREDICTIONS = ("calibrated.yaml", "constants.csv", "predictions.csv")
#: Files that belong to a run; overwriting removes these and nothing else.
OWN_FILES = (
    "front.csv",
    "baselines.csv",
    "mappings.json",
    "history.csv",
    SUMMARY,
    PROVENANCE,
    "evaluations.npz",
    "evaluated.csv",
    *(f"{name}.{ending}" for name in ("attempts", "measured") for ending in ("csv", "parquet")),
    SAMPLE,
    *CALIBRATED_FILES,
    "report.html",
    CHECKPOINT,
    *(f"{name}.{ending}" for name in PICTURES for ending in ("pdf", "png")),
)
LIBRARIES = ("pymoo", "moocore", "numpy", "numba", "scipy", "networkx", "hydra-core")


@dataclass(frozen=True)
class Run:
    """What one search found and how.

    `history` has a row per generation and the columns of `history_columns`.
    """

    name: str
    problem: MappingProblem
    algorithm: str
    seed: int
    front: Front
    baselines: Front
    history: NDArray[np.float64]
    history_columns: tuple[str, ...]
    evaluations: int
    seconds: float
    ended: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Mapping[str, NDArray[Any]] | None = None
    #: Of an evaluator that measures: what became of all attempts.
    measurements: Mapping[str, Any] = field(default_factory=dict)

    def history_of(self, column: str) -> NDArray[np.float64]:
        """One column of the history, (generations,)."""
        return np.asarray(self.history[:, self.history_columns.index(column)])

    @property
    def adapts_operators(self) -> bool:
        """True where the history has the shares of operators."""
        return any(name.startswith("share_") for name in self.history_columns)

    @property
    def reference_point(self) -> dict[str, float]:
        """Reference point of the hypervolume by objective."""
        return reference_point(self.problem)

    @property
    def hypervolume(self) -> float:
        """Hypervolume of the front with objectives in units of the reference point.

        With minimised objectives it is the share of the box between zero and the reference point that is dominated.
        """
        return hypervolume(self.problem, self.front)

    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return {
            "name": self.name,
            "seed": self.seed,
            "algorithm": self.algorithm,
            "objectives": list(self.problem.objectives),
            "evaluations": self.evaluations,
            "moves": int(self.history_of("moves")[-1]),
            "seconds": self.seconds,
            "ended": self.ended or "stopped",
            "mappings": len(self.front),
            "knee": self.front.ids[self.front.knee],
            **({} if ROBUSTNESS not in self.front.table else {"robust_mappings": robust_mappings(self.front)}),
            "reference_point": self.reference_point,
            "hypervolume": self.hypervolume,
            "best": reductions(self.front, self.baselines),
            **({"measurements": self.measurements} if self.measurements else {}),
        }


def search(
    problem: MappingProblem,
    algorithm: str = "nsga2",
    evaluations: int | None = 20_000,
    seconds: float | None = None,
    seed: int = 0,
    name: str = "search",
    options: Mapping[str, Any] | None = None,
    keep_evaluations: bool = False,
    robustness_samples: int = 100,
    checkpoint: Path | None = None,
    on_generation: Callable[[SearchState], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Search the mappings of a problem; same seed and number of evaluations, same front.

    Parameters
    ----------
    algorithm
        nsga2, nsga3, smsemoa, agemoea2, moead, spea2, es or random.
    evaluations, seconds
        The search ends at whichever comes first; None is no limit.
    seed
        Of every random draw.
    options
        Of the algorithm: ``{"population": 200}`` for all but es, neighbours as well for moead; partition_offspring,
        placement_offspring and placement_generations for es.
    keep_evaluations
        Keep every evaluated mapping in `Run.evaluated`.
    robustness_samples
        Draws of the system's constants within their brackets; the front gets a column `robustness`, see `robustness`.
    checkpoint
        File written every few seconds; where it exists, the search goes on from it. Remove it when you are done.
    on_generation, should_stop
        Called after each generation; a true value of `should_stop` ends the search with what it has found.

    """
    if not isinstance(problem, MappingProblem):
        raise TypeError(f"problem: expected a MappingProblem, got {type(problem).__name__}")
    result = search_mappings(
        problem,
        algorithm,
        options,
        Budget(evaluations, seconds),
        seed,
        checkpoint=checkpoint,
        keep_evaluations=keep_evaluations,
        on_generation=on_generation,
        should_stop=should_stop,
    )
    return Run(
        name=name,
        problem=problem,
        algorithm=algorithm,
        seed=seed,
        front=with_robustness(problem, front_of(problem, result.mappings), robustness_samples, seed),
        baselines=baselines_of(problem),
        history=result.history,
        history_columns=result.history_columns,
        evaluations=result.evaluations,
        seconds=result.seconds,
        ended=result.ended,
        evaluated=result.evaluated,
        measurements=problem.evaluator.summary() if isinstance(problem.evaluator, Measuring) else {},
    )


def front_of(problem: MappingProblem, mappings: tuple[CoreMapping, ...], ids: tuple[str, ...] = ()) -> Front:
    """Evaluate the mappings of a front for every column; without `ids` they are numbered in their order."""
    ids = ids or tuple(f"m{i:03d}" for i in range(len(mappings)))
    return Front(ids, mappings, problem.evaluate_mappings(mappings), problem.objectives)


def with_robustness(problem: MappingProblem, front: Front, n_samples: int, seed: int) -> Front:
    """Return the front with a column `robustness`, unless there are no samples."""
    if n_samples == 0 or isinstance(problem.evaluator, Measuring):  # the model's constants then are not what is known
        return front
    share = robustness(problem, stack(front.mappings), n_samples, np.random.default_rng(seed))
    return replace(front, table={**front.table, ROBUSTNESS: share})


def robust_mappings(front: Front) -> int:
    """Count the mappings that stay non-dominated in ROBUST of the systems drawn, or more."""
    return int((front.table[ROBUSTNESS] >= ROBUST).sum())


def baselines_of(problem: MappingProblem) -> Front:
    """Evaluate the baselines for every column."""
    named = problem.named_baselines
    mappings = tuple(b.mapping for b in named.values())
    notes = tuple(b.note for b in named.values())
    return Front(tuple(named), mappings, problem.evaluate_mappings(mappings), problem.objectives, notes)


def reference_point(problem: MappingProblem) -> dict[str, float]:
    """Reference point of the hypervolume by objective, as the objectives stand in tables."""
    point = zip(problem.objectives, problem.reference_point, strict=True)
    return {name: float(-value if name in MAXIMISED else value) for name, value in point}


def hypervolume(problem: MappingProblem, front: Front) -> float:
    """Hypervolume of a front, objectives in units of the problem's reference point."""
    return problem.hypervolume(minimised(front.table, problem.objectives))


def provenance_of(problem: MappingProblem, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return versions, git revision, command, resolved config, digests and machine."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {
            "neuromap-moo": _version("neuromap-moo"),
            "python": platform.python_version(),
            **{name: _version(name) for name in LIBRARIES},
        },
        "git_revision": _git_revision(),
        "machine": {"platform": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "network": problem.network.digest,
        "system": problem.system.digest,
        "constraints": problem.constraints.digest,
        "config": config,
    }


def open_folder(folder: Path, overwrite: bool, fingerprint: str = "") -> bool:
    """Make a run folder ready; return True where an unfinished run of the search with this fingerprint lies in it.

    Raises InputError where another run or something else lies there. With `overwrite` the files of another run are
    removed; files that belong to no run stay.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output '{folder}': expected a folder, it is a file; choose another output")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if CHECKPOINT in found and fingerprint and checkpoint_fingerprint(folder / CHECKPOINT) == fingerprint:
        return True
    if overwrite and not found.isdisjoint((CHECKPOINT, SUMMARY)):
        for name in (*OWN_FILES, *(path.name for path in folder.glob("placement_*.json"))):
            (folder / name).unlink(missing_ok=True)
    elif CHECKPOINT in found:
        raise InputError(
            f"output '{folder}': holds an unfinished run that belongs to a different search (network, system, "
            "constraints, algorithm, budget or seed); repeat its command, choose another output, or start over "
            "with overwrite=true"
        )
    elif SUMMARY in found:
        raise InputError(
            f"output '{folder}': holds a finished run; choose another output or replace it with overwrite=true"
        )
    elif any(not name.startswith((".", STORE, FOLDER)) for name in found):
        raise InputError(f"output '{folder}': expected a new or empty folder or a run's, it holds other files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output '{folder}': cannot be made ({error.strerror}); choose another output") from error
    return False


def save_front(problem: MappingProblem, front: Front, baselines: Front, folder: Path) -> None:
    """Write front.csv, baselines.csv and the mappings of both."""
    save_table(folder / "front.csv", front)
    save_table(folder / "baselines.csv", baselines, id_column="name")
    save_mappings(folder / "mappings.json", front.by_id | baselines.by_id, problem.network, problem.system)


def save_tables(run: Run, folder: Path) -> None:
    """Write everything of a run folder but the pictures, the report and the summary."""
    save_front(run.problem, run.front, run.baselines, folder)
    with whole_file(folder / "history.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(run.history_columns)
        whole = [name in ("evaluations", "moves") for name in run.history_columns]
        for row in run.history.tolist():
            writer.writerow([int(v) if is_whole else repr(v) for v, is_whole in zip(row, whole, strict=True)])
    if run.evaluated is not None:
        with whole_file(folder / "evaluations.npz") as temporary, open(temporary, "wb") as raw:
            np.savez_compressed(raw, **run.evaluated)  # type: ignore[arg-type]
    save_json(folder / PROVENANCE, run.provenance)


def finish_folder(run: Run, folder: Path, stopped: bool) -> None:
    """Write the summary; unless the run was stopped early, remove the checkpoint, which marks it as finished."""
    save_json(folder / SUMMARY, run.summary())
    if not stopped:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    for leftover in folder.glob(f"{TEMPORARY}*"):  # of a process that was killed while it wrote
        leftover.unlink()


@dataclass(frozen=True)
class Rescored:
    """A run's mappings under another model or system.

    `scored` are the mappings of the run's front with their new metrics, `non_dominated` (n,) says which of them still
    are so among themselves; `front` is taken from all mappings that the run kept, or from `scored` if it kept none.
    `left_out` counts kept mappings that do not fit the new system.
    """

    scored: Front
    non_dominated: NDArray[np.bool_]
    front: Front
    baselines: Front
    left_out: int


def mappings_of(problem: MappingProblem, folder: Path) -> dict[str, CoreMapping]:
    """Read the mappings of a run folder, front and baselines, by id; InputError where they are another network's."""
    mappings, network, _ = load_mappings(folder / "mappings.json")
    if network != problem.network.digest:
        raise InputError(
            f"run '{folder}': its mappings are for the network with digest {network[:12]}, this one has "
            f"{problem.network.digest[:12]}; give the network the run was made with"
        )
    return mappings


def rescore(problem: MappingProblem, folder: Path) -> Rescored:
    """Evaluate the mappings of a run folder for `problem`; raises InputError where they do not belong or do not fit."""
    mappings = mappings_of(problem, folder)
    ids = load_table(folder / "front.csv")["mapping_id"]
    for name in ids:
        if name not in mappings:
            raise InputError(f"run '{folder}': front.csv names mapping '{name}', which mappings.json does not hold")
        try:
            check(mappings[name], problem)
        except InputError as error:
            raise InputError(
                f"run '{folder}', mapping '{name}' does not fit system '{problem.system.name}': {error}"
            ) from error
    own = tuple(mappings[name] for name in ids)
    scored = front_of(problem, own, tuple(ids))
    batch, F = stack(own), minimised(scored.table, problem.objectives)
    non_dominated = non_dominated_rows(F)
    left_out = 0
    if kept := (folder / "evaluations.npz").exists():
        batch, left_out = _load_evaluations(folder / "evaluations.npz", problem)
        F = minimised(problem.evaluator.evaluate(batch), problem.objectives)
    keep = np.flatnonzero(non_dominated_rows(F))
    keep = keep[np.lexsort(F[keep].T[::-1])]
    chosen = MappingBatch(batch.cores_per_layer[keep], batch.core_of_slice[keep])
    front = front_of(problem, tuple(chosen.unstack()), () if kept else tuple(ids[i] for i in keep))
    return Rescored(scored, non_dominated, front, baselines_of(problem), left_out)


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write the calibrated system as YAML, its constants, and what they predict, as CSV."""
    with whole_file(folder / CALIBRATED) as temporary:
        text = yaml.safe_dump(calibration.system.to_dict(), sort_keys=False, allow_unicode=True, width=120)
        temporary.write_text(text, encoding="utf-8")
    kinds = [f"{column}_{what}" for column in PREDICTED for what in ("measured", "predicted", "preset")]
    constants = [(*c, calibration.unit_of(c.name)) for c in calibration.constants]
    sources = [
        source[column]
        for column in PREDICTED
        for source in (calibration.measured, calibration.predicted, calibration.preset)
    ]
    ids = [m.mapping_id for m in calibration.measurements]
    predictions = list(zip(ids, calibration.held_out.tolist(), *(s.tolist() for s in sources), strict=True))
    for name, head, rows in (
        (CONSTANTS, [*Fitted._fields, "unit"], constants),
        (PREDICTIONS, ["mapping_id", "held_out", *kinds], predictions),
    ):
        with whole_file(folder / name) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow(head)
            writer.writerows(["" if v != v else v for v in row] for row in rows)  # nan stays empty


def _load_evaluations(path: Path, problem: MappingProblem) -> tuple[MappingBatch, int]:
    """Read the kept mappings that fit the problem's system, and count the others."""
    try:
        with np.load(path, allow_pickle=False) as data:
            k, cores = data["cores_per_layer"].astype(np.int64), data["core_of_slice"].astype(np.int32)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}': expected the evaluations.npz of a run, could not read it ({error})") from error
    used = k.sum(axis=1)
    column = np.arange(int(used.max()))
    core_of_slice = np.full((len(k), column.size), -1, dtype=np.int32)
    core_of_slice[column < used[:, None]] = cores
    legal = problem.is_legal(MappingBatch(k, core_of_slice))
    if not legal.any():
        raise InputError(f"'{path}': none of its {len(k)} mappings fits system '{problem.system.name}'")
    return MappingBatch(k[legal], core_of_slice[legal]), int((~legal).sum())


def save_json(path: Path, data: Any) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, default=str) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    """Read a JSON file of a run folder."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"'{path}': cannot be read ({error.strerror}); expected the folder of a finished run"
        ) from error
    except ValueError as error:
        raise InputError(f"'{path}': expected JSON, got something else ({error})") from error


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Revision of the checkout this package runs from, with "+changes" where it differs; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    if revision.returncode != 0:
        return None
    return revision.stdout.strip() + ("+changes" if status.stdout.strip() else "")
