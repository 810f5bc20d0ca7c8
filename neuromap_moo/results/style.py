"""The style that all figures share, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from neuromap_moo.files import whole_file

#: Fonts are embedded as text, sizes fit one column of a paper.
STYLE = {"font.size": 8, "axes.labelsize": 8, "legend.fontsize": 6.5, "pdf.fonttype": 42, "svg.fonttype": "none"}
DPI = 300
COLUMN_INCHES = 3.5
INK, GREY, ACCENT = "#1a1a1a", "#8a8a8a", "#c1272d"


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PDF and PNG, each whole or not at all."""
    with figure_style():
        figure.draw_without_rendering()
    figure.set_layout_engine(None)  # or each file is laid out again, twice
    for ending, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        with whole_file(folder / f"{name}.{ending}") as temporary, figure_style():
            figure.savefig(temporary, dpi=DPI, metadata=metadata)


def figure_style() -> Any:
    """Return a context in which figures are made and written in the shared style."""
    return matplotlib.rc_context(STYLE)
