"""One board: a worker process, and the lines that go to it and come back."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuromap_moo.boards import store as status
from neuromap_moo.boards.protocol import LONGEST_LINE, FailureError, checked_ready, checked_result, shortened
from neuromap_moo.errors import InputError, last_line
from neuromap_moo.processes import KEEPER

GIVE_UP = 10  #: failures of a board in a row, without a success, before it is left alone for good
LONGEST_PAUSE_S = 60.0  # between restarts, each twice the one before

LOG_END = 2**14  # bytes of a log in which its last line is looked for
GOODBYE_S = 5.0  # for a worker to end by itself
POLL_S = 0.2  # between looks at whether the user wants to stop


class BoardProcess:
    """One worker process, started when it is needed and again after it failed.

    Parameters
    ----------
    label
        Stands for the board in the store.
    command
        Command line of the worker; raises InputError for one that cannot be split into arguments.
    hello
        The message that a fresh process gets first.
    log
        File to which the worker's stderr is appended.
    start_limit_s
        In this time a fresh process has to be ready.
    restart_s
        Pause after a failure; it doubles with every further one in a row, up to LONGEST_PAUSE_S.

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
        """Name that tells it from others in the store, see `noise.name_of`."""
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

    def request_values(
        self, attempt: int, entry: Mapping[str, Any], repeats: int, limit_s: float
    ) -> dict[str, list[float]]:
        """Have the worker measure a mapping; return the values of all repeats by metric.

        Parameters
        ----------
        attempt
            Id of the attempt, which the answer has to have as well.
        entry
            JSON object of the mapping.
        repeats
            How many values of each metric are asked for.
        limit_s
            Time in which the answer has to come.

        Raises
        ------
        FailureError
            Where there is no answer in time, or none that is right.

        """
        until = time.monotonic() + limit_s
        self._send({"type": "measure", "id": attempt, "mapping": entry, "repeats": repeats}, until)
        return checked_result(self._line(until), attempt, self.metrics, repeats)

    def failed(self, failure: FailureError) -> None:
        """Take note of a failure: the board pauses, restarts its worker where it has to, or is given up."""
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
        """Kill the worker from any thread; the thread that waits for its answer then gets a FailureError."""
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
        last = f" ({shortened(last)})" if last else ""
        return FailureError(status.CRASHED, f"the worker {how}{last}; its stderr is in {self.log.name}", restart=True)
