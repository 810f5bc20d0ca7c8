"""Placements for Lava's compiler by their documented name; see `neuromap_moo.lava.placement`."""

from neuromap_moo.lava.placement import PlacementError, placed, read_placement

__all__ = ["PlacementError", "placed", "read_placement"]
