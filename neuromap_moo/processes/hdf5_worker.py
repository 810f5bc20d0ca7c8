"""Copy the datasets of an HDF5 file into an .npz, in a process that may crash: the library does so on damaged files.

Called as `python hdf5_worker.py FILE.h5 FILE.npz BYTES`; refuses files whose datasets take more than BYTES.
"""

import sys

import h5py
import numpy as np


def main() -> int:
    """Copy; a line on stderr and code 2 where the file is none or too large."""
    source, target, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(source, "r") as file:
            sizes: list[int] = []

            def look(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset):
                    sizes.append(int(item.size or 0) * max(1, item.dtype.itemsize))
                    if sum(sizes) > limit:
                        raise ValueError(f"its datasets take more than {limit} bytes at '{name}'")
                    arrays[name] = plain(item)
                else:
                    arrays[f"{name}/"] = np.zeros(0)

            file.visititems(look)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        print(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, file=sys.stderr)
        return 2
    np.savez(target, **arrays)  # type: ignore[arg-type]
    return 0


def plain(item: h5py.Dataset) -> np.ndarray:
    """Return the data as an array without objects; strings as such."""
    if item.shape is None:
        return np.zeros(0)
    value = np.asarray(item[()])
    if value.dtype.kind in "OS":
        value = np.array([x.decode() if isinstance(x, bytes) else str(x) for x in value.ravel()]).reshape(value.shape)
    return value


if __name__ == "__main__":
    sys.exit(main())
