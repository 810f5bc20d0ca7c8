"""Constants as nested data, as they stand in a system's YAML."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.system.costs import Constant


def constants_of(where: str, data: Mapping[str, Any], prefix: str = "") -> dict[str, Constant]:
    """Return the constants of nested data by their full names, such as `e_link_j.chip`."""
    constants: dict[str, Constant] = {}
    for key, entry in data.items():
        full = f"{prefix}{key}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where}.{full}: expected value, unit, source and kind, got {entry!r}")
        if "value" not in entry and all(isinstance(v, Mapping) for v in entry.values()):
            constants |= constants_of(where, entry, f"{full}.")
            continue
        for part in ("value", "unit", "source", "kind"):
            if part not in entry:
                raise InputError(f"{where}.{full}: '{part}' is missing; expected value, unit, source and kind")
        for part in entry:
            if part not in Constant.__dataclass_fields__:
                raise InputError(
                    f"{where}.{full}: unknown key '{part}'{did_you_mean(part, Constant.__dataclass_fields__)}"
                )
        value, low, high = (_number(entry.get(part)) for part in ("value", "low", "high"))
        constants[full] = Constant(value, str(entry["unit"]), str(entry["source"]), str(entry["kind"]), low, high)
    return constants


def _number(given: Any) -> Any:
    """Return a number where YAML 1.1 reads text, as in 4e-9 without a point; what is none is refused later."""
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            return float(given)
    return given


def nested(constants: Mapping[str, Constant]) -> dict[str, Any]:
    """Return constants as nested data; the inverse of `constants_of`."""
    data: dict[str, Any] = {}
    for key, c in constants.items():
        head, _, tail = key.partition(".")
        entry = {"value": c.value, "unit": c.unit, "kind": c.kind, "source": c.source}
        if c.low is not None:
            entry |= {"low": c.low, "high": c.high}
        if tail:
            data.setdefault(head, {})[tail] = entry
        else:
            data[head] = entry
    return data
