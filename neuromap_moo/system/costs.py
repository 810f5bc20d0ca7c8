"""Cost and capacity constants: value, unit, source and kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuromap_moo.errors import InputError, did_you_mean, finite_number
from neuromap_moo.system.topology import KINDS, MESH_CLASSES

LINK_CLASSES = (*MESH_CLASSES, "inject", "eject")
BARRIER = "t_barrier_s"

#: Every cost by its full name and unit; t_barrier_s has one entry per number of chips beside these.
COST_UNITS = {
    "t_dendop_s": "s",
    "t_synop_s": "s",
    "t_synmem_s": "s",
    "message_bits": "bit",
    **{f"bandwidth_bit_per_s.{c}": "bit/s" for c in LINK_CLASSES},
    **{f"t_hop_s.{c}": "s" for c in LINK_CLASSES},
    "e_dendop_j": "J",
    "e_synop_j": "J",
    "e_synmem_j": "J",
    "e_message_j": "J",
    **{f"e_link_j.{c}": "J" for c in LINK_CLASSES},
    "p_chip_w": "W",
    "p_core_w": "W",
}
BRACKET = ("low", "high")
CAPACITY_UNITS = {"synapse_words": "word", "neurons": "neuron"}


@dataclass(frozen=True)
class Constant:
    """A number with its unit and its source.

    Parameters
    ----------
    value
        In `unit`.
    unit
        s, J, W, bit, bit/s, word or neuron.
    source
        Where it comes from, for people.
    kind
        How well it is known: published, derived or assumed.
    low, high
        Bracket where the source gives more than one number or an interval; both or none.

    """

    value: float
    unit: str
    source: str
    kind: str
    low: float | None = None
    high: float | None = None


def check_constants(
    where: str, given: Mapping[str, Constant], units: Mapping[str, str], positive: Sequence[str]
) -> None:
    """Raise InputError unless every key of `units` has a finite constant >= 0 (> 0 for `positive`) in its unit."""
    for key in given:
        if key not in units:
            raise InputError(f"{where}: unknown key '{key}'{did_you_mean(key, units)}")
    for key, unit in units.items():
        if key not in given:
            raise InputError(f"{where}.{key}: missing; expected a number in {unit} with unit, source and kind")
        c = given[key]
        finite_number(f"{where}.{key}", c.value, unit=unit, above=key in positive)
        if c.unit != unit:
            raise InputError(f"{where}.{key}: expected unit '{unit}', got '{c.unit}'; convert the value")
        if c.kind not in KINDS:
            raise InputError(f"{where}.{key}: expected kind {' | '.join(KINDS)}, got '{c.kind}'")
        if (c.low, c.high) != (None, None):
            for end, name in ((c.low, "low"), (c.high, "high")):
                finite_number(f"{where}.{key}.{name}", end, unit=unit, above=key in positive)
            if not c.low <= c.value <= c.high:  # type: ignore[operator]
                raise InputError(
                    f"{where}.{key}: expected low <= value <= high, got {c.low}, {c.value}, {c.high}; give all three"
                )
