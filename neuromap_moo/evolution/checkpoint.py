"""Checkpoints of a search."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle

from neuromap_moo.errors import InputError
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.generation import SearchState
from neuromap_moo.files import whole_file
from neuromap_moo.problem.problem import MappingProblem

CHECKPOINT_SCHEMA = 3


def fingerprint_of(
    problem: MappingProblem,
    algorithm: str,
    options: Mapping[str, Any] | None,
    budget: Budget,
    seed: int,
    keep_evaluations: bool,
) -> str:
    """Digest of everything that decides what a search finds."""
    content = [
        problem.network.digest,
        problem.system.digest,
        problem.objectives,
        problem.evaluator.name,
        algorithm,
        sorted((options or {}).items()),
        (budget.evaluations, budget.seconds),
        seed,
        keep_evaluations,
        *([problem.constraints.digest] if problem.constraints else []),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def save_checkpoint(path: Path, state: SearchState, fingerprint: str) -> None:
    """Write a checkpoint, whole or not at all; the problem is left out and given back on resume."""
    problem, state.algorithm.problem = state.algorithm.problem, None
    try:
        with whole_file(path) as temporary:
            # Two pickles: the first alone tells whose checkpoint it is.
            temporary.write_bytes(cloudpickle.dumps((CHECKPOINT_SCHEMA, fingerprint)) + cloudpickle.dumps(state))
    finally:
        state.algorithm.problem = problem


def checkpoint_fingerprint(path: Path) -> str:
    """Return the fingerprint of the search that a checkpoint belongs to; "" where the file is no checkpoint."""
    try:
        with open(path, "rb") as f:
            schema, fingerprint = pickle.load(f)
    except Exception:  # a pickle can fail in any way
        return ""
    return str(fingerprint) if schema == CHECKPOINT_SCHEMA else ""


def load_checkpoint(path: Path, fingerprint: str) -> SearchState:
    """Read a checkpoint; raises InputError where it belongs to another search."""
    if checkpoint_fingerprint(path) != fingerprint:
        raise InputError(
            f"checkpoint '{path}': belongs to a different search (network, system, constraints, objectives, "
            "algorithm, budget or seed); give another path or remove it"
        )
    try:
        with open(path, "rb") as f:
            pickle.load(f)
            state: SearchState = pickle.load(f)
    except Exception as error:  # a pickle can fail in any way
        raise InputError(f"checkpoint '{path}': cannot be read ({type(error).__name__}); remove it") from error
    return state
