"""The one exception that means: the user's input is wrong, and the checks that raise it most."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any


class DeviceError(RuntimeError):
    """No board is left that measures; what was measured is in the store."""


MOST_LISTED = 30  # known words that an error still lists


class InputError(ValueError):
    """Wrong input: one line that says what was expected, what was found, where, and how to mend it."""


@contextmanager
def requires_extra(where: str, name: str) -> Iterator[None]:
    """Say which optional extra to install when a package that is imported within is not there.

    Parameters
    ----------
    where : str
        What needs the package; the message begins with it.
    name : str
        The extra of pyproject.toml that installs the package.

    Raises
    ------
    InputError
        For a missing package; a missing module of this package is a defect and passes through.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == __package__:
            raise
        raise InputError(
            f"{where}: needs the package '{package}', which is not installed; pip install 'neuromap-moo[{name}]'"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, at most 200 characters of it; its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def last_line(text: str) -> str:
    """Return the last line of what a program said, which is where it says why it failed; "" where it said nothing."""
    return (text.strip().splitlines() or [""])[-1]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" when a known word is close to ``word``, else the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose one of: {', '.join(known)}" if len(known) <= MOST_LISTED else ""


def whole_number(where: str, value: Any, least: int = 0) -> int:
    """Return `value` as an int; raise InputError that names `where` if it is no whole number or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{where}: expected a whole number >= {least}, got {value!r}")
    return int(value)


def finite_number(where: str, value: Any, least: float = 0.0, unit: str = "", above: bool = False) -> float:
    """Return `value` as a float; raise InputError if it is no finite number >= `least` (> `least` with `above`)."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < least or (above and value == least):
        sign = ">" if above else ">="
        raise InputError(f"{where}: expected a number {sign} {least:g}{f' in {unit}' if unit else ''}, got {value!r}")
    return float(value)


def refuse_unknown(given: Iterable[str], known: Iterable[str], prefix: str) -> None:
    """Raise InputError for a key that is not among the known ones; `prefix` is what the keys stand below."""
    known = list(known)
    for key in given:
        if key not in known:
            raise InputError(f"unknown key '{prefix}{key}'{did_you_mean(str(key), known)}")


def expect(key: str, value: object, kind: type | tuple[type, ...], words: str) -> None:
    """Raise InputError for a `value` that is not of the `kind` that `words` describe."""
    if not isinstance(value, kind):
        raise InputError(f"{key}: expected {words}, got {value!r}")
