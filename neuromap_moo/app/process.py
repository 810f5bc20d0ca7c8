"""A run as a process: alone in its folder, ended in order by Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from neuromap_moo.app.messages import say
from neuromap_moo.errors import InputError
from neuromap_moo.problem.problem import MappingProblem


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the lock of a process that was killed holds nobody up."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"output '{folder}': another process is at work in it; choose another") from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Turn the first Ctrl-C, or a batch system's SIGTERM, into an entry of the list yielded: the search ends in order.

    A second one kills.
    """
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("stopping after this generation; results will be saved (Ctrl-C again to abort)")

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, as in some launchers: the launcher's own handling stays
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def closing_boards(problem: MappingProblem) -> Iterator[None]:
    """Let an evaluator that holds boards go of them at the end."""
    try:
        yield
    finally:
        if problem.measuring is not None:
            problem.measuring.close()
