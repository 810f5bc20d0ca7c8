"""The public names of the package, as Sphinx is to describe them on the page docs/api.md."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import house

import neuromap_moo as nm

MARKER = "<!-- public names -->"
STUB = Path(nm.__file__).with_suffix(".pyi")


def public_names() -> dict[str, list[str]]:
    """Return the public names by room, in the order of `neuromap_moo/__init__.pyi`."""
    rooms: dict[str, list[str]] = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            rooms.setdefault(node.module.partition(".")[0], []).extend(alias.name for alias in node.names)
    return rooms


def directives() -> str:
    """Return a heading for each room, and below it what describes each of its public names."""
    lines: list[str] = []
    for room, names in public_names().items():
        lines += [f"## {room}", "", house.purpose(room), ""]
        for name in names:
            kind = "class" if inspect.isclass(getattr(nm, name)) else "function"
            members = ["   :members:"] if kind == "class" else []
            lines += ["```{eval-rst}", f".. auto{kind}:: neuromap_moo.{name}", *members, "```", ""]
    return "\n".join(lines)
