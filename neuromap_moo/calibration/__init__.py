"""Fit of a system's constants to measurements."""
