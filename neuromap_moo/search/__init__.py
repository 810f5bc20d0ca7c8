"""Evolutionary search over mappings, on pymoo."""

from neuromap_moo.search.algorithms import ALGORITHMS, check_algorithm
from neuromap_moo.search.driver import (
    Budget,
    SearchResult,
    checkpoint_fingerprint,
    fingerprint_of,
    search_mappings,
)
from neuromap_moo.search.generation import SearchState, non_dominated_rows
from neuromap_moo.search.guided import GuidedSearch
from neuromap_moo.search.operators import DRAWN
from neuromap_moo.search.problem import MappingProblem, baselines, operators
from neuromap_moo.search.robust import robustness
from neuromap_moo.search.varied import varied_mappings

__all__ = [
    "ALGORITHMS",
    "DRAWN",
    "Budget",
    "GuidedSearch",
    "MappingProblem",
    "SearchResult",
    "SearchState",
    "baselines",
    "check_algorithm",
    "checkpoint_fingerprint",
    "fingerprint_of",
    "non_dominated_rows",
    "operators",
    "robustness",
    "search_mappings",
    "varied_mappings",
]
