"""Measured latencies and energies of mappings."""

from __future__ import annotations

import csv
import math
import os
from collections import abc
from typing import Any, NamedTuple

import numpy as np

from neuromap_moo.errors import InputError, did_you_mean

MINIMUM = 8  #: mappings that a fit needs


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
    by_mapping: dict[str, list[Measurement]] = {}
    for number, line in enumerate(_lines(path), 2):
        row = _measurement(line, f"measurements '{path}', line {number}", known)
        by_mapping.setdefault(row.mapping_id, []).append(row)
    return [_mean(rows) for rows in by_mapping.values()]


def _lines(path: str | os.PathLike[str]) -> list[dict[str, str | None]]:
    """Read the rows of a CSV that has the columns every measurement needs."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            lines: list[dict[str, str | None]] = list(csv.DictReader(f))
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
    return lines


def _measurement(line: abc.Mapping[str, str | None], where: str, known: abc.Mapping[str, Any]) -> Measurement:
    name = str(line["mapping_id"])
    if name not in known:
        raise InputError(f"{where}: no mapping '{name}' among those of the run{did_you_mean(name, known)}")
    repeats = line.get("repeats") or "1"
    if not repeats.isdecimal() or int(repeats) < 1:
        raise InputError(f"{where}, repeats: expected a whole number of at least 1, got {repeats!r}")
    latency_s = _positive(line["latency_s"], f"{where}, latency_s")
    energy_j, text = math.nan, line.get("energy_j")
    if text and text.lower() != "nan":  # what a board does not measure is nan
        energy_j = _positive(text, f"{where}, energy_j")
    return Measurement(name, latency_s, energy_j, int(repeats))


def _mean(rows: abc.Sequence[Measurement]) -> Measurement:
    """Take rows of one mapping together, weighted by their repeats."""
    latency_s, energy_j, repeats = np.array([row[1:] for row in rows]).T
    has = np.isfinite(energy_j)
    mean_j = float(np.average(energy_j[has], weights=repeats[has])) if has.any() else math.nan
    mean_s = float(np.average(latency_s, weights=repeats))
    return Measurement(rows[0].mapping_id, mean_s, mean_j, int(repeats.sum()))


def _positive(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (value > 0.0 and math.isfinite(value)):
        raise InputError(f"{where}: expected a positive number, got {text!r}")
    return value
