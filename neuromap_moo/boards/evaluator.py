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
from neuromap_moo.boards.noise import CONFIDENCE_Z, Estimates, estimates, name_of
from neuromap_moo.boards.process import BoardProcess
from neuromap_moo.boards.protocol import METRICS, PROTOCOL
from neuromap_moo.boards.scheduler import CONTROL, FIRST, MOST_FAILURES, REPEAT, SUSPECT, Job, measure
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


def _never() -> bool:
    return False


def _nothing(text: str) -> None:
    pass


class DeviceEvaluator:
    """Metrics of mappings from measurements on one board or several.

    `command` starts a worker, a program that speaks the protocol; a list of them is that many boards. Each mapping is
    measured `repeats` times in one attempt, of at most `time_limit_s`; a worker may take `start_limit_s` to be ready,
    and is started again `restart_s` after a failure, then twice as long, and so on. Every `control_every` attempts a
    board measures the first mapping of all again, to see it drift; 0 is never. A search ends with `confirm` attempts at
    each mapping of its front. Attempts go into the SQLite file
    `store`, by default in `folder`, which also takes the workers' logs and what they are given.

    A mapping that the device refuses or that has failed three times has nan in the columns measured. Beside COLUMNS
    there are `latency_ci95_s` and `energy_ci95_j`, half of the 95 % intervals, and `attempts`, those behind the values.
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
        commands = [command] if isinstance(command, str) else list(command or [])
        if not commands or not all(isinstance(c, str) for c in commands):
            raise InputError(
                f"evaluator.command: expected the command line of a worker or a list of them, got {command!r}; "
                "e.g. 'python -m neuromap_moo.workers.virtual_board'"
            )
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
        self._measure(mappings.unstack(), FIRST, 1)
        return self.estimated_metrics(mappings)

    def request_attempts(self, mappings: Sequence[Mapping], attempts: int) -> None:
        """Measure mappings until so many attempts at each are done, or it has failed."""
        self._measure(mappings, REPEAT, attempts)

    def estimated_metrics(self, mappings: MappingBatch) -> Metrics:
        """Return every metric column for n mappings by what the store holds, nan where it holds nothing."""
        keys = keys_of(mappings)
        found = self.estimates()
        metrics = self._analytic.evaluate(mappings)
        steps = self.partitioner.steps_per_inference
        measured: dict[str, tuple[FloatArray, FloatArray]] = {}
        for name in METRICS:
            of = found.of.get(name, {})
            value, error = (
                np.array([getattr(of[key], what) if key in of else np.nan for key in keys])
                for what in ("value", "relative_error")
            )
            measured[name] = value, CONFIDENCE_Z * error * value
        latency_s = measured["latency_s"][0]
        attempts = [found.of["latency_s"][key].attempts if key in found.of["latency_s"] else 0 for key in keys]
        step_s = latency_s / (steps + self.partitioner.depth - 1)
        return {
            **metrics,
            "latency_s": latency_s,
            "energy_j": measured["energy_j"][0],
            "step_time_s": step_s,
            "throughput_hz": 1.0 / (steps * step_s),
            "latency_ci95_s": measured["latency_s"][1],
            "energy_ci95_j": measured["energy_j"][1],
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
        """Return what became of the attempts in the store, board by board, and how far values can be trusted."""
        attempts = self.opened().attempts()
        found = self.estimates()
        boards: dict[str, dict[str, object]] = {}
        for label in dict.fromkeys(name_of(a) for a in attempts):
            own = [a for a in attempts if name_of(a) == label]
            ended = [a for a in own if a.ended_s == a.ended_s]
            counts = {s: sum(a.status == s for a in own) for s in dict.fromkeys(a.status for a in own)}
            spent = {True: 0.0, False: 0.0}
            for a in ended:
                spent[a.status == DONE] += a.ended_s - a.started_s
            boards[label] = {
                **counts,
                "seconds_measuring": spent[True],
                "seconds_lost": spent[False],
                "drift": {d.metric: d.last - 1.0 for d in found.drifts if d.board == label},
                "drift_corrected": any(d.corrected for d in found.drifts if d.board == label),
            }
        given_up = {board.label: board.given_up for board in self.boards if board.given_up}
        return {
            "store": str(self.store_path),
            "attempts": len(attempts),
            "done": sum(a.status == DONE for a in attempts),
            "controls": sum(a.status == DONE and a.purpose == CONTROL for a in attempts),
            "scatter_within_attempts": found.within,
            "scatter_between_attempts": found.between,
            "boards": boards,
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

    def _measure(self, mappings: Sequence[Mapping], purpose: str, at_least: int) -> None:
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
        measure(
            self.boards,
            jobs,
            store,
            lambda mapping: entry_of(key_of(mapping)[:12], mapping, self.partitioner.network),
            self._control_due,
            self.repeats,
            self.time_limit_s,
            self.should_stop,
            self.say,
        )

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
        own = [a for a in attempts if name_of(a) == board.full_name and a.status == DONE]
        since = next((i for i, a in enumerate(reversed(own)) if a.mapping == key), None)
        if since is None:  # on its first board the control is about to be measured anyway
            return self._control if own or any(a.mapping == key for a in attempts) else None
        return self._control if since >= self.control_every else None


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
