"""What is fitted, and how a fitted constant is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.system.costs import Constant
from neuromap_moo.system.system import System


def in_unit(system: System, name: str, value: float) -> float:
    """Return a time per count in the unit of the constant, and the other way round: links have a bandwidth."""
    return float(system.cost("message_bits") / value if name.startswith("bandwidth") else value)


def constant_of(system: System, name: str, value: float, source: str = "") -> Constant:
    """Return a cost with another value; a barrier between those that the system names is a new one."""
    unit = system.costs[name].unit if name in system.costs else "s"
    return Constant(value, unit, source, "derived")


def with_sources(system: System, constants: Sequence[Fitted], source: str) -> System:
    """Return the system with what was fitted, and what is said of it."""
    changed = {}
    for c in constants:
        if c.status in (NO_DATA, ZERO) or c.value == c.preset:
            continue
        said = f"95 % interval {c.low:.4g} to {c.high:.4g}" if c.status == FITTED else c.status
        made = constant_of(system, c.name, c.value, f"{source}; {said}")
        if c.status == FITTED and c.low <= c.value <= c.high:
            made = replace(made, low=c.low, high=c.high)
        changed[c.name] = made
    return replace(system.with_costs(changed), name=f"{system.name}_calibrated")


#: Energies are held to the preset as if it were known to this many times itself. A direction in which their standard
#: error is more than once the preset is one that the data say nothing about.
PRIOR = 3.0

#: A fitted constant is at most this many times larger or smaller than the preset's; what is 0 there stays 0.
BOUNDS_FACTOR = 1000.0

BOOTSTRAPS, CONFIDENCE, HELD_OUT_SHARE = 200, 0.95, 0.25

#: Time constants and energy constants by the load they go with (see partition.LOADS).
TIMES = {"dendops_max": "t_dendop_s", "synops_max": "t_synop_s", "synmem_reads_max": "t_synmem_s"}
EVENTS = {"dendops": "e_dendop_j", "synops": "e_synop_j", "synmem_reads": "e_synmem_j", "messages": "e_message_j"}
STATIC = ("p_chip_w", "p_core_w")

PREDICTED = ("latency_s", "energy_j")  #: metric columns that can be measured

#: What is said of a constant.
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


def interval_of(drawn: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the central interval at CONFIDENCE, (p,) each, of b bootstrap draws (p,)."""
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(np.array(drawn), (tail, 1.0 - tail), axis=0)
    return low, high
