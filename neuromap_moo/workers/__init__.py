"""Names of programs that documents and scripts call by `python -m neuromap_moo.workers.NAME`."""
