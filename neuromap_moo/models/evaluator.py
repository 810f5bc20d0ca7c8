"""What every evaluator offers, and what one offers that measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from neuromap_moo.mapping.mapping import Mapping, MappingBatch
from neuromap_moo.models.metrics import Metrics


class Evaluator(Protocol):
    """Anything that turns mappings into metrics.

    `name` stands for the values: an evaluator with parameters of its own puts them into its name, since a run is only
    resumed by an evaluator of the same name.
    """

    name: str

    def evaluate(self, mappings: MappingBatch) -> Metrics:
        """Return every column of COLUMNS for n mappings, (n,) each; further numeric columns of its own may follow."""
        ...


@runtime_checkable
class MeasuringEvaluator(Evaluator, Protocol):
    """An evaluator whose values scatter and cost time: a mapping has nan where it could not be measured.

    Beside COLUMNS it has `latency_ci95_s` and `energy_ci95_j`, half of the 95 % intervals, and `attempts`.
    """

    confirm: int  #: attempts at each mapping of the front that a search ends with
    should_stop: Callable[[], bool]  #: asked while it measures; true leaves the rest unmeasured

    def estimated_metrics(self, mappings: MappingBatch) -> Metrics:
        """Return the columns as `evaluate` does, of what was measured already."""
        ...

    def request_attempts(self, mappings: Sequence[Mapping], attempts: int) -> None:
        """Measure mappings until there are so many attempts at each."""
        ...

    def summary(self) -> dict[str, object]:
        """Return what is worth knowing of the measurements."""
        ...

    def close(self) -> None:
        """Let go of what measures."""
        ...
