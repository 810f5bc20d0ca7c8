"""Evaluators by name, with their options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from neuromap_moo.boards.evaluator import DeviceEvaluator
from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.evaluator import Evaluator
from neuromap_moo.models.packet import PacketEvaluator
from neuromap_moo.models.sanafe import SanafeEvaluator
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

#: Each takes a partitioner, a system and its own options.
EVALUATORS: dict[str, Any] = {
    "analytic": AnalyticEvaluator,
    "packet": PacketEvaluator,
    "sanafe": SanafeEvaluator,
    "device": DeviceEvaluator,
}


def evaluator_for(
    given: Evaluator | str | Mapping[str, Any] | None, partitioner: AnyPartitioner, system: System
) -> Evaluator:
    """Return an evaluator: one given as such, or by its name, or by a dict of name and options.

    Raises InputError for unknown names and options, TypeError for what is none of these.
    """
    if isinstance(given, str) or given is None:
        given = {"name": given or "analytic"}
    if not isinstance(given, Mapping):
        if not (hasattr(given, "evaluate") and hasattr(given, "name")):
            raise TypeError(f"evaluator: expected an object with name and evaluate(), got {type(given).__name__}")
        return given
    options = dict(given)
    name = str(options.pop("name", None))
    if name not in EVALUATORS:
        raise InputError(f"evaluator: no '{name}'{did_you_mean(name, EVALUATORS)}")
    known = list(inspect.signature(EVALUATORS[name]).parameters)[2:]
    for key in options:
        if key not in known:
            raise InputError(f"evaluator.{key}: unknown key of evaluator '{name}'{did_you_mean(str(key), known)}")
    made: Evaluator = EVALUATORS[name](partitioner, system, **options)
    return made
