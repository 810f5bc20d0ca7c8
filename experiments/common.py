"""What the experiments share: options, processes of one thread each, and how results are written down."""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from tabulate import tabulate

from neuromap_moo.files import whole_file

Task = TypeVar("Task")
Result = TypeVar("Result")


def parser_of(page: str | None, script: str) -> argparse.ArgumentParser:
    """Return a parser that every script begins with: `page` is its docstring, `script` its `__file__`."""
    parser = argparse.ArgumentParser(
        description=(page or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(script).resolve().parent, help="folder of tables and figures")
    return parser


def above_zero(text: str) -> int:
    """Read a whole number above 0 from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return int(text)


def one_thread_each() -> None:
    """Let processes that start from here on use one thread each, whichever of their libraries would start more."""
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")})


def in_processes(
    work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, fresh: bool = False
) -> Iterator[Result]:
    """Yield the result of each task in order, from `jobs` processes; with `fresh`, each task has a process of its own.

    Says on stderr how many tasks are done.
    """
    one_thread_each()
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1 if fresh else None) as pool:
        for n, result in enumerate(pool.imap(work, tasks, chunksize=1), 1):
            print(f"[{n}/{len(tasks)}] {work.__name__} {tasks[n - 1]}", file=sys.stderr, flush=True)
            yield result


def spread(
    values: Sequence[float],
    form: str,
    unit: str = "",
    quantiles: tuple[float, float] = (0.0, 1.0),
    narrow: float | None = None,
) -> str:
    """Write the median and two quantiles, by default the range: "-5.0 % (-6.0 to -4.0)".

    The brackets are left out where they would hold a range that is no wider than `narrow`.

    >>> spread([1.0, 2.0, 4.0], "{:.1f}", " s")
    '2.0 s (1.0 to 4.0)'
    >>> spread([2.0], "{:.1f}", narrow=0.0)
    '2.0'
    """
    low, middle, high = np.quantile(values, (quantiles[0], 0.5, quantiles[1]))
    text = form.format(middle) + unit
    if narrow is not None and high - low <= narrow:
        return text
    return f"{text} ({form.format(low)} to {form.format(high)})"


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """Return a Markdown table whose cells are written as they are."""
    # Without padding, a change of one cell changes one line of the file.
    return tabulate(rows, head, tablefmt="github", disable_numparse=True, stralign=None, numalign=None)


def table_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a Markdown table of rows that all have the same keys, which become its head."""
    return table([list(row.values()) for row in rows], list(rows[0]))


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows that all have the same keys."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_page(path: Path, lines: Sequence[str]) -> None:
    """Write lines of Markdown, and print them."""
    text = "\n".join(lines).rstrip("\n")
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)
