"""Rewrite the table of rooms in docs/extending.md from the import contracts: python docs/house.py."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = Path(__file__).with_name("extending.md")
ROOT = PAGE.parents[1]
BEGIN, END = "<!-- rooms -->\n", "<!-- end of rooms -->\n"


def project() -> dict[str, Any]:
    """Return the content of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def floors() -> list[list[str]]:
    """Return the rooms of every floor, the top floor first, as the contract "data flows one way" lists them."""
    contracts = project()["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def purpose(room: str) -> str:
    """Return the first paragraph of the docstring of a room, or of a module beside the rooms."""
    folder = ROOT / "neuromap_moo" / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def table() -> str:
    """Return the rooms as a Markdown table, the ground floor last."""
    rows = ["| floor | room | what it holds |", "|---|---|---|"]
    levels = floors()
    for i, rooms in enumerate(levels):
        rows += [f"| {len(levels) - 1 - i} | `{room}` | {purpose(room)} |" for room in rooms]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
