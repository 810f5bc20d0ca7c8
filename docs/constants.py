"""Rewrite the table of constants in docs/model.md from the presets: python docs/constants.py."""

from __future__ import annotations

from pathlib import Path

import neuromap_moo as nm

PAGE = Path(__file__).with_name("model.md")
BEGIN, END = "<!-- constants -->\n", "<!-- end of constants -->\n"
PRESETS = ("loihi2", "loihi1")


def table() -> str:
    """Return every capacity and cost of the presets as a Markdown table."""
    rows = ["| preset | constant | value | bracket | unit | kind | source |", "|---|---|---|---|---|---|---|"]
    for preset in PRESETS:
        system = nm.load_system(preset)
        for key, c in {**system.capacities, **system.costs}.items():
            bracket = "" if c.low is None else f"{c.low:.6g} to {c.high:.6g}"
            rows.append(f"| {preset} | `{key}` | {c.value:.6g} | {bracket} | {c.unit} | {c.kind} | {c.source} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
