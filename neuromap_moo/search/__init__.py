"""Evolutionary search over mappings, on pymoo."""

from neuromap_moo.search.algorithms import ALGORITHMS
from neuromap_moo.search.driver import Budget, SearchResult, SearchState, search_mappings
from neuromap_moo.search.problem import MappingProblem, baselines, operators

__all__ = [
    "ALGORITHMS",
    "Budget",
    "MappingProblem",
    "SearchResult",
    "SearchState",
    "baselines",
    "operators",
    "search_mappings",
]
