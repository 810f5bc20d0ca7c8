"""The mappings of a run folder under another model or system."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuromap_moo.arrays import BoolArray
from neuromap_moo.errors import InputError
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.mapping.check import check
from neuromap_moo.mapping.files import load_mappings
from neuromap_moo.mapping.mapping import Mapping, MappingBatch, stack
from neuromap_moo.models.metrics import minimised
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.results.front import Front, load_table
from neuromap_moo.results.run import baselines_of, front_of


@dataclass(frozen=True)
class Rescored:
    """A run's mappings under another model or system.

    `scored` are the mappings of the run's front with their new metrics, `non_dominated` (n,) says which of them still
    are so among themselves; `front` is taken from all mappings that the run kept, or from `scored` if it kept none.
    `left_out` counts kept mappings that do not fit the new system.
    """

    scored: Front
    non_dominated: BoolArray
    front: Front
    baselines: Front
    left_out: int


def mappings_of(problem: MappingProblem, folder: Path) -> dict[str, Mapping]:
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
