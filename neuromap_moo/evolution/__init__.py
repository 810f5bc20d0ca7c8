"""Evolutionary search over mappings, on pymoo."""
