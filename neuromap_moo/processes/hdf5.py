"""HDF5 files as plain arrays, read in a process of their own: the library crashes on damaged files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from neuromap_moo.errors import InputError, last_line
from neuromap_moo.processes import HDF5_WORKER

#: What the datasets of one file may take, and how long they may take to read.
MAXIMUM_BYTES, LIMIT_S = 4 * 2**30, 120.0


def read_hdf5(path: Path, what: str) -> dict[str, Any]:
    """Return the groups of a file as nested dicts of arrays; `what` names the format that is expected."""
    if importlib.util.find_spec("h5py") is None:
        raise InputError(
            f"network file '{path}': needs the package 'h5py', which is not installed; pip install 'neuromap-moo[net]'"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.npz"
        command = [sys.executable, str(HDF5_WORKER), str(path), str(copy), str(MAXIMUM_BYTES)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"'{path}': expected {what}, it could not be read within {LIMIT_S:g} s") from error
        if done.returncode != 0:
            reason = last_line(done.stderr)
            if done.returncode < 0:
                reason = "the HDF5 library crashes on it, so it is damaged"
            raise InputError(f"'{path}': expected {what}, could not read it ({reason})")
        tree: dict[str, Any] = {}
        with np.load(copy, allow_pickle=False) as arrays:
            for name in arrays.files:
                *groups, last = name.split("/")
                node = tree
                for group in groups:
                    node = node.setdefault(group, {})
                if last:
                    node[last] = arrays[name]
        return tree
