"""Evaluation on boards: workers, their scheduler, a store of measurements, noise."""
