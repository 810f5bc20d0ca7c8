"""Files that are written whole or not at all, and where the package's own data lie."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp_"  #: what names of files begin with while they are written


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it over `path` at the end: the file is whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept, since savers such as numpy and matplotlib choose the format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def config_folder() -> Path:
    """Return the folder with config.yaml and its groups: packaged in a wheel, or the checkout's conf/."""
    return _data_folder("conf", "conf")


def instances_folder() -> Path:
    """Return the folder with a folder per benchmark instance: packaged in a wheel, or the checkout's instances/."""
    return _data_folder("best_known_fronts", "instances")  # a package's folder must not be named like a module


def _data_folder(packaged: str, in_checkout: str) -> Path:
    package = Path(__file__).resolve().parent
    return package / packaged if (package / packaged).is_dir() else package.parent / in_checkout
