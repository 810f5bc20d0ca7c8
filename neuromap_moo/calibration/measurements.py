"""Measured latencies and energies of mappings."""

from __future__ import annotations

import csv
import math
import os
from collections import abc
from typing import Any, NamedTuple

import numpy as np

from neuromap_moo.errors import InputError, did_you_mean

MINIMUM = 8  # mappings


class Measurement(NamedTuple):
    """Means over the repeats of one mapping; `energy_j` is nan where it was not measured."""

    mapping_id: str
    latency_s: float
    energy_j: float
    repeats: int


def load_measurements(path: str | os.PathLike[str], known: abc.Mapping[str, Any]) -> list[Measurement]:
    """Read measured mappings from a CSV: mapping_id, latency_s, and if measured energy_j and repeats.

    Rows of the same mapping are taken together, weighted by their repeats. Raises InputError, with the line, for
    columns that are missing, ids that are not in `known`, and values that are no positive finite numbers.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            lines = list(csv.DictReader(f))
    except OSError as error:
        raise InputError(f"measurements '{path}': cannot be read ({error.strerror}); expected a CSV") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"measurements '{path}': expected a CSV, got something else ({error})") from error
    columns = list(lines[0]) if lines else []
    for column in ("mapping_id", "latency_s"):
        if column not in columns:
            raise InputError(
                f"measurements '{path}': expected the columns mapping_id, latency_s and perhaps energy_j, repeats; "
                f"'{column}' is missing in {columns}"
            )
    gathered: dict[str, list[tuple[int, float, float]]] = {}
    for number, line in enumerate(lines, 2):
        where = f"measurements '{path}', line {number}"
        name = str(line["mapping_id"])
        if name not in known:
            raise InputError(f"{where}: no mapping '{name}' among those of the run{did_you_mean(name, known)}")
        repeats = line.get("repeats") or "1"
        if not repeats.isdecimal() or int(repeats) < 1:
            raise InputError(f"{where}, repeats: expected a whole number of at least 1, got {repeats!r}")
        latency_s = _positive(line["latency_s"], f"{where}, latency_s")
        has_energy = (line.get("energy_j") or "nan").lower() != "nan"  # what a board does not measure is nan
        energy_j = _positive(line["energy_j"], f"{where}, energy_j") if has_energy else math.nan
        gathered.setdefault(name, []).append((int(repeats), latency_s, energy_j))
    measured = []
    for name, rows in gathered.items():
        weight, latency, energy = np.array(rows).T
        has = np.isfinite(energy)
        energy_j = float(np.average(energy[has], weights=weight[has])) if has.any() else math.nan
        measured.append(Measurement(name, float(np.average(latency, weights=weight)), energy_j, int(weight.sum())))
    return measured


def _positive(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (value > 0.0 and math.isfinite(value)):
        raise InputError(f"{where}: expected a positive number, got {text!r}")
    return value
