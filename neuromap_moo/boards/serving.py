"""The worker's side of the device protocol, for programs that measure one mapping at a time."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from neuromap_moo.boards.protocol import PROTOCOL

#: Measures a mapping: takes the message `measure`, returns values by metric, one for each repeat.
Measure = Callable[[Mapping[str, Any]], dict[str, list[float]]]

#: Gets ready: takes the message `hello`, returns the worker's name, its metrics and what measures.
Start = Callable[[Mapping[str, Any]], tuple[str, tuple[str, ...], Measure]]


class MappingError(Exception):
    """This mapping cannot be measured, now or later."""


class TransientError(Exception):
    """It did not work this time; the next try may."""


class FatalError(Exception):
    """Nothing can be measured here."""


class _UnexpectedError(Exception):
    """The host said something that is not in the protocol."""


def serve(start: Start) -> int:
    """Answer the host until it says bye or is gone; return the exit code of the worker.

    What `start`, or what it returns, prints goes to stderr, so that nothing but answers is on stdout. Exceptions become
    errors of the protocol: MappingError, TransientError and FatalError as they say; any other one counts as transient
    in a measurement and as fatal in `start`.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measure: Measure | None = None
    for line in sys.stdin:
        try:
            message = _message(line, measure is not None)
        except _UnexpectedError as error:
            print(error, file=sys.stderr)
            return 2
        if message["type"] == "bye":
            return 0
        if message["type"] == "hello":
            answer, measure = _begun(start, message)
        elif measure is not None:
            answer = _measured(measure, message)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if measure is None:
            return 2
    return 0


def _message(line: str, begun: bool) -> dict[str, Any]:
    """Return what the host says; raises _UnexpectedError."""
    try:
        message: dict[str, Any] = json.loads(line)
        kind = message["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise _UnexpectedError(f"expected a JSON object with a type on a line, got {line[:200]!r}") from error
    if kind not in ("hello", "bye") and not (kind == "measure" and begun):
        raise _UnexpectedError(f"expected hello, measure or bye, in this order, got {kind!r}")
    return message


def _begun(start: Start, message: Mapping[str, Any]) -> tuple[dict[str, Any], Measure | None]:
    """Return the answer to hello, and what measures; None where nothing can."""
    if message.get("protocol") != PROTOCOL:
        text = f"expected protocol {PROTOCOL}, got {message.get('protocol')}"
        return {"type": "error", "kind": "fatal", "message": text}, None
    try:
        name, metrics, measure = start(message)
    except Exception as error:
        traceback.print_exc()
        kind = "transient" if isinstance(error, TransientError) else "fatal"
        return {"type": "error", "kind": kind, "message": str(error) or type(error).__name__}, None
    return {"type": "ready", "name": name, "metrics": list(metrics)}, measure


def _measured(measure: Measure, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a message `measure`."""
    answer: dict[str, Any] = {"type": "result", "id": message["id"]}
    try:
        answer["metrics"] = measure(message)
    except Exception as error:
        kinds = {MappingError: "mapping", FatalError: "fatal"}
        if not isinstance(error, (MappingError, FatalError, TransientError)):
            traceback.print_exc()
        answer |= {
            "type": "error",
            "kind": kinds.get(type(error), "transient"),
            "message": str(error) or type(error).__name__,
        }
    return answer
