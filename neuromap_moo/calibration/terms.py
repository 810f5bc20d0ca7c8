"""The constants that are fitted, and what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from neuromap_moo.system.costs import Constant
from neuromap_moo.system.system import System

#: Time constants and energy constants by the load they are multiplied with (see LOADS of partition/core_graph.py).
TIMES = {"dendops_max": "t_dendop_s", "synops_max": "t_synop_s", "synmem_reads_max": "t_synmem_s"}
EVENTS = {"dendops": "e_dendop_j", "synops": "e_synop_j", "synmem_reads": "e_synmem_j", "messages": "e_message_j"}
STATIC = ("p_chip_w", "p_core_w")

PREDICTED = ("latency_s", "energy_j")  #: metric columns that can be measured

#: A fitted constant is at most this many times larger or smaller than the preset's; what is 0 there stays 0.
BOUNDS_FACTOR = 1000.0

#: Statuses of constants. The last two are followed by the names of others.
FITTED, NO_DATA, ZERO, NOT_IDENTIFIABLE = "fitted", "no data", "zero in preset", "not identifiable"
SLACK, TOGETHER = "does not bind", "only together with"


class Fitted(NamedTuple):
    """One constant in its unit, before and after, with its confidence interval (nan where there is none)."""

    name: str
    preset: float
    value: float
    low: float
    high: float
    status: str


def in_unit(system: System, name: str, value: float) -> float:
    """Convert seconds, joules or watts per count to the unit of a constant, or back.

    Both ways are the same: a link has a bandwidth, message_bits / seconds; all others keep their value.

    Parameters
    ----------
    system
        Has the `message_bits`.
    name
        The name of the constant.
    value
        Its value, per count or in its unit.

    """
    return float(system.cost("message_bits") / value if name.startswith("bandwidth") else value)


def constant_of(system: System, name: str, value: float, source: str = "") -> Constant:
    """Return a constant of a system with another value.

    Parameters
    ----------
    system
        The system. It has no barrier for a number of chips between two that it names: the constant is then a new one,
        in s.
    name
        The name of the constant.
    value
        In the unit of the constant.
    source
        Where the value comes from.

    """
    unit = system.costs[name].unit if name in system.costs else "s"
    return Constant(value, unit, source, "derived")


def with_sources(system: System, constants: Sequence[Fitted], source: str) -> System:
    """Return a system with fitted constants, which say where they come from.

    Parameters
    ----------
    system
        The system with the preset's constants.
    constants
        The fitted ones. Those that have not changed stay as they are in the system.
    source
        What they were fitted to; their interval or status is added.

    """
    changed = {}
    for c in constants:
        if c.status in (NO_DATA, ZERO) or c.value == c.preset:
            continue
        is_fitted = c.status == FITTED
        said = f"95 % interval {c.low:.4g} to {c.high:.4g}" if is_fitted else c.status
        constant = constant_of(system, c.name, c.value, f"{source}; {said}")
        if is_fitted and c.low <= c.value <= c.high:
            constant = replace(constant, low=c.low, high=c.high)
        changed[c.name] = constant
    return replace(system.with_costs(changed), name=f"{system.name}_calibrated")
