"""The array types of annotations, each declared once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
IndexArray = NDArray[np.int32]  #: ids of routers, cores, slices and links, where there can be millions
BoolArray = NDArray[np.bool_]
