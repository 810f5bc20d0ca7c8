"""When a search ends."""

from __future__ import annotations

from dataclasses import dataclass

from neuromap_moo.errors import InputError, finite_number, whole_number


@dataclass(frozen=True)
class Budget:
    """When a search ends: at this many evaluations, after this many seconds, or whichever comes first."""

    evaluations: int | None = 20_000
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.evaluations is not None:
            whole_number("budget.evaluations", self.evaluations, 1)
        if self.seconds is not None:
            finite_number("budget.seconds", self.seconds, unit="s", above=True)
        if self.evaluations is None and self.seconds is None:
            raise InputError("budget: expected evaluations or seconds, got null for both; set one of them")

    def reached(self, evaluations: int, seconds: float) -> str:
        """Return what is used up, `evaluations` or `seconds`; "" while there is some left of both."""
        if evaluations == self.evaluations:
            return "evaluations"
        return "seconds" if self.seconds is not None and seconds >= self.seconds else ""
