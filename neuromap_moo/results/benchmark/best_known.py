"""Best-known fronts of the benchmark instances: read with the problem, and replaced only by mappings that were checked.

Each instance has a folder: front.csv and mappings.json as in a run folder, and instance.json with the generator's call,
the digests, the reference point, the `runs` that found something and, for every point, which of them (`points`).
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.evolution.generation import non_dominated_rows
from neuromap_moo.files import instances_folder
from neuromap_moo.mapping.check import check
from neuromap_moo.mapping.files import load_mappings, save_mappings
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.models.metrics import minimised
from neuromap_moo.oracles.analytic import reference_metrics
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.results.benchmark.instances import Benchmark, instance_of
from neuromap_moo.results.folder import load_json, save_json
from neuromap_moo.results.front import load_table, save_table
from neuromap_moo.results.run import front_of

INSTANCE = "instance.json"

#: Points of a best-known front; beyond it those go first that add least hypervolume.
MOST_POINTS = 100

#: A front whose hypervolume is larger by less than this, relatively, is no better: sums in another order.
LEAST_GAIN = 1e-9

#: The oracle adds up in another order: it may differ from the evaluator by this much, relatively.
TOLERANCE = 1e-9


def benchmark(name: str, folder: Path | None = None) -> Benchmark:
    """Return a named benchmark instance with the best front known.

    Raises InputError for an unknown name, and where the instance that is generated here is not the one that the front
    belongs to. `folder` holds a folder per instance; the one of the package by default.
    """
    instance = instance_of(name)
    built = instance.build()
    problem = MappingProblem(built.network, built.system, instance.objectives, cut="as_given")
    own = (folder or instances_folder()) / name
    facts = _facts(own)
    for what, digest in (("network", problem.network.digest), ("system", problem.system.digest)):
        if facts[what] != digest:
            raise InputError(
                f"benchmark '{name}': its {what} has digest {digest[:12]}, its front in '{own}' belongs to "
                f"{str(facts[what])[:12]}; generator, conf/ or a library has changed: take the versions that "
                f"{INSTANCE} names"
            )
    mappings, *_ = load_mappings(own / "mappings.json")
    table = load_table(own / "front.csv")
    try:
        front = tuple(mappings[i] for i in table["mapping_id"])
        columns = {c: np.array(table[c], dtype=np.float64) for c in instance.objectives}
        reference = np.array([facts["reference_point"][c] for c in instance.objectives], dtype=np.float64)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"benchmark '{name}': '{own}' is damaged ({error!r}); install the package again") from error
    optimum = None
    if built.planted is not None and len(instance.objectives) == 1:
        optimum = float(minimised(problem.evaluate_mappings([built.planted]), instance.objectives)[0, 0])
    F = minimised(columns, instance.objectives)
    return Benchmark(name, instance.description, problem, F, front, reference, optimum, built.planted)


def _facts(own: Path) -> dict[str, Any]:
    facts = load_json(own / INSTANCE)
    if not isinstance(facts, dict) or not {"network", "system", "reference_point", "runs", "points"} <= set(facts):
        raise InputError(f"'{own / INSTANCE}': expected the description of a benchmark instance; install it again")
    return facts


def start_instance(name: str, folder: Path) -> None:
    """Write an instance anew into `folder`/`name`: reference point, and a front of what no search is needed for.

    That is the planted placement where there is one, else the baselines.
    """
    instance = instance_of(name)
    built = instance.build()
    problem = MappingProblem(built.network, built.system, instance.objectives, cut="as_given")
    facts = {
        "name": name,
        "description": instance.description,
        "generator": instance.call,
        "network": problem.network.digest,
        "system": problem.system.digest,
        "reference_point": dict(zip(instance.objectives, problem.reference_point.tolist(), strict=True)),
    }
    named = problem.named_baselines
    points = [(b.mapping, {"algorithm": f"baseline {k}"}) for k, b in named.items()]
    if built.planted is not None:
        points.append((built.planted, {"algorithm": "planted"}))
    F = minimised(problem.evaluate_mappings([m for m, _ in points]), instance.objectives)
    keep = _chosen(F, problem.reference_point)
    for i in keep:
        verify(problem, points[i][0])
    _save(problem, facts, [points[i] for i in keep], folder / name)


def improve(name: str, mappings: Sequence[Mapping], origin: abc.Mapping[str, Any], folder: Path) -> tuple[int, float]:
    """Merge mappings into the best-known front of an instance.

    A mapping is taken only if no rule is broken (`check`) and the plain-Python oracle gives the objectives that the
    evaluator gives; raises InputError otherwise and leaves the files as they are. `origin` says which run found them.
    Returns how many new points the front has, and its hypervolume relative to the old front's, 1 where it stays.
    """
    known = benchmark(name, folder)
    own = folder / name
    facts = _facts(own)
    problem = known.problem
    old = [(m, facts["runs"][run]) for m, run in zip(known.mappings, facts["points"], strict=True)]
    seen = set(known.mappings)
    fresh = [m for m in dict.fromkeys(mappings) if m not in seen]
    if not fresh:
        return 0, 1.0
    F = np.concatenate([known.objectives, minimised(problem.evaluate_mappings(fresh), problem.objectives)])
    points = [*old, *((m, dict(origin)) for m in fresh)]
    # Of equal points the known one stays; a front that was thinned out may lose more than it gains.
    keep = _chosen(F, known.reference_point)
    gain = known.relative_hypervolume(F[keep])
    if gain <= 1.0 + LEAST_GAIN:
        return 0, 1.0
    new = [points[i][0] for i in keep if i >= len(old)]
    for mapping in new:
        verify(problem, mapping)
    _save(problem, facts, [points[i] for i in keep], own)
    return len(new), gain


def verify(problem: MappingProblem, mapping: Mapping) -> None:
    """Raise InputError unless a mapping is legal and the oracle agrees with the evaluator on its objectives."""
    check(mapping, problem)
    metrics = problem.evaluate_mappings([mapping])
    oracle = reference_metrics(problem.network, problem.system, mapping)
    for column in problem.objectives:
        told, expected = float(metrics[column][0]), float(oracle[column])
        if not np.isclose(told, expected, rtol=TOLERANCE, atol=0.0):
            raise InputError(f"mapping with {column} {told!r}: the oracle gives {expected!r}; it is not taken")


def _chosen(F: FloatArray, reference_point: FloatArray) -> IntArray:
    """Rows of minimised objectives (n, m) that make a front of at most MOST_POINTS, sorted by the first objective."""
    keep = np.flatnonzero(non_dominated_rows(F))
    keep = keep[np.lexsort(F[keep].T[::-1])]
    while keep.size > MOST_POINTS:
        adds = moocore.hv_contributions(F[keep] / reference_point, ref=np.ones(F.shape[1]))
        adds[F[keep].argmin(axis=0)] = np.inf  # the ends stay, whatever they add
        keep = np.delete(keep, int(np.argmin(adds)))
    return keep


def _save(
    problem: MappingProblem, facts: abc.Mapping[str, Any], points: list[tuple[Mapping, dict[str, Any]]], own: Path
) -> None:
    front = front_of(problem, tuple(mapping for mapping, _ in points))
    save_table(own / "front.csv", front)
    save_mappings(own / "mappings.json", front.by_id, problem.network, problem.system)
    versions = {p: importlib.metadata.version(p) for p in ("numpy", "networkx")} | {"python": platform.python_version()}
    runs: list[dict[str, Any]] = []
    for _, origin in points:
        if origin not in runs:
            runs.append(origin)
    found_by = [runs.index(origin) for _, origin in points]
    save_json(own / INSTANCE, {**facts, "versions": versions, "runs": runs, "points": found_by})
