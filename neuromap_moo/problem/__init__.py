"""Mapping as a pymoo Problem, and the choice of its evaluator."""
