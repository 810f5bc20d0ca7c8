"""Run folders: what is written where, and when a folder may be used."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neuromap_moo.boards.evaluator import FOLDER, STORE
from neuromap_moo.calibration.fit import Calibration
from neuromap_moo.calibration.terms import PREDICTED, Fitted
from neuromap_moo.errors import InputError
from neuromap_moo.evolution.checkpoint import checkpoint_fingerprint
from neuromap_moo.files import TEMPORARY, whole_file
from neuromap_moo.mapping.files import save_mappings
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.results.front import Front, save_table
from neuromap_moo.results.run import Run

CHECKPOINT = "checkpoint.pkl"
SUMMARY = "summary.json"
SAMPLE = "sample.csv"
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
