"""The shapes that a user gives the inputs of a network's file, in place of what the file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neuromap_moo.errors import InputError, whole_number

#: Sizes of the one input, or of each by its name; None: those of the file.
InputShape = Sequence[int] | Mapping[str, Sequence[int]] | None


def given_shapes(where: str, input_shape: InputShape, inputs: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Return the shapes that a user gives, by the input's name.

    Parameters
    ----------
    where
        Names the file in errors.
    input_shape
        What the user gives.
    inputs
        Shapes by name as the file has them, 0 for sizes it leaves open.

    Raises
    ------
    InputError
        For an unknown name, a size below 1, and one shape for several inputs or for none.

    """
    if input_shape is None:
        return {}
    if isinstance(input_shape, Mapping):
        shapes = dict(input_shape)
    elif len(inputs) == 1:
        shapes = dict.fromkeys(inputs, input_shape)
    else:
        example = ", ".join(f"{{{name}: {list(sizes)}}}" for name, sizes in list(inputs.items())[:1])
        mend = f"has several inputs; give input_shape by name, e.g. {example}" if inputs else "has none; leave it out"
        raise InputError(f"{where}: expected input_shape for a graph of one input, the graph {mend}")
    for name in sorted(shapes.keys() - inputs.keys()):
        raise InputError(f"{where}: input_shape names no input '{name}'; the inputs are {', '.join(inputs)}")
    return {name: [whole_number(f"{where}, input_shape", n, 1) for n in sizes] for name, sizes in shapes.items()}
