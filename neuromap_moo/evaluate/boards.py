"""Boards behind the device protocol: programs that speak one JSON object per line on stdin and stdout.

Each board is a process with a thread of its own here. Boards take jobs from one list, so that a slow or dead one holds
nobody up; whatever happens to an attempt is in the store before the next begins.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuromap_moo.errors import InputError, last_line
from neuromap_moo.evaluate import store as status
from neuromap_moo.evaluate.store import Store
from neuromap_moo.mapping import Mapping as CoreMapping

PROTOCOL = 1
METRICS = ("latency_s", "energy_j")  #: what a board may measure; the first it must

LONGEST_LINE = 2**24  # bytes of an answer
LOG_END = 2**14  # bytes of a log in which its last line is looked for
MOST_FAILURES = 3  #: of a mapping, before it counts as infeasible
GIVE_UP = 10  #: failures of a board in a row, without a success, before it is left alone for good
SUSPECT = 2  #: of them, after which it has to measure the control: before a mapping is blamed for the third time
LONGEST_PAUSE_S = 60.0  # between restarts, each twice the one before
GOODBYE_S = 5.0  # for a worker to end by itself
POLL_S = 0.2  # between looks at whether the user wants to stop

KEEPER = Path(__file__).resolve().parents[1] / "workers" / "keeper.py"

REPEAT, CONTROL, FIRST = "repeat", "control", "mapping"  #: purposes of a measurement


class DeviceError(RuntimeError):
    """No board is left that measures; what was measured is in the store."""


class FailureError(Exception):
    """An attempt that failed: its status in the store, what was said, and what becomes of the board."""

    def __init__(self, kind: str, text: str, restart: bool = False, fatal: bool = False) -> None:
        super().__init__(text)
        self.kind, self.restart, self.fatal = kind, restart, fatal


def checked_ready(line: str) -> tuple[str, tuple[str, ...]]:
    """Return the name and metrics of a worker that says it is ready; FailureError for anything else."""
    answer = _object(line)
    if answer.get("type") == "error":
        fatal = answer.get("kind") == "fatal"
        raise FailureError(status.INVALID, f"refused to start: {_short(answer.get('message'))}", True, fatal)
    name, metrics = answer.get("name"), answer.get("metrics")
    if answer.get("type") != "ready" or not isinstance(name, str) or not isinstance(metrics, list):
        raise FailureError(status.INVALID, f"expected ready with name and metrics, got {_short(line)}", restart=True)
    known = tuple(m for m in METRICS if m in metrics)
    if METRICS[0] not in known:
        text = f"expected a worker that measures {METRICS[0]} and perhaps {METRICS[1]}, got {_short(metrics)}"
        raise FailureError(status.INVALID, text, fatal=True)
    return name, known


def checked_result(line: str, attempt: int, metrics: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """Return the values of a measurement by metric; FailureError for an error and for anything that is no answer."""
    answer = _object(line)
    if answer.get("id") != attempt or isinstance(answer.get("id"), bool):
        raise FailureError(
            status.INVALID, f"expected an answer to id {attempt}, got id {_short(answer.get('id'))}", restart=True
        )
    if answer.get("type") == "error":
        kind, text = answer.get("kind"), _short(answer.get("message"))
        if kind == "transient":
            raise FailureError(status.TRANSIENT, text)
        if kind == "mapping":
            raise FailureError(status.REFUSED, text)
        if kind == "fatal":
            raise FailureError(status.TRANSIENT, text, restart=True, fatal=True)
        raise FailureError(status.INVALID, f"expected kind transient, mapping or fatal, got {_short(kind)}: {text}")
    if answer.get("type") != "result" or not isinstance(answer.get("metrics"), dict):
        raise FailureError(status.INVALID, f"expected a result with metrics, got {_short(line)}", restart=True)
    values = {}
    for name in metrics:
        given = answer["metrics"].get(name)
        if not isinstance(given, list) or len(given) != repeats:
            raise FailureError(status.INVALID, f"{name}: expected a list of {repeats} values, got {_short(given)}")
        for value in given:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0.0 < value < math.inf:
                raise FailureError(status.INVALID, f"{name}: expected finite values > 0, got {_short(given)}")
        values[name] = [float(value) for value in given]
    return values


def _object(line: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise FailureError(status.INVALID, f"expected a JSON object on a line of stdout, got {_short(line)}", True)
    return answer


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text.strip()[:200]


class Board:
    """One worker process, started when it is needed and again after it failed.

    `label` stands for the board in the store; `hello` is what a fresh process is told first.
    """

    def __init__(
        self, label: str, command: str, hello: Mapping[str, Any], log: Path, start_limit_s: float, restart_s: float
    ) -> None:
        self.label, self.hello, self.log = label, hello, log
        try:
            self.command = shlex.split(command)
        except ValueError as error:
            raise InputError(f"evaluator.command: expected a command line, got {command!r} ({error})") from error
        if not self.command:
            raise InputError("evaluator.command: expected a command line, got an empty one")
        self.start_limit_s, self.restart_s = start_limit_s, restart_s
        self.name, self.metrics = "", tuple[str, ...]()
        self.failures = 0  # in a row
        self.has_worked = False
        self.given_up = ""  # why, where it is
        self.paused_until = 0.0
        self.starting = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._rest = b""
        self._log_start = 0  # of this process's part of the log

    @property
    def full_name(self) -> str:
        """What tells it from others in the store, see `noise.name_of`."""
        return f"{self.label} ({self.name})"

    def ready(self) -> None:
        """Start the worker unless it runs; raises FailureError."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        self.starting = True
        try:
            self._start()
        finally:
            self.starting = False

    def _start(self) -> None:
        reading, self._lifeline = os.pipe()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(self.log, "ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    [sys.executable, str(KEEPER), str(reading), *self.command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=(reading,),
                    start_new_session=True,
                    bufsize=0,
                )
        finally:
            os.close(reading)
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)  # type: ignore[union-attr]
        self._rest = b""
        until = time.monotonic() + self.start_limit_s
        self._send(self.hello, until)
        self.name, self.metrics = checked_ready(self._line(until))

    def measure(self, attempt: int, entry: Mapping[str, Any], repeats: int, limit_s: float) -> dict[str, list[float]]:
        """Have a mapping measured and return the values by metric; raises FailureError."""
        until = time.monotonic() + limit_s
        self._send({"type": "measure", "id": attempt, "mapping": entry, "repeats": repeats}, until)
        return checked_result(self._line(until), attempt, self.metrics, repeats)

    def failed(self, failure: FailureError) -> None:
        """Draw the consequences of a failure: a restart after a pause, or none any more."""
        self.failures += 1
        if failure.fatal or self.failures >= GIVE_UP:
            self.given_up = str(failure)
        if failure.restart or self.given_up:
            self.stop()
        if failure.kind != status.REFUSED:
            pause_s = min(self.restart_s * 2.0 ** (self.failures - 1), LONGEST_PAUSE_S)
            self.paused_until = time.monotonic() + pause_s

    def stop(self, politely: bool = False) -> None:
        """End the worker and all processes of its group; politely, it is first told and given a moment."""
        process, self._process = self._process, None
        if process is None:
            return
        if politely and process.poll() is None:
            self._process = process
            with contextlib.suppress(FailureError, OSError, subprocess.TimeoutExpired):
                self._send({"type": "bye"}, time.monotonic() + 1.0)
                process.stdin.close()  # type: ignore[union-attr]
                process.wait(GOODBYE_S)
            self._process = None
        self._kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()  # type: ignore[union-attr]
        os.close(self._lifeline)

    def kill(self) -> None:
        """Kill the worker from another thread than the one that is at it, which then sees it gone."""
        process = self._process  # the other thread may take it away meanwhile
        if process is not None:
            self._kill(process)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is gone
            os.killpg(process.pid, signal.SIGKILL)

    def _send(self, message: Mapping[str, Any], until: float) -> None:
        pipe: Any = self._process.stdin  # type: ignore[union-attr]
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            wait_s = until - time.monotonic()
            if wait_s <= 0 or not select.select([], [pipe], [], wait_s)[1]:
                raise FailureError(status.TIMEOUT, "the worker does not read what it is told", restart=True)
            try:
                data = data[os.write(pipe.fileno(), data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone() from error

    def _line(self, until: float) -> str:
        pipe: Any = self._process.stdout  # type: ignore[union-attr]
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            if sum(map(len, parts)) > LONGEST_LINE:
                raise FailureError(status.INVALID, f"a line of more than {LONGEST_LINE} bytes on stdout", restart=True)
            wait_s = until - time.monotonic()
            if wait_s <= 0 or not select.select([pipe], [], [], wait_s)[0]:
                raise FailureError(status.TIMEOUT, "no answer within the time limit", restart=True)
            part = os.read(pipe.fileno(), 2**20)
            if not part:
                raise self._gone()
            parts.append(part)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line.decode("utf-8", errors="replace")

    def _gone(self) -> FailureError:
        process = self._process
        try:
            code = process.wait(GOODBYE_S)  # type: ignore[union-attr]
            how = f"ended with code {code}"
        except subprocess.TimeoutExpired:
            how = "closed its end of the pipe"
        with open(self.log, "rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - LOG_END))
            last = last_line(log.read().decode("utf-8", errors="replace"))
        last = f" ({_short(last)})" if last else ""
        return FailureError(status.CRASHED, f"the worker {how}{last}; its stderr is in {self.log.name}", restart=True)


@dataclass
class Job:
    """A mapping to be measured, and how often that has failed."""

    mapping: CoreMapping
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
    boards: Sequence[Board],
    jobs: Sequence[Job],
    store: Store,
    entry_of: Callable[[CoreMapping], Mapping[str, Any]],
    control_due: Callable[[Board], CoreMapping | None],
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

    def attempt(board: Board, mapping: CoreMapping, purpose: str) -> FailureError | None:
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

    def serve(board: Board) -> None:
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
