"""Programs that run apart from this one, as scripts: they import nothing of this package."""

from pathlib import Path

KEEPER = Path(__file__).with_name("keeper.py")
HDF5_WORKER = Path(__file__).with_name("hdf5_worker.py")
SANAFE_WORKER = Path(__file__).with_name("sanafe_worker.py")
