"""Constructive rules: baselines, and starting points of a search."""
