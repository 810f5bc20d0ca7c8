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


class MappingError(Exception):
    """This mapping cannot be measured, now or later."""


class TransientError(Exception):
    """It did not work this time; the next try may."""


class FatalError(Exception):
    """Nothing can be measured here."""


def serve(start: Callable[[Mapping[str, Any]], tuple[str, tuple[str, ...], Measure]]) -> int:
    """Answer until the host says bye or is gone; return the exit code.

    `start` takes the message `hello` and returns the worker's name, its metrics and what measures. What anyone prints
    goes to stderr, so that nothing but answers is on stdout.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    measure: Measure | None = None
    for line in sys.stdin:
        try:
            message = json.loads(line)
            kind = message["type"]
        except (ValueError, KeyError, TypeError):
            print(f"expected a JSON object with a type on a line, got {line[:200]!r}", file=sys.stderr)
            return 2
        if kind == "bye":
            return 0
        if kind == "hello":
            if message.get("protocol") != PROTOCOL:
                say(type="error", kind="fatal", message=f"expected protocol {PROTOCOL}, got {message.get('protocol')}")
                return 2
            try:
                name, metrics, measure = start(message)
            except Exception as error:
                traceback.print_exc()
                kind = "transient" if isinstance(error, TransientError) else "fatal"
                say(type="error", kind=kind, message=str(error) or type(error).__name__)
                return 2
            say(type="ready", name=name, metrics=list(metrics))
        elif kind == "measure" and measure is not None:
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
            say(**answer)
        else:
            print(f"expected hello, measure or bye, in this order, got {kind!r}", file=sys.stderr)
            return 2
    return 0
