"""How Sphinx builds these pages: python -m sphinx -W -b html docs docs/_build/html."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import public_names  # noqa: E402 - beside this file

import neuromap_moo.arrays  # noqa: E402

project = "neuromap_moo"
author = "The neuromap_moo authors"
copyright = author
release = version = neuromap_moo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Mappings of neural networks onto neuromorphic chips", "page_width": "72em"}

myst_heading_anchors = 3  # [text](page.md#a-heading), as on the web pages of repositories

default_role = "literal"  # docstrings quote code in single backticks
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("Metrics", *vars(neuromap_moo.arrays)) if name[0].isupper()}
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # the members themselves may tell of some as well


#: Pages here that are made of one at the root of the repository.
FROM_ROOT = {"index": "README.md", "changes": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}


def _links(text: str, folder: str) -> str:
    """Turn links of a page in `folder` ("" for the root) into links of the built pages; other files are downloads."""
    for here, page in FROM_ROOT.items():
        text = re.sub(rf"\]\((\.\./)?{re.escape(page)}", f"]({here}.md", text)
    if not folder:
        text = text.replace("](docs/", "](")
    return re.sub(r"\]\((?:\.\./)?(experiments/[^)]*\.md)\)", r"](path:../\1)", text)


def _read(app: Any, page: str, source: list[str]) -> None:
    """Put in what is made when the pages are built, and mend links."""
    if page in FROM_ROOT:
        text = _links((HERE.parent / FROM_ROOT[page]).read_text(encoding="utf-8"), "")
        source[0] = text + source[0] if page == "index" else text
    elif page == "api":
        source[0] = source[0].replace(public_names.MARKER, public_names.directives())
    else:
        source[0] = _links(source[0], "docs")


def _aliases(
    app: Any, what: str, name: str, thing: Any, options: Any, parameters: str | None, returns: str | None
) -> Any:
    """Write aliases of types plainly: Sphinx shows those in a union as a call."""
    parts = (re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", part) if part else part for part in (parameters, returns))
    return tuple(parts)


def setup(app: Any) -> None:
    """Register what Sphinx calls."""
    app.connect("autodoc-process-signature", _aliases)
    app.connect("source-read", _read)
