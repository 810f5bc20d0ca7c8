"""Run the command line: `python -m neuromap_moo`."""

from neuromap_moo.cli import main

if __name__ == "__main__":
    main()
