"""Evolutionary search over mappings, on pymoo."""

from neuromap_moo.search.algorithms import ALGORITHMS, check_algorithm
from neuromap_moo.search.driver import Budget, SearchResult, SearchState, non_dominated_rows, search_mappings
from neuromap_moo.search.problem import MappingProblem, baselines, operators

__all__ = [
    "ALGORITHMS",
    "Budget",
    "MappingProblem",
    "SearchResult",
    "SearchState",
    "baselines",
    "check_algorithm",
    "non_dominated_rows",
    "operators",
    "search_mappings",
]
