"""Every attempt to measure a mapping, in one SQLite file that several processes may write and that survives any end.

A row is written when an attempt begins and completed when it ends; one that its process did not live to complete stays
`running`, and is `lost` once its run is opened again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.mapping.mapping import Mapping, MappingBatch

#: Statuses of attempts. `done` alone has metrics; `running` belongs to a process that is at it.
DONE, RUNNING, LOST, WITHDRAWN = "done", "running", "lost", "withdrawn"
CRASHED, TIMEOUT, TRANSIENT, REFUSED, INVALID = "crashed", "timeout", "transient", "refused", "invalid"
FAILURES = (CRASHED, TIMEOUT, TRANSIENT, INVALID)  #: that may be the mapping's fault, or the board's

#: Scripts that bring a file from one schema version to the next; the file's own is SQLite's user_version.
MIGRATIONS = (
    """
    CREATE TABLE mappings (
        key TEXT PRIMARY KEY,           -- digest of the mapping
        cores_per_layer TEXT NOT NULL,  -- JSON
        core_of_slice TEXT NOT NULL     -- JSON
    );
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- also the id in the device protocol
        network TEXT NOT NULL,          -- digest
        system TEXT NOT NULL,           -- digest
        mapping TEXT NOT NULL REFERENCES mappings (key),
        board TEXT NOT NULL,            -- which of the boards
        device TEXT NOT NULL,           -- what it calls itself
        purpose TEXT NOT NULL,          -- mapping | repeat | control
        repeats INTEGER NOT NULL,       -- asked for
        status TEXT NOT NULL,
        metrics TEXT,                   -- JSON, metric: [value of each repeat]
        error TEXT,
        host TEXT NOT NULL,
        process TEXT NOT NULL,          -- its number and, where known, when it began
        started_s REAL NOT NULL,        -- since 1970
        ended_s REAL
    );
    """,
    "CREATE INDEX attempts_of ON attempts (network, system, mapping);",
)

BUSY_S = 60.0  # that a process waits for another's write

#: Keys that are remembered. A search asks for those of all its mappings in every generation.
KEYS_KEPT = 2**14


class Attempt(NamedTuple):
    """One row: an attempt to measure a mapping on a board; `metrics` has the values of all repeats by metric."""

    id: int
    mapping: str
    board: str
    device: str
    purpose: str
    repeats: int
    status: str
    metrics: dict[str, list[float]]
    error: str
    started_s: float
    ended_s: float


def key_of(mapping: Mapping) -> str:
    """Return the digest that stands for a mapping in the store."""
    return _digest(mapping.cores_per_layer, mapping.core_of_slice)


def keys_of(mappings: MappingBatch) -> list[str]:
    """Return `key_of` of n mappings, faster than one by one where they were asked for before."""
    cores_per_layer = np.ascontiguousarray(mappings.cores_per_layer, dtype=np.int64)
    core_of_slice = np.ascontiguousarray(mappings.core_of_slice, dtype=np.int32)
    n_slices = cores_per_layer.sum(axis=1).tolist()
    return [
        _remembered_key(k.tobytes(), cores[:n].tobytes())
        for k, cores, n in zip(cores_per_layer, core_of_slice, n_slices, strict=True)
    ]


@lru_cache(maxsize=KEYS_KEPT)
def _remembered_key(cores_per_layer: bytes, core_of_slice: bytes) -> str:
    return _digest(np.frombuffer(cores_per_layer, np.int64).tolist(), np.frombuffer(core_of_slice, np.int32).tolist())


def _digest(cores_per_layer: Sequence[int], core_of_slice: Sequence[int]) -> str:
    """Hash the JSON of a mapping; stores on disk hold these digests."""
    return hashlib.sha256(json.dumps([cores_per_layer, core_of_slice]).encode()).hexdigest()[:32]


def attempts_table(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    """Return all attempts in a store by column, whatever their network and system.

    Columns are those of the table `attempts` but for `host` and `process`, and the medians of the values measured,
    `latency_s` and `energy_j`; times and medians are nan where there are none. Raises InputError for a missing file, or
    one that is no store.
    """
    if not Path(path).is_file():
        raise InputError(f"measurement store '{path}': no such file; expected the measurements.sqlite of a run")
    with closing(connect(Path(path))) as connection:
        cursor = connection.execute(
            "SELECT id, network, system, mapping, board, device, purpose, repeats, status, "
            "ifnull(metrics, '') AS metrics, ifnull(error, '') AS error, started_s, ended_s FROM attempts ORDER BY id"
        )
        rows = cursor.fetchall()
    table: dict[str, list[Any]] = {column[0]: [row[i] for row in rows] for i, column in enumerate(cursor.description)}
    table["ended_s"] = [math.nan if end is None else end for end in table["ended_s"]]
    values = [json.loads(text or "{}") for text in table["metrics"]]
    return {**table, **{name: [_median(v.get(name)) for v in values] for name in ("latency_s", "energy_j")}}


def _median(values: list[float] | None) -> float:
    return statistics.median(values) if values else math.nan


class Store:
    """The attempts of one network on one system in an SQLite file, which may hold others as well.

    Parameters
    ----------
    path
        The file; made where there is none.
    network, system
        Digests.

    Raises
    ------
    InputError
        For a file that is no store, or one of a newer version.

    """

    def __init__(self, path: str | os.PathLike[str], network: str, system: str) -> None:
        self.path, self.network, self.system = Path(path), network, system
        self._lock = threading.RLock()
        self._ended: list[Attempt] = []  # those before the first that still runs: they change no more
        self._owner = socket.gethostname(), _process(os.getpid())
        self._connection = connect(self.path)
        self._give_up_lost()

    def close(self) -> None:
        """Close the file; what was begun stays in it."""
        with self._lock:
            self._connection.close()

    def begin(self, mapping: Mapping, board: str, device: str, purpose: str, repeats: int) -> int:
        """Write down that an attempt begins.

        Parameters
        ----------
        mapping
            What is measured.
        board, device
            Which of the boards, and what it calls itself.
        purpose
            One of those of boards/scheduler.py.
        repeats
            Values of each metric that are asked for.

        Returns
        -------
        attempt
            Its id, which `end` takes.

        """
        key = key_of(mapping)
        with self._writing() as cursor:
            cursor.execute(
                "INSERT OR IGNORE INTO mappings VALUES (?, ?, ?)",
                (key, json.dumps(mapping.cores_per_layer), json.dumps(mapping.core_of_slice)),
            )
            cursor.execute(
                "INSERT INTO attempts (network, system, mapping, board, device, purpose, repeats, status, host, "
                "process, started_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self.network, self.system, key, board, device, purpose, repeats, RUNNING, *self._owner, time.time()),
            )
            return int(cursor.lastrowid or 0)

    def end(self, attempt: int, status: str, metrics: dict[str, list[float]] | None = None, error: str = "") -> None:
        """Complete an attempt; one that has ended already stays as it is.

        Parameters
        ----------
        attempt
            Its id, from `begin`.
        status
            DONE, LOST, WITHDRAWN, REFUSED or one of FAILURES.
        metrics
            Values of all repeats by metric, where it is done.
        error
            What was said, where it is not.

        """
        with self._writing() as cursor:
            cursor.execute(
                "UPDATE attempts SET status = ?, metrics = ?, error = ?, ended_s = ? WHERE id = ? AND status = ?",
                (status, None if metrics is None else json.dumps(metrics), error, time.time(), attempt, RUNNING),
            )

    def attempts(self) -> list[Attempt]:
        """Return all attempts on this network and system in the order they began."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, mapping, board, device, purpose, repeats, status, metrics, error, started_s, ended_s "
                "FROM attempts WHERE network = ? AND system = ? AND id > ? ORDER BY id",
                (self.network, self.system, self._ended[-1].id if self._ended else 0),
            ).fetchall()
            found = [
                Attempt._make((*given, json.loads(metrics or "{}"), error or "", started_s, ended_s or math.nan))
                for *given, metrics, error, started_s, ended_s in rows
            ]
            running = next((i for i, a in enumerate(found) if a.status == RUNNING), len(found))
            self._ended += found[:running]
            return self._ended + found[running:]

    def mappings(self, keys: Sequence[str]) -> dict[str, Mapping]:
        """Return the mappings behind keys."""
        with self._lock:
            rows = [self._connection.execute("SELECT * FROM mappings WHERE key = ?", (key,)).fetchone() for key in keys]
        return {key: Mapping(json.loads(k), json.loads(cores)) for key, k, cores in rows}

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        with self._lock:
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")

    def _give_up_lost(self) -> None:
        """Mark attempts as lost whose process, on this machine, is no more."""
        host = self._owner[0]
        with self._writing() as cursor:
            rows = cursor.execute(
                "SELECT DISTINCT process FROM attempts WHERE status = ? AND host = ?", (RUNNING, host)
            ).fetchall()
            for (process,) in rows:
                if _process(int(process.split()[0])) != process:
                    cursor.execute(
                        "UPDATE attempts SET status = ? WHERE status = ? AND host = ? AND process = ?",
                        (LOST, RUNNING, host, process),
                    )


def connect(path: Path) -> sqlite3.Connection:
    """Open a store, make one where there is none, and bring an older one up to date.

    Raises InputError for a file that is no store, that cannot be written, or that a newer version wrote.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection, path)
    except (InputError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"measurement store '{path}': expected an SQLite file that can be written, got '{first_line(error)}'; "
            "give another evaluator.store"
        ) from error
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file to the newest schema version, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version == 0 and tables:
        raise InputError(f"measurement store '{path}': expected a store, it is another program's database")
    if version > len(MIGRATIONS):
        raise InputError(
            f"measurement store '{path}': expected schema version {len(MIGRATIONS)} or older, got {version}; "
            "it was written by a newer neuromap_moo, update this one"
        )
    for script in MIGRATIONS[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")


def _statements(script: str) -> list[str]:
    """Split a script at its semicolons; `executescript` would commit what is open before it."""
    bare = "\n".join(line.partition("--")[0] for line in script.splitlines())
    return [text for text in (part.strip() for part in bare.split(";")) if text]


def _process(number: int) -> str:
    """Return what tells a process from all others on this machine; "" where there is none of this number."""
    try:
        began = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        return f"{number} {began}"
    except OSError:  # no such process, or no Linux
        pass
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return ""
    except OSError:  # another user's
        pass
    return str(number)
