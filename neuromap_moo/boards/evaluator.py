"""Metrics measured on boards through the device protocol (docs/device.md), each attempt kept in a store.

A mapping that the store knows is not measured again. What a board does not measure comes from the analytic model.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.boards.noise import CONFIDENCE_Z, Drift, Estimate, Estimates, attempts_by_board, estimates, name_of
from neuromap_moo.boards.process import BoardProcess
from neuromap_moo.boards.protocol import METRICS, PROTOCOL
from neuromap_moo.boards.scheduler import CONTROL, FIRST, MOST_FAILURES, REPEAT, Job, Scheduler
from neuromap_moo.boards.store import DONE, FAILURES, REFUSED, Attempt, Store, key_of, keys_of
from neuromap_moo.errors import InputError, finite_number, whole_number
from neuromap_moo.mapping.files import entry_of
from neuromap_moo.mapping.mapping import Mapping, MappingBatch
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.metrics import Metrics
from neuromap_moo.network.files import save_network
from neuromap_moo.partition.fixed import AnyPartitioner, FixedPartitioner
from neuromap_moo.system.system import System, save_system

STORE, FOLDER = "measurements.sqlite", "device"  #: what a run folder holds of its measurements

#: Failures of a board in a row, after which it has to measure the control: one fewer than a mapping is blamed for.
SUSPECT = MOST_FAILURES - 1


def _never() -> bool:
    return False


def _nothing(text: str) -> None:
    pass


class DeviceEvaluator:
    """Metrics of mappings from measurements on one board or several.

    A mapping that the device refuses, or that has failed three times, has nan in the columns that are measured. Beside
    COLUMNS there are `latency_ci95_s` and `energy_ci95_j`, half of the 95 % intervals, and `attempts`, the number of
    attempts behind the values.

    Parameters
    ----------
    partitioner
        Of a network; a core graph, which no board can run, raises InputError.
    system
        The system that mappings are made for; workers are given it as a file.
    command
        Command line of a worker, a program that speaks the device protocol (docs/device.md). A list of command lines
        is that many boards.
    repeats
        How often an attempt measures its mapping, at least 1.
    time_limit_s
        Of one attempt; a worker that takes longer is killed.
    start_limit_s
        A worker that is not ready after this time is killed.
    restart_s
        Pause of a board after a failure; it doubles with every further failure in a row.
    control_every
        After so many attempts a board measures the first mapping of all again, which shows its drift; 0 for never.
    confirm
        A search ends with this many attempts at each mapping of its front, at least 1.
    store
        SQLite file of all attempts; None for `measurements.sqlite` in `folder`.
    folder
        Folder for the workers' logs and the files they are given; None for the current one.

    Raises
    ------
    InputError
        For a value out of range, a command that is no command line, or a core graph.

    """

    name = "device"

    def __init__(
        self,
        partitioner: AnyPartitioner,
        system: System,
        *,
        command: str | Sequence[str] | None = None,
        repeats: int = 3,
        time_limit_s: float = 120.0,
        start_limit_s: float = 120.0,
        restart_s: float = 1.0,
        control_every: int = 20,
        confirm: int = 3,
        store: str | None = None,
        folder: str | None = None,
    ) -> None:
        if isinstance(partitioner, FixedPartitioner):
            raise InputError("evaluator device: expected a network, got a core graph, which no board can run")
        commands = _command_lines(command)
        self.partitioner, self.system = partitioner, system
        self.repeats = whole_number("evaluator.repeats", repeats, 1)
        self.time_limit_s = finite_number("evaluator.time_limit_s", time_limit_s, 0.0, "s", above=True)
        self.control_every = whole_number("evaluator.control_every", control_every)
        self.confirm = whole_number("evaluator.confirm", confirm, 1)
        start_limit_s = finite_number("evaluator.start_limit_s", start_limit_s, 0.0, "s", above=True)
        restart_s = finite_number("evaluator.restart_s", restart_s, 0.0, "s")
        self.folder = Path(folder or ".")
        self.store_path = Path(store) if store is not None else self.folder / STORE
        given = self.folder / FOLDER
        hello = {
            "type": "hello",
            "protocol": PROTOCOL,
            "network": str((given / "network.npz").resolve()),
            "system": str((given / "system.yaml").resolve()),
        }
        self.boards = [
            BoardProcess(f"board_{i}", c, hello, given / f"board_{i}.log", start_limit_s, restart_s)
            for i, c in enumerate(commands)
        ]
        #: Asked while boards are at work; true stops them once they have answered.
        self.should_stop: Callable[[], bool] = _never
        self.say: Callable[[str], None] = _nothing  #: told of boards that do not start or are left alone
        self.store: Store | None = None
        self._analytic = AnalyticEvaluator(partitioner, system)
        self._control: Mapping | None = None
        self._estimated: tuple[tuple[int, Mapping | None], Estimates] | None = None
        self._handed_over = False
        weakref.finalize(self, _stop_all, self.boards)  # also where the interpreter ends

    def evaluate(self, mappings: MappingBatch) -> Metrics:
        """Return every metric column for n mappings, (n,) each, after measuring those that the store does not know."""
        self._measure_missing(mappings.unstack(), FIRST, 1)
        return self.estimated_metrics(mappings)

    def request_attempts(self, mappings: Sequence[Mapping], attempts: int) -> None:
        """Measure mappings until so many attempts at each are done, or it has failed."""
        self._measure_missing(mappings, REPEAT, attempts)

    def estimated_metrics(self, mappings: MappingBatch) -> Metrics:
        """Return every metric column for n mappings by what the store holds, nan where it holds nothing."""
        keys = keys_of(mappings)
        of = self.estimates().of
        measured = {name: _columns_of(of.get(name, {}), keys) for name in METRICS}
        latency_s, latency_ci95_s = measured["latency_s"]
        energy_j, energy_ci95_j = measured["energy_j"]
        attempts = [of["latency_s"][key].attempts if key in of["latency_s"] else 0 for key in keys]
        steps = self.partitioner.steps_per_inference
        step_s = latency_s / (steps + self.partitioner.depth - 1)
        return {
            **self._analytic.evaluate(mappings),
            "latency_s": latency_s,
            "energy_j": energy_j,
            "step_time_s": step_s,
            "throughput_hz": 1.0 / (steps * step_s),
            "latency_ci95_s": latency_ci95_s,
            "energy_ci95_j": energy_ci95_j,
            "attempts": np.array(attempts, dtype=np.int64),
        }

    def estimates(self) -> Estimates:
        """Take all attempts in the store together."""
        attempts = self.opened().attempts()
        control = self._control_of(attempts)
        n_done = sum(a.status == DONE for a in attempts)  # they stay as they are, so as many are the same
        if self._estimated is None or self._estimated[0] != (n_done, control):
            found = estimates(attempts, METRICS, None if control is None else key_of(control))
            self._estimated = (n_done, control), found
        return self._estimated[1]

    def measured(self) -> list[Mapping]:
        """Return all mappings that were measured, in the order of their first attempt."""
        keys = dict.fromkeys(a.mapping for a in self.opened().attempts() if a.status == DONE)
        return list(self.opened().mappings(list(keys)).values())

    def summary(self) -> dict[str, Any]:
        """Return what became of the attempts in the store, and how far values can be trusted.

        Keys: `store` (its path); `attempts`, `done` and `controls` (numbers of attempts); `scatter_within_attempts` and
        `scatter_between_attempts` (relative standard deviations, by metric); `boards`, by name, each with its number of
        attempts by status, `seconds_measuring`, `seconds_lost` (of attempts that gave nothing), `drift` (by metric: how
        far the control is off at the end, relatively) and `drift_corrected`; where boards were given up, `given_up`
        with the reasons.
        """
        attempts = self.opened().attempts()
        found = self.estimates()
        given_up = {board.label: board.given_up for board in self.boards if board.given_up}
        return {
            "store": str(self.store_path),
            "attempts": len(attempts),
            "done": sum(a.status == DONE for a in attempts),
            "controls": sum(a.status == DONE and a.purpose == CONTROL for a in attempts),
            "scatter_within_attempts": found.within,
            "scatter_between_attempts": found.between,
            "boards": {
                name: _board_summary(own, [d for d in found.drifts if d.board == name])
                for name, own in attempts_by_board(attempts).items()
            },
            **({"given_up": given_up} if given_up else {}),
        }

    def opened(self) -> Store:
        """Return the store, opened."""
        if self.store is None:
            self.store = Store(self.store_path, self.partitioner.network.digest, self.system.digest)
        return self.store

    def close(self) -> None:
        """Tell the workers to end, and close the store."""
        for board in self.boards:
            board.stop(politely=True)
        if self.store is not None:
            self.store.close()
            self.store = None

    def _measure_missing(self, mappings: Sequence[Mapping], purpose: str, at_least: int) -> None:
        """Measure mappings until `at_least` attempts at each are done, or it has failed."""
        store = self.opened()
        attempts = store.attempts()
        done, failures = _counts(attempts)
        jobs = []
        for mapping in dict.fromkeys(mappings):
            key = key_of(mapping)
            missing = at_least - done.get(key, 0)
            if missing > 0 and failures.get(key, 0) < MOST_FAILURES:
                jobs += [Job(mapping, purpose, failures.get(key, 0)) for _ in range(missing)]
        if not jobs:
            return
        self._hand_over()
        if self._control_of(attempts) is None:
            self._control = jobs[0].mapping
        Scheduler(
            boards=self.boards,
            waiting=jobs,
            store=store,
            entry_of=lambda mapping: entry_of(key_of(mapping)[:12], mapping, self.partitioner.network),
            control_due=self._control_due,
            repeats=self.repeats,
            time_limit_s=self.time_limit_s,
            should_stop=self.should_stop,
            say=self.say,
        ).run()

    def _hand_over(self) -> None:
        """Write the network and the system for the workers to read, once."""
        if self._handed_over:
            return
        network, system = (Path(str(self.boards[0].hello[key])) for key in ("network", "system"))
        save_network(self.partitioner.network, network)
        save_system(self.system, system)
        self._handed_over = True

    def _control_of(self, attempts: Sequence[Attempt]) -> Mapping | None:
        """Return the control mapping: the one that was first to be measured in this store."""
        if self._control is None:
            chosen = next((a.mapping for a in attempts if a.purpose == CONTROL), None)
            chosen = chosen or next((a.mapping for a in attempts if a.status == DONE), None)
            if chosen is not None:
                self._control = self.opened().mappings([chosen])[chosen]
        return self._control

    def _control_due(self, board: BoardProcess) -> Mapping | None:
        """Return the control mapping where a board has not measured it among its last attempts, or has failed often."""
        if self._control is None:
            return None
        key = key_of(self._control)
        attempts = self.opened().attempts()
        done, failures = _counts(attempts)
        if board.failures >= SUSPECT and done.get(key):
            return self._control  # are these mappings bad, or is the board?
        if not self.control_every or failures.get(key, 0) >= MOST_FAILURES:
            return None
        return self._control if _is_due(key, attempts, board.full_name, self.control_every) else None


def _is_due(control: str, attempts: Sequence[Attempt], board: str, every: int) -> bool:
    """Whether a board has done `every` attempts since it measured the control, or has not measured it."""
    own = [a.mapping for a in attempts if name_of(a) == board and a.status == DONE]
    if control in own:
        return own[::-1].index(control) >= every
    # On its first board the control is about to be measured anyway.
    return bool(own) or any(a.mapping == control for a in attempts)


def _command_lines(command: str | Sequence[str] | None) -> list[str]:
    commands = [command] if isinstance(command, str) else list(command or [])
    if not commands or not all(isinstance(c, str) for c in commands):
        raise InputError(
            f"evaluator.command: expected the command line of a worker or a list of them, got {command!r}; "
            "e.g. 'python -m neuromap_moo.workers.virtual_board'"
        )
    return commands


def _columns_of(estimates_of: dict[str, Estimate], keys: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Return values (n,) of mappings in one metric, and half of their 95 % intervals; nan where there are none."""
    found = [estimates_of.get(key) for key in keys]
    value = np.array([np.nan if e is None else e.value for e in found])
    error = np.array([np.nan if e is None else e.relative_error for e in found])
    return value, CONFIDENCE_Z * error * value


def _board_summary(attempts: Sequence[Attempt], drifts: Sequence[Drift]) -> dict[str, object]:
    """Return what became of the attempts on one board; see `DeviceEvaluator.summary`."""
    statuses = [a.status for a in attempts]
    seconds = {True: 0.0, False: 0.0}
    for a in attempts:
        if a.ended_s == a.ended_s:  # not nan
            seconds[a.status == DONE] += a.ended_s - a.started_s
    return {
        **{status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "seconds_measuring": seconds[True],
        "seconds_lost": seconds[False],
        "drift": {d.metric: d.last - 1.0 for d in drifts},
        "drift_corrected": any(d.corrected for d in drifts),
    }


def _counts(attempts: Sequence[Attempt]) -> tuple[dict[str, int], dict[str, int]]:
    """Count by mapping the attempts that are done, and those that failed since; a refusal counts as all failures.

    Failures on a board that never measured anything are its own, as are those at the control.
    """
    done: dict[str, int] = {}
    failures: dict[str, int] = {}
    have_worked = {name_of(a) for a in attempts if a.status == DONE}
    for a in attempts:
        if a.status == DONE:
            done[a.mapping] = done.get(a.mapping, 0) + 1
            failures[a.mapping] = 0
        elif a.purpose == CONTROL or name_of(a) not in have_worked:
            continue
        elif a.status == REFUSED:
            failures[a.mapping] = failures.get(a.mapping, 0) + MOST_FAILURES
        elif a.status in FAILURES:
            failures[a.mapping] = failures.get(a.mapping, 0) + 1
    return done, failures


def _stop_all(boards: Sequence[BoardProcess]) -> None:
    for board in boards:
        board.stop(politely=True)
