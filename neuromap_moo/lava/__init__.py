"""Lava networks read, run and placed, each in a process of its own."""
