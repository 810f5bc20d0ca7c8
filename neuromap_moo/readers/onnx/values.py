"""What a walk through an ONNX graph passes on in place of values, and the sizes of windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.errors import InputError, first_line
from neuromap_moo.network.assembly import MAXIMUM_NEURONS, Tensor, map_shape

#: What onnx and its parts raise for files that are none, or graphs that are broken.
READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)


@dataclass(frozen=True)
class Values:
    """A tensor of neurons; `version` tells by layer (its first neuron) which functions were applied since."""

    ids: Tensor
    version: Mapping[int, str] = field(default_factory=dict)


class Host:
    """A value that leaves the chip."""


Value = NDArray[Any] | Values | Host


class Window:
    """Sizes of a convolution or pool, as (height, width)."""

    def __init__(self, size: Sequence[int], kernel: Sequence[int], attributes: dict[str, Any], axes: int) -> None:
        def pair(key: str, default: int) -> tuple[int, int]:
            given = [int(n) for n in attributes.get(key, [default] * axes)]
            if len(given) != axes:
                raise InputError(f"{key}: expected {axes} numbers, got {given}")
            return (default, given[0]) if axes == 1 else (given[0], given[1])

        self.size, self.axes = tuple(size), axes
        flat = [int(n) for n in kernel]
        if len(flat) != axes or min(flat) < 1:
            raise InputError(f"expected a kernel of {axes} sizes, got {flat}")
        self.kernel = (1, flat[0]) if axes == 1 else (flat[0], flat[1])
        self.stride, self.dilation, self.extra = pair("strides", 1), pair("dilations", 1), pair("output_padding", 0)
        if min(*self.stride, *self.dilation) < 1:
            raise InputError(f"expected strides and dilations >= 1, got {self.stride} and {self.dilation}")
        pads = [int(n) for n in attributes.get("pads", [0] * (2 * axes))]
        if len(pads) != 2 * axes:
            raise InputError(f"pads: expected {2 * axes} numbers, got {pads}")
        self.before = (0, pads[0]) if axes == 1 else (pads[0], pads[1])
        self.after = (0, pads[1]) if axes == 1 else (pads[2], pads[3])
        self.auto = attributes.get("auto_pad", b"NOTSET").decode()
        self.ceil = bool(attributes.get("ceil_mode", 0))
        self.given = attributes.get("output_shape")
        self.spans = tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    def output(self) -> tuple[int, int]:
        """Return the size of the output map, and settle the padding."""
        sizes, before = [], list(self.before)
        for a, (n, s, span) in enumerate(zip(self.size, self.stride, self.spans, strict=True)):
            if self.auto in ("SAME_UPPER", "SAME_LOWER"):
                size = -(-n // s)
                total = max(0, (size - 1) * s + span - n)
                before[a] = total // 2 if self.auto == "SAME_UPPER" else total - total // 2
            elif self.auto == "VALID":
                size, before[a] = (n - span) // s + 1, 0
            else:
                room = n + self.before[a] + self.after[a] - span
                size = (-(-room // s) if self.ceil else room // s) + 1
                if self.ceil and (size - 1) * s >= n + self.before[a]:
                    size -= 1  # a window that begins in the padding after the map is none
            sizes.append(size)
        self.before = (before[0], before[1])
        return sizes[0], sizes[1]

    def transposed(self) -> tuple[int, int]:
        """Return the size of a transposed convolution's output map, and settle the padding."""
        full = [
            s * (n - 1) + e + span for s, n, e, span in zip(self.stride, self.size, self.extra, self.spans, strict=True)
        ]
        if self.given is not None:
            wanted = [1] * (2 - len(self.given[-2:])) + [int(n) for n in self.given[-2:]]
        elif self.auto in ("SAME_UPPER", "SAME_LOWER"):
            wanted = [n * s for n, s in zip(self.size, self.stride, strict=True)]
        else:
            return (full[0] - self.before[0] - self.after[0], full[1] - self.before[1] - self.after[1])
        total = [f - w for f, w in zip(full, wanted, strict=True)]
        upper = self.auto == "SAME_UPPER"
        before = [t // 2 if upper else t - t // 2 for t in total]
        self.before = (before[0], before[1])
        return wanted[0], wanted[1]


def onnx_map(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """(channels, height, width) of a value of this shape with a batch axis, None where it has no axes in space."""
    sizes = [int(n) for n in shape]
    return map_shape([sizes[0] * sizes[1], *sizes[2:]]) if len(sizes) > 2 else None


def check_shape(shape: Sequence[int]) -> None:
    """Refuse shapes that hold no values, or more than any network has."""
    if any(n < 1 for n in shape):
        raise InputError(f"expected at least one value, got shape {tuple(shape)}")
    if prod(int(n) for n in shape) > MAXIMUM_NEURONS:
        raise InputError(f"expected at most {MAXIMUM_NEURONS} values, got shape {tuple(int(n) for n in shape)}")


def check_size(op: str, inputs: Sequence[Any]) -> None:
    """Refuse what would make more values than any network has, before it is made."""
    arrays = [x for x in inputs if isinstance(x, np.ndarray)]
    try:
        if op == "Expand":
            size = prod(np.broadcast_shapes(arrays[0].shape, tuple(int(n) for n in arrays[1])))
        elif op == "Tile":
            size = arrays[0].size * prod(int(n) for n in arrays[1].ravel())
        elif op == "Range":
            size = int(abs((float(arrays[1]) - float(arrays[0])) / float(arrays[2])))
        elif op == "OneHot":
            size = arrays[0].size * int(arrays[1].ravel()[0])
        elif op == "Pad" and len(arrays) > 1:
            size = prod(
                n + int(abs(p)) for n, p in zip(arrays[0].shape, np.reshape(arrays[1], (2, -1)).sum(0), strict=False)
            )
        else:
            return
    except (IndexError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"its sizes make no sense ({first_line(error)})") from error
    if size > MAXIMUM_NEURONS:
        raise InputError(f"expected at most {MAXIMUM_NEURONS} values, it would make {size}")
