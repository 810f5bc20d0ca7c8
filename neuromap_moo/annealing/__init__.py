"""Annealing of mappings on incremental moves."""
