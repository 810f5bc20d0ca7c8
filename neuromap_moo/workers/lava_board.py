"""Run `neuromap_moo.boards.lava_board` by its documented name."""

import sys

from neuromap_moo.boards.lava_board import main

if __name__ == "__main__":
    sys.exit(main())
