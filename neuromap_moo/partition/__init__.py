"""Partitions: how many cores each layer gets, which neurons each slice holds, and what that costs."""
