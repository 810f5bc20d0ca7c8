"""Programs at the other end of an evaluator: each runs in a process, and perhaps an environment, of its own."""
