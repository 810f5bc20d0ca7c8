"""The device protocol: JSON lines between host and worker, and which of a worker's lines are accepted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from neuromap_moo.boards import store as status

PROTOCOL = 1
METRICS = ("latency_s", "energy_j")  #: what a board may measure; the first it must

LONGEST_LINE = 2**24  # bytes of an answer


class FailureError(Exception):
    """An attempt that failed.

    Parameters
    ----------
    kind
        Its status in the store, one of those of boards/store.py.
    text
        What was said.
    restart
        Whether the worker has to be started again.
    fatal
        Whether the board is given up for good.

    """

    def __init__(self, kind: str, text: str, restart: bool = False, fatal: bool = False) -> None:
        super().__init__(text)
        self.kind, self.restart, self.fatal = kind, restart, fatal


def checked_ready(line: str) -> tuple[str, tuple[str, ...]]:
    """Return the name and metrics of a worker that says it is ready; raises FailureError for anything else."""
    answer = _object(line)
    if answer.get("type") == "error":
        fatal = answer.get("kind") == "fatal"
        raise FailureError(status.INVALID, f"refused to start: {shortened(answer.get('message'))}", True, fatal)
    name, metrics = answer.get("name"), answer.get("metrics")
    if answer.get("type") != "ready" or not isinstance(name, str) or not isinstance(metrics, list):
        raise FailureError(status.INVALID, f"expected ready with name and metrics, got {shortened(line)}", restart=True)
    known = tuple(m for m in METRICS if m in metrics)
    if METRICS[0] not in known:
        text = f"expected a worker that measures {METRICS[0]} and perhaps {METRICS[1]}, got {shortened(metrics)}"
        raise FailureError(status.INVALID, text, fatal=True)
    return name, known


def checked_result(line: str, attempt: int, metrics: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """Return the values of a measurement by metric.

    Parameters
    ----------
    line
        The worker's answer, a JSON object.
    attempt
        The id that it has to answer to.
    metrics
        The metrics it has to have.
    repeats
        The number of values of each metric.

    Raises
    ------
    FailureError
        For an error that the worker reports, and for anything that is no answer.

    """
    answer = _object(line)
    if answer.get("id") != attempt or isinstance(answer.get("id"), bool):
        text = f"expected an answer to id {attempt}, got id {shortened(answer.get('id'))}"
        raise FailureError(status.INVALID, text, restart=True)
    if answer.get("type") == "error":
        raise _reported_failure(answer.get("kind"), shortened(answer.get("message")))
    if answer.get("type") != "result" or not isinstance(answer.get("metrics"), dict):
        raise FailureError(status.INVALID, f"expected a result with metrics, got {shortened(line)}", restart=True)
    return {name: _checked_values(name, answer["metrics"].get(name), repeats) for name in metrics}


def _reported_failure(kind: Any, text: str) -> FailureError:
    """Return the failure that a worker's error stands for."""
    if kind == "transient":
        return FailureError(status.TRANSIENT, text)
    if kind == "mapping":
        return FailureError(status.REFUSED, text)
    if kind == "fatal":
        return FailureError(status.TRANSIENT, text, restart=True, fatal=True)
    return FailureError(status.INVALID, f"expected kind transient, mapping or fatal, got {shortened(kind)}: {text}")


def _checked_values(name: str, given: Any, repeats: int) -> list[float]:
    if not isinstance(given, list) or len(given) != repeats:
        raise FailureError(status.INVALID, f"{name}: expected a list of {repeats} values, got {shortened(given)}")
    for value in given:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0.0 < value < math.inf:
            raise FailureError(status.INVALID, f"{name}: expected finite values > 0, got {shortened(given)}")
    return [float(value) for value in given]


def _object(line: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise FailureError(status.INVALID, f"expected a JSON object on a line of stdout, got {shortened(line)}", True)
    return answer


def shortened(value: Any) -> str:
    """Return a value as text of at most 200 characters."""
    text = value if isinstance(value, str) else repr(value)
    return text.strip()[:200]
