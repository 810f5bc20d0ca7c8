"""A run: front + baselines + history + provenance, in memory and as a folder."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError
from neuromap_moo.evaluate import MAXIMISED, minimised
from neuromap_moo.files import whole_file
from neuromap_moo.front import Front, reductions, save_table
from neuromap_moo.mapping import save_mappings
from neuromap_moo.search import Budget, MappingProblem, SearchResult, SearchState, search_mappings

CHECKPOINT = "checkpoint.pkl"
SUMMARY = "summary.json"
PROVENANCE = "provenance.json"
#: Files and patterns that belong to a run; overwriting removes these and nothing else.
OWN_FILES = (
    "front.csv",
    "baselines.csv",
    "mappings.json",
    "history.csv",
    SUMMARY,
    PROVENANCE,
    "evaluations.npz",
    "evaluated.csv",
    "report.html",
    CHECKPOINT,
    "pareto.*",
    "convergence.*",
    "mesh_*.*",
    ".tmp_*",
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
    evaluations: int
    seconds: float
    ended: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Mapping[str, NDArray[Any]] | None = None

    @property
    def history_columns(self) -> tuple[str, ...]:
        """Column names of `history`."""
        return ("evaluations", "seconds", "hypervolume", *(f"best_{name}" for name in self.problem.objectives))

    @property
    def reference_point(self) -> dict[str, float]:
        """Reference point of the hypervolume by objective: vendor_default, half as bad again."""
        point = self.problem.reference_point
        return {n: float(-v if n in MAXIMISED else v) for n, v in zip(self.problem.objectives, point, strict=True)}

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
            "seconds": self.seconds,
            "ended": self.ended or "stopped",
            "mappings": len(self.front),
            "knee": self.front.ids[self.front.knee],
            "reference_point": self.reference_point,
            "hypervolume": self.hypervolume,
            "best": reductions(self.front, self.baselines),
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
    checkpoint: Path | None = None,
    fingerprint: str = "",
    on_generation: Callable[[SearchState], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Run:
    """Search the mappings of a problem; ends at `evaluations`, or after `seconds`, whichever comes first.

    Same seed and number of evaluations, same front. See `search.driver.search_mappings` for the other arguments.
    """
    result = search_mappings(
        problem,
        algorithm,
        options,
        Budget(evaluations, seconds),
        seed,
        checkpoint,
        fingerprint,
        keep_evaluations,
        on_generation,
        should_stop,
    )
    return Run(
        name=name,
        problem=problem,
        algorithm=algorithm,
        seed=seed,
        front=front_of(problem, result),
        baselines=baselines_of(problem),
        history=result.history,
        evaluations=result.evaluations,
        seconds=result.seconds,
        ended=result.ended,
        evaluated=result.evaluated,
    )


def front_of(problem: MappingProblem, result: SearchResult) -> Front:
    """Evaluate the mappings of a result for every column and give them ids."""
    ids = tuple(f"m{i:03d}" for i in range(len(result.mappings)))
    return Front(ids, result.mappings, problem.evaluate_mappings(result.mappings), problem.objectives)


def baselines_of(problem: MappingProblem) -> Front:
    """Evaluate the baselines for every column."""
    named = problem.named_baselines
    mappings = tuple(b.mapping for b in named.values())
    notes = tuple(b.note for b in named.values())
    return Front(tuple(named), mappings, problem.evaluate_mappings(mappings), problem.objectives, notes)


def hypervolume(problem: MappingProblem, front: Front) -> float:
    """Hypervolume of a front, objectives in units of the problem's reference point."""
    F = problem.normalised(minimised(front.table, problem.objectives))
    return float(moocore.hypervolume(F, ref=np.ones(problem.n_obj)))


def fingerprint_of(problem: MappingProblem, *settings: Any) -> str:
    """Digest of everything that decides what a search finds."""
    content = [problem.network.digest, problem.system.digest, problem.objectives, problem.evaluator.name, settings]
    return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()


def provenance_of(problem: MappingProblem, config: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, git revision, command, resolved config, digests and machine."""
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
        "config": config,
    }


def open_folder(folder: Path, overwrite: bool) -> bool:
    """Make a run folder ready; return True where an unfinished run lies in it.

    Raises InputError where a finished run or something else lies there. With `overwrite` the files of the earlier
    run are removed, any other file stays.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output '{folder}': expected a folder, it is a file; choose another output")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if overwrite:
        for pattern in OWN_FILES:
            for path in folder.glob(pattern):
                path.unlink()
    elif CHECKPOINT in found:
        return True
    elif SUMMARY in found:
        raise InputError(
            f"output '{folder}': holds a finished run; choose another output or replace it with overwrite=true"
        )
    elif any(not name.startswith(".") for name in found):
        raise InputError(
            f"output '{folder}': expected a new or empty folder or an unfinished run, it holds other files"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output '{folder}': cannot be made ({error.strerror}); choose another output") from error
    return False


def save_tables(run: Run, folder: Path) -> None:
    """Write everything of a run folder but the pictures, the report and the summary."""
    save_table(folder / "front.csv", run.front)
    save_table(folder / "baselines.csv", run.baselines, id_column="name")
    mappings = run.front.by_id | run.baselines.by_id
    save_mappings(folder / "mappings.json", mappings, run.problem.network, run.problem.system)
    with whole_file(folder / "history.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(run.history_columns)
        writer.writerows([int(row[0]), *map(repr, row[1:])] for row in run.history.tolist())
    if run.evaluated is not None:
        with whole_file(folder / "evaluations.npz") as temporary, open(temporary, "wb") as raw:
            np.savez_compressed(raw, **run.evaluated)  # type: ignore[arg-type]
    save_json(folder / PROVENANCE, run.provenance)


def finish_folder(run: Run, folder: Path, stopped: bool) -> None:
    """Write the summary; unless the run was stopped early, remove the checkpoint, which marks it as finished."""
    save_json(folder / SUMMARY, run.summary())
    if not stopped:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    for leftover in folder.glob(".tmp_*"):  # of a process that was killed while it wrote
        leftover.unlink()


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
