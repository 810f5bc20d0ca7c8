"""Run a command in a process group of its own that ends when the caller does, however the caller ends.

    python keeper.py FD COMMAND...

FD is the reading end of a pipe whose writing end only the caller holds: when that closes, the whole group is killed.
The command has the keeper's stdin, stdout and stderr. Needs nothing but the standard library, so it starts at once.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command and return its exit code, or never return where the caller ends first."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # or others would be killed with the command
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127
    # The ends of the pipes to the caller belong to the command alone: the caller shall see when it closes them.
    for number in (0, 1):
        os.close(number)

    def wait_for_caller() -> None:
        while os.read(lifeline, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait_for_caller, daemon=True).start()
    code = child.wait()
    if code < 0:
        print(f"killed by {signal.Signals(-code).name}", file=sys.stderr)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
