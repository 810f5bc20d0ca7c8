"""Boards behind the device protocol: programs that speak one JSON object per line on stdin and stdout.

Each board is a process with a thread of its own here. Boards take jobs from one list, so that a slow or dead one holds
nobody up; whatever happens to an attempt is in the store before the next begins.
"""

from __future__ import annotations

import threading
import time
from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuromap_moo.boards import store as status
from neuromap_moo.boards.process import GOODBYE_S, POLL_S, BoardProcess
from neuromap_moo.boards.protocol import FailureError
from neuromap_moo.boards.store import Store
from neuromap_moo.errors import DeviceError
from neuromap_moo.mapping.mapping import Mapping

MOST_FAILURES = 3  #: of a mapping, before it counts as infeasible
SUSPECT = 2  #: of them, after which it has to measure the control: before a mapping is blamed for the third time

REPEAT, CONTROL, FIRST = "repeat", "control", "mapping"  #: purposes of a measurement


@dataclass
class Job:
    """A mapping to be measured, and how often that has failed."""

    mapping: Mapping
    purpose: str
    failures: int = 0


@dataclass
class _Work:
    """What the threads of one call of `measure` share, under its lock."""

    waiting: list[Job]
    at_work: int = 0
    stopped: bool = False
    error: BaseException | None = None
    metrics: tuple[str, ...] = ()  # that all boards measure
    changed: threading.Condition = field(default_factory=threading.Condition)


def measure(
    boards: Sequence[BoardProcess],
    jobs: Sequence[Job],
    store: Store,
    entry_of: Callable[[Mapping], abc.Mapping[str, Any]],
    control_due: Callable[[BoardProcess], Mapping | None],
    repeats: int,
    time_limit_s: float,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Have all jobs measured, and put every attempt into the store.

    A job ends when it is measured, refused as a mapping, or has failed MOST_FAILURES times on boards that have measured
    something. `control_due` tells which control mapping a board has to measure first. Where `should_stop`, what is
    under way ends, the rest is left. `say` is told of a board that does not start, and of one that is left alone.
    Raises DeviceError where no board is left; what a worker does never raises.
    """
    work = _Work(list(jobs))

    def attempt(board: BoardProcess, mapping: Mapping, purpose: str) -> FailureError | None:
        number = store.begin(mapping, board.label, board.name, purpose, repeats)
        try:
            metrics = board.measure(number, entry_of(mapping), repeats, time_limit_s)
        except FailureError as failure:
            kind = status.WITHDRAWN if work.error is not None else failure.kind
            store.end(number, kind, error=str(failure))
            return failure
        store.end(number, status.DONE, metrics)
        board.failures, board.has_worked = 0, True
        return None

    def serve(board: BoardProcess) -> None:
        while True:
            with work.changed:
                while not work.stopped:
                    pause_s = board.paused_until - time.monotonic()
                    if work.waiting and pause_s <= 0:
                        break
                    if not work.waiting and not work.at_work:
                        return
                    work.changed.wait(min(max(pause_s, 0.0) or POLL_S, POLL_S))
                if work.stopped:
                    return
                job = work.waiting.pop(0)
                work.at_work += 1
            back = True
            try:
                board.ready()
                with work.changed:
                    work.metrics = work.metrics or board.metrics
                if board.metrics != work.metrics:
                    raise FailureError(
                        status.INVALID,
                        f"measures {board.metrics}, other boards {work.metrics}; all have to agree",
                        fatal=True,
                    )
                control = control_due(board)
                failure = None if control is None else attempt(board, control, CONTROL)
                if failure is not None:
                    failure.fatal |= failure.kind == status.REFUSED  # what others have measured
                else:
                    failure = attempt(board, job.mapping, job.purpose)
                    if board.has_worked and failure is not None:
                        job.failures += MOST_FAILURES if failure.kind == status.REFUSED else 1
                    back = failure is not None and job.failures < MOST_FAILURES
                if failure is not None:
                    board.failed(failure)
            except FailureError as failure:  # it did not start
                if work.stopped:
                    board.stop()
                    return
                board.failed(failure)
                if board.failures == 1 and not board.given_up:
                    say(f"{board.label} does not start: {failure}; it is tried again")
            except BaseException as error:  # ours, or the store's: the caller shall see it
                with work.changed:
                    work.error, work.stopped = error, True
            finally:
                with work.changed:
                    if back:
                        work.waiting.append(job)
                    work.at_work -= 1
                    work.changed.notify_all()
            if board.given_up:
                say(f"{board.label} is left alone: {board.given_up}")
                return

    if should_stop():
        return
    threads = [threading.Thread(target=serve, args=(b,), daemon=True) for b in boards if not b.given_up]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            threads[0].join(POLL_S) if len(threads) == 1 else time.sleep(POLL_S / 10)
            if not work.stopped and should_stop():
                with work.changed:
                    work.stopped = True
                    work.changed.notify_all()
            if work.stopped:
                for board in boards:
                    if board.starting:
                        board.kill()
    except BaseException as error:  # Ctrl-C a second time: nothing is waited for
        with work.changed:
            work.error, work.stopped = error, True
        for board in boards:
            board.kill()
        for thread in threads:
            thread.join(GOODBYE_S)
        raise
    if work.error is not None:
        raise work.error
    if work.waiting and not work.stopped:
        reasons = "; ".join(f"{b.label}: {b.given_up} (see {b.log})" for b in boards)
        raise DeviceError(f"no board is left to measure {len(work.waiting)} mappings: {reasons}")
