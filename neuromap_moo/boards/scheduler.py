"""Measurement of many mappings on several boards, which take them from one list.

Each board has a thread of its own, so a slow or dead one holds nobody up. Whatever happens to an attempt is in the
store before the next begins.
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

REPEAT, CONTROL, FIRST = "repeat", "control", "mapping"  #: purposes of a measurement


@dataclass
class Job:
    """A mapping to be measured, and how often that has failed."""

    mapping: Mapping
    purpose: str
    failures: int = 0


@dataclass
class Scheduler:
    """Jobs and the boards that do them; `run` has them all done, once.

    A job ends when it is measured, refused as a mapping, or has failed MOST_FAILURES times on boards that have measured
    something. A board's thread changes what the threads share under the lock of `_changed` alone.

    Parameters
    ----------
    boards
        Those that are given up take no part.
    waiting
        Jobs that no board has taken; emptied as boards take them.
    store
        Gets every attempt.
    entry_of
        Makes of a mapping the JSON object that workers are sent.
    control_due
        Returns the control mapping where a board has to measure it before its next job, else None.
    repeats
        How often an attempt measures its mapping.
    time_limit_s
        Of one attempt.
    should_stop
        Asked several times a second; once true, what is under way ends and the rest is left.
    say
        Told of a board that does not start, and of one that is given up.

    """

    boards: Sequence[BoardProcess]
    waiting: list[Job]
    store: Store
    entry_of: Callable[[Mapping], abc.Mapping[str, Any]]
    control_due: Callable[[BoardProcess], Mapping | None]
    repeats: int
    time_limit_s: float
    should_stop: Callable[[], bool]
    say: Callable[[str], None]
    _at_work: int = field(default=0, init=False)
    _stopped: bool = field(default=False, init=False)
    _error: BaseException | None = field(default=None, init=False)
    _metrics: tuple[str, ...] = field(default=(), init=False)  # that all boards measure
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    def run(self) -> None:
        """Return when all jobs have ended, or it was stopped.

        Raises DeviceError where no board is left; what a worker does raises nothing else.
        """
        if self.should_stop():
            return
        threads = [threading.Thread(target=self._serve, args=(b,), daemon=True) for b in self.boards if not b.given_up]
        for thread in threads:
            thread.start()
        try:
            self._watch(threads)
        except BaseException as error:  # Ctrl-C a second time: nothing is waited for
            self._break_off(threads, error)
            raise
        if self._error is not None:
            raise self._error
        if self.waiting and not self._stopped:
            reasons = "; ".join(f"{b.label}: {b.given_up} (see {b.log})" for b in self.boards)
            raise DeviceError(f"no board is left to measure {len(self.waiting)} mappings: {reasons}")

    def _watch(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for all threads, and stop them where the user wants it."""
        while any(thread.is_alive() for thread in threads):
            threads[0].join(POLL_S) if len(threads) == 1 else time.sleep(POLL_S / 10)
            if not self._stopped and self.should_stop():
                self._stop()
            if self._stopped:
                for board in self.boards:
                    if board.starting:
                        board.kill()

    def _break_off(self, threads: Sequence[threading.Thread], error: BaseException) -> None:
        """Kill all workers, and wait a moment for their threads."""
        self._stop(error)
        for board in self.boards:
            board.kill()
        for thread in threads:
            thread.join(GOODBYE_S)

    def _stop(self, error: BaseException | None = None) -> None:
        """Have no further job begun; `error` is what `run` shall raise."""
        with self._changed:
            self._error, self._stopped = error or self._error, True
            self._changed.notify_all()

    def _serve(self, board: BoardProcess) -> None:
        """Do jobs on a board until there are no more, or it is given up: what its thread does."""
        while (job := self._next_job(board)) is not None:
            self._do(board, job)
            if board.given_up:
                self.say(f"{board.label} is left alone: {board.given_up}")
                return

    def _next_job(self, board: BoardProcess) -> Job | None:
        """Return a job once there is one and the board need not pause; None where none is left or it was stopped."""
        with self._changed:
            while not self._stopped:
                pause_s = board.paused_until - time.monotonic()
                if self.waiting and pause_s <= 0:
                    self._at_work += 1
                    return self.waiting.pop(0)
                if not self.waiting and not self._at_work:
                    return None
                self._changed.wait(min(max(pause_s, 0.0) or POLL_S, POLL_S))
            return None

    def _do(self, board: BoardProcess, job: Job) -> None:
        """Try a job on a board, and put it back where it has not ended."""
        ended = False
        try:
            board.ready()
            self._check_metrics(board)
            ended = self._try(board, job)
        except FailureError as failure:  # it did not start
            self._not_started(board, failure)
        except BaseException as error:  # ours, or the store's: the caller shall see it
            self._stop(error)
        finally:
            with self._changed:
                if not ended:
                    self.waiting.append(job)
                self._at_work -= 1
                self._changed.notify_all()

    def _check_metrics(self, board: BoardProcess) -> None:
        """Raise FailureError where a board measures something else than the first that was ready."""
        with self._changed:
            self._metrics = self._metrics or board.metrics
        if board.metrics != self._metrics:
            text = f"measures {board.metrics}, other boards {self._metrics}; all have to agree"
            raise FailureError(status.INVALID, text, fatal=True)

    def _not_started(self, board: BoardProcess, failure: FailureError) -> None:
        if self._stopped:
            board.stop()
            return
        board.failed(failure)
        if board.failures == 1 and not board.given_up:
            self.say(f"{board.label} does not start: {failure}; it is tried again")

    def _try(self, board: BoardProcess, job: Job) -> bool:
        """Measure the control where it is due, then the mapping of a job; return whether the job has ended."""
        control = self.control_due(board)
        failure = None if control is None else self._attempt(board, control, CONTROL)
        ended = False
        if failure is not None:
            failure.fatal |= failure.kind == status.REFUSED  # what others have measured
        else:
            failure = self._attempt(board, job.mapping, job.purpose)
            if board.has_worked and failure is not None:
                job.failures += MOST_FAILURES if failure.kind == status.REFUSED else 1
            ended = failure is None or job.failures >= MOST_FAILURES
        if failure is not None:
            board.failed(failure)
        return ended

    def _attempt(self, board: BoardProcess, mapping: Mapping, purpose: str) -> FailureError | None:
        """Measure a mapping and put what became of it into the store; return the failure where it is one."""
        attempt = self.store.begin(mapping, board.label, board.name, purpose, self.repeats)
        try:
            metrics = board.request_values(attempt, self.entry_of(mapping), self.repeats, self.time_limit_s)
        except FailureError as failure:
            kind = status.WITHDRAWN if self._error is not None else failure.kind
            self.store.end(attempt, kind, error=str(failure))
            return failure
        self.store.end(attempt, status.DONE, metrics)
        board.failures, board.has_worked = 0, True
        return None
