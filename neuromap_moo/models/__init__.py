"""Evaluators that need no board: the analytic model, the packet-level simulator, SANA-FE."""
