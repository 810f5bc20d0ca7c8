"""The one exception that means: the user's input is wrong and the message says how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong input: one line that says what was expected, what was found, where, and how to mend it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" when a known word is close to ``word``, else the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; choose one of: {', '.join(known)}"
