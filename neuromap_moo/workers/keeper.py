"""Run a command in a process group of its own that ends when the caller does, however the caller ends.

    python keeper.py FD [--clean PREFIX] COMMAND...

FD is the reading end of a pipe whose writing end only the caller holds: when that closes, the whole group is killed.
The command has the keeper's stdin, stdout and stderr. With --clean the group is killed when the command ends, too, and
what it would leave behind is removed: POSIX shared memory whose names begin with PREFIX, and SLURM jobs named so.
Needs nothing but the standard library, so it starts at once.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

#: Where POSIX shared memory has its files.
SHARED_MEMORY = Path("/dev/shm")


def main() -> int:
    """Run the command and return its exit code, or never return where the caller ends first."""
    lifeline, command, prefix = int(sys.argv[1]), sys.argv[2:], ""
    if command[0] == "--clean":
        prefix, command = command[1], command[2:]
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # or others would be killed with the command
    try:
        # A keeper that has to clean up must not be in the group that it kills.
        child = subprocess.Popen(command, start_new_session=bool(prefix))
    except OSError as error:
        print(f"cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127
    # The ends of the pipes to the caller belong to the command alone: the caller shall see when it closes them.
    for number in (0, 1):
        os.close(number)

    def wait_for_caller() -> None:
        while os.read(lifeline, 1):
            pass
        if prefix:
            clean(child.pid, prefix)
            os._exit(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait_for_caller, daemon=True).start()
    code = child.wait()
    if prefix:
        clean(child.pid, prefix)
    if code < 0:
        print(f"killed by {signal.Signals(-code).name}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def clean(group: int, prefix: str) -> None:
    """Kill a process group and remove what it leaves behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for left in SHARED_MEMORY.glob(f"{prefix}*"):
        left.unlink(missing_ok=True)
    if os.environ.get("SLURM_JOB_NAME") == prefix and shutil.which("scancel"):
        nothing = subprocess.DEVNULL
        subprocess.run(["scancel", f"--name={prefix}"], stdin=nothing, stdout=nothing, timeout=30, check=False)


if __name__ == "__main__":
    sys.exit(main())
