"""The worker's side of the device protocol by its documented name; see `neuromap_moo.boards.serving`."""

from neuromap_moo.boards.serving import FatalError, MappingError, Measure, TransientError, serve

__all__ = ["FatalError", "MappingError", "Measure", "TransientError", "serve"]
