"""What goes to the screen: progress to stderr, tables to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba.core.event import Event, Listener, install_listener
from tabulate import tabulate
from tqdm import tqdm

from neuromap_moo.app.messages import say
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.evolution.generation import SearchState
from neuromap_moo.evolution.guided import GuidedSearch
from neuromap_moo.problem.problem import MappingProblem
from neuromap_moo.results.front import Front
from neuromap_moo.results.run import Run
from neuromap_moo.results.text import cell, columns_shown, headline

ROWS_ON_SCREEN = 12
LINE_SECONDS = 5.0  # between progress lines where there is no terminal


@contextmanager
def progress(problem: MappingProblem, budget: Budget) -> Iterator[Any]:
    """Yield a function to be called each generation: a live bar on a terminal, a line now and then elsewhere."""
    first = problem.objectives[0]
    by_time = budget.evaluations is None
    total = float(budget.seconds or 0) if by_time else float(budget.evaluations or 0)
    live = sys.stderr.isatty()
    layout = "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}]{postfix}"
    last_line = time.perf_counter()
    with tqdm(total=total, unit="s" if by_time else "evaluations", bar_format=layout, disable=not live) as bar:

        def on_generation(state: SearchState) -> None:
            nonlocal last_line
            done = min(state.seconds, total) if by_time else state.evaluations
            hypervolume, best = state.history[-1][2:4]
            text = f"front {len(state.archive_F)}, hypervolume {hypervolume:.4f}, {first} {cell(first, best)}"
            if isinstance(state.algorithm, GuidedSearch):
                text += f", model's rank correlation {state.algorithm.rank_correlation():.2f}"
            if live:
                bar.set_postfix_str(text, refresh=False)
                bar.update(done - bar.n)
            elif time.perf_counter() - last_line > LINE_SECONDS or state.ended:
                last_line = time.perf_counter()
                say(f"{state.evaluations} evaluations, {state.seconds:.1f} s: {text}")

        yield on_generation


@contextmanager
def telling_of_compilation() -> Iterator[None]:
    """Say once that code is compiled, when that begins; it is kept, so only the first runs on a machine say so."""
    with install_listener("numba:compile", _CompilationListener()):
        yield


class _CompilationListener(Listener):
    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Event) -> None:
        if not self.told:
            say("compiling, once on a machine (about 15 s)")
        self.told = True

    def on_end(self, event: Event) -> None:
        pass


def show_run(run: Run, folder: Path) -> None:
    """Print what a run found: a few lines, its front and its baselines."""
    print("\n".join(headline(run)))
    print_tables(run.front, run.baselines)
    print(f"\nAll files: {folder}")


def print_tables(front: Front, baselines: Front) -> None:
    """Print some mappings of a front, evenly spread, and all baselines."""
    columns = columns_shown(front.objective_names)
    marked = {front.knee: "knee"}
    rows = sorted({round(i * (len(front) - 1) / (ROWS_ON_SCREEN - 1)) for i in range(ROWS_ON_SCREEN)} | set(marked))
    for table, name, chosen in ((front, "mapping_id", rows), (baselines, "name", range(len(baselines)))):
        body = [
            [f"{table.ids[i]} {marked.get(i, '') if table is front else ''}"]
            + [cell(c, table.table[c][i]) for c in columns]
            for i in chosen
        ]
        print(
            "\n" + tabulate(body, headers=[name, *columns], stralign="right", colalign=("left",), disable_numparse=True)
        )
    if len(rows) < len(front):
        print(f"\n{len(rows)} of {len(front)} mappings of the front shown; all are in front.csv.")


def print_attempts(table: Mapping[str, Sequence[Any]]) -> None:
    """Print how often each board had each status, and what went wrong how often; `table` as `attempts_table` gives."""
    boards = sorted(dict.fromkeys(zip(table["board"], table["device"], strict=True)))
    statuses = list(dict.fromkeys(table["status"]))
    pairs = list(zip(table["board"], table["device"], table["status"], strict=True))
    rows = [[*board, *(pairs.count((*board, status)) for status in statuses)] for board in boards]
    print(tabulate(rows, headers=["board", "device", *statuses]))
    errors = [text for text in table["error"] if text]
    for text in dict.fromkeys(errors):
        print(f"{errors.count(text)} times: {text}")
