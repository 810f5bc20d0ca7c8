"""Readers of network files, by their ending."""
