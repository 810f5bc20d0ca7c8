"""Run a command in a process group of its own that ends when the caller does, however the caller ends.

    python keeper.py FD [--clean PREFIX FOLDER] COMMAND...
    python keeper.py --left PREFIX GROUP

FD is the reading end of a pipe whose writing end only the caller holds: when that closes, the whole group is killed.
The command has the keeper's stdin, stdout and stderr. With --clean the group is killed when the command ends, too, or
when the caller writes a byte, and what it would leave behind is removed: POSIX shared memory whose names begin with
PREFIX, SLURM jobs named so, and FOLDER where the caller has ended. The number of the group is in FOLDER/group, for
--left, which only cleans up: after a keeper that was killed itself.
Needs nothing but the standard library, so it starts at once.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

#: Where POSIX shared memory has its files.
SHARED_MEMORY = Path("/dev/shm")

#: For killed processes to be gone: the kernel takes its time where they have much memory or the machine is busy.
PATIENCE_S = 10.0


def main() -> int:
    """Run the command and return its exit code, or never return where the caller ends first."""
    if sys.argv[1] == "--left":
        clean(int(sys.argv[3]), sys.argv[2])
        return 0
    lifeline, command, prefix, folder = int(sys.argv[1]), sys.argv[2:], "", Path()
    if command[0] == "--clean":
        prefix, folder, command = command[1], Path(command[2]), command[3:]
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # or others would be killed with the command
    try:
        # A keeper that has to clean up must not be in the group that it kills.
        child = subprocess.Popen(command, start_new_session=bool(prefix))
    except OSError as error:
        print(f"cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127
    if prefix:
        (folder / "group").write_text(str(child.pid), encoding="ascii")
    # The ends of the pipes to the caller belong to the command alone: the caller shall see when it closes them.
    for number in (0, 1):
        os.close(number)
    ending = threading.Lock()

    def wait_for_caller() -> None:
        told = os.read(lifeline, 1)
        if not prefix:
            os.killpg(0, signal.SIGKILL)
        with ending:
            clean(child.pid, prefix)
            if not told:
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)

    threading.Thread(target=wait_for_caller, daemon=True).start()
    code = child.wait()
    with ending:
        if prefix:
            clean(child.pid, prefix)
    if code < 0:
        print(f"killed by {signal.Signals(-code).name}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def clean(group: int, prefix: str) -> None:
    """Kill a process group and remove what it leaves behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    patience_ends = time.monotonic() + PATIENCE_S
    while runs(group) and time.monotonic() < patience_ends:  # what still ends may make another file
        time.sleep(0.01)
    for left in SHARED_MEMORY.glob(f"{prefix}*"):
        left.unlink(missing_ok=True)
    if os.environ.get("SLURM_JOB_NAME") == prefix and shutil.which("scancel"):
        nothing = subprocess.DEVNULL
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", f"--name={prefix}"], stdin=nothing, stdout=nothing, stderr=nothing, timeout=30)


def runs(group: int) -> bool:
    """Whether a process of a group is there, other than those that ended and were not waited for."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = file.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


if __name__ == "__main__":
    sys.exit(main())
