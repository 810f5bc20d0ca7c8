"""Benchmark instances and their best-known fronts."""
