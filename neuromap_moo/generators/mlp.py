"""Generated networks for studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuromap_moo.arrays import IntArray
from neuromap_moo.errors import InputError, did_you_mean, finite_number, whole_number
from neuromap_moo.network.activity import lognormal_activity
from neuromap_moo.network.connectivity import Sparse
from neuromap_moo.network.network import Layer, Network, Projection

#: Per projection; ten times what the largest chip here holds, and some GB to draw.
MAXIMUM_SYNAPSES = 200_000_000
MAXIMUM_NEURONS = 10_000_000


def sparse_mlp(
    sizes: Sequence[int],
    density: float | Sequence[float],
    activity: float | Sequence[float] = 0.2,
    activity_sigma: float = 0.5,
    weight_bits: int = 8,
    steps_per_inference: int = 1,
    seed: int = 0,
    name: str = "sparse_mlp",
    structure: str = "unstructured",
) -> Network:
    """Generate a multi-layer perceptron with sparse weights.

    Parameters
    ----------
    sizes
        Neurons per layer, input first.
    density
        Share of the possible synapses that exist, for all projections or one value each; the number of synapses is
        exactly round(density * n_source * n_target), drawn without replacement.
    activity
        Mean messages per neuron and timestep, for all layers or one value each (see `lognormal_activity`).
    activity_sigma
        Spread of the activity within a layer.
    weight_bits
        Bits of every weight.
    steps_per_inference
        Timesteps of input that one inference needs.
    seed
        Of activity and synapses.
    name
        Of the network.
    structure
        Where the synapses are: `unstructured`, anywhere with equal probability; `block`, in blocks of `BLOCK`
        neighbours on both sides; `banded`, each source neuron reaches neighbours, at its own height in the target
        layer; `power_law`, neurons of either side have degrees that fall with their rank, in no order.

    Raises
    ------
    InputError
        For numbers out of range, with the argument's name.

    Examples
    --------
    >>> sparse_mlp([20, 30, 10], density=0.1).n_synapses
    90

    """
    if structure not in STRUCTURES:
        raise InputError(f"structure: no '{structure}'{did_you_mean(str(structure), STRUCTURES)}")
    if not _is_list(sizes) or len(sizes) < 2:
        raise InputError(f"sizes: expected the neurons of at least two layers, e.g. [256, 512, 10], got {sizes!r}")
    sizes = [whole_number(f"sizes, layer {i}", n, 1) for i, n in enumerate(sizes)]
    if max(sizes) > MAXIMUM_NEURONS:
        raise InputError(f"sizes: expected at most {MAXIMUM_NEURONS} neurons in a layer, got {max(sizes)}")
    whole_number("seed", seed)
    densities = _one_each("density", density, len(sizes) - 1, "projection")
    activities = _one_each("activity", activity, len(sizes), "layer")
    rng = np.random.default_rng(seed)
    names = ["input", *(f"hidden_{i}" for i in range(1, len(sizes) - 1)), "output"]
    layers = [
        Layer(names[i], n, "input" if i == 0 else "lif", lognormal_activity(n, activities[i], activity_sigma, rng))
        for i, n in enumerate(sizes)
    ]
    projections = []
    for i, d in enumerate(densities):
        if not 0 < d <= 1:
            raise InputError(f"density: expected a share in (0, 1], got {d} for projection {i}")
        n_source, n_target = sizes[i], sizes[i + 1]
        n_synapses = round(d * n_source * n_target)
        if n_synapses > MAXIMUM_SYNAPSES:
            raise InputError(
                f"sizes and density: projection {i} has {n_synapses} synapses, expected at most {MAXIMUM_SYNAPSES}"
            )
        cells = np.sort(STRUCTURES[structure](n_source, n_target, n_synapses, rng))
        rows, columns = np.divmod(cells, n_target)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_source))])
        connectivity = Sparse(n_source, n_target, indptr, columns)
        projections.append(Projection(names[i], names[i + 1], connectivity, weight_bits))
    return Network(name, tuple(layers), tuple(projections), steps_per_inference)


def _unstructured(n_source: int, n_target: int, n: int, rng: np.random.Generator) -> IntArray:
    return rng.choice(n_source * n_target, size=n, replace=False, shuffle=False)


def _block(n_source: int, n_target: int, n: int, rng: np.random.Generator) -> IntArray:
    """Whole blocks in random order, the last one as far as needed."""
    down, across = -(-n_source // BLOCK), -(-n_target // BLOCK)
    found: list[IntArray] = []
    missing = n
    for block in rng.permutation(down * across):
        i, j = divmod(int(block), across)
        rows = np.arange(i * BLOCK, min((i + 1) * BLOCK, n_source))
        columns = np.arange(j * BLOCK, min((j + 1) * BLOCK, n_target))
        found.append((rows[:, None] * n_target + columns).ravel()[:missing])
        missing -= found[-1].size
        if missing == 0:
            break
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _banded(n_source: int, n_target: int, n: int, rng: np.random.Generator) -> IntArray:
    """As many neighbours for each source neuron as for the others, or one more, about its own height."""
    widths = np.full(n_source, n // n_source)
    widths[rng.permutation(n_source)[: n % n_source]] += 1
    middle = (np.arange(n_source) + 0.5) * n_target / n_source
    first = np.clip(np.round(middle - widths / 2).astype(np.int64), 0, n_target - widths)
    rows = np.repeat(np.arange(n_source), widths)
    nth = np.arange(rows.size) - np.repeat(np.cumsum(widths) - widths, widths)
    return np.asarray(rows * n_target + first[rows] + nth, dtype=np.int64)


def _power_law(n_source: int, n_target: int, n: int, rng: np.random.Generator) -> IntArray:
    """Both ends of a synapse are drawn with a probability that falls as 1 / sqrt(rank), until all are different."""
    shares = []
    for size in (n_source, n_target):
        share = rng.permutation(1.0 / np.sqrt(np.arange(1, size + 1)))
        shares.append(share / share.sum())
    cells = np.zeros(0, dtype=np.int64)
    for _ in range(MOST_DRAWS):
        missing = n - cells.size
        if missing == 0:
            return cells
        rows, columns = (rng.choice(share.size, 2 * missing, p=share) for share in shares)
        drawn = np.concatenate([cells, rows * n_target + columns])
        _, first = np.unique(drawn, return_index=True)
        cells = drawn[np.sort(first)][:n]
    raise InputError(f"density: {n} of {n_source * n_target} synapses are too many for structure power_law; take fewer")


#: Neurons on a side of a block; rounds of drawing in which a power law has to be met.
BLOCK, MOST_DRAWS = 16, 200

STRUCTURES = {"unstructured": _unstructured, "block": _block, "banded": _banded, "power_law": _power_law}


def _one_each(what: str, value: float | Sequence[float], n: int, item: str) -> list[float]:
    values = [finite_number(what, v) for v in value] if _is_list(value) else [finite_number(what, value)] * n  # type: ignore[union-attr]
    if len(values) != n:
        raise InputError(f"{what}: expected one value per {item} ({n}), got {len(values)}")
    return values


def _is_list(value: object) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
