"""Run the command line: `python -m neuromap_moo`."""

import sys

if __name__ == "__main__":
    try:
        from neuromap_moo.app.cli import main

        main()
    except KeyboardInterrupt:  # before there is anything to save
        sys.exit(130)
