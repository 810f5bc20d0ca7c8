"""Generated networks of the common architectures, for studies: convolutional, recurrent, transformer.

They hold connectivity and activity, no weights: `activity` is the mean of every layer, spread as in
`lognormal_activity`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from neuromap_moo.errors import InputError, did_you_mean, finite_number, whole_number
from neuromap_moo.generators.mlp import MAXIMUM_SYNAPSES
from neuromap_moo.network.activity import ActivitySpec
from neuromap_moo.network.assembly import UNIT_BITS, Assembly, Tensor
from neuromap_moo.network.connectivity import Sparse
from neuromap_moo.network.network import Network

STYLES = ("vgg", "mobilenet", "plain")


def convolutional(
    input_shape: Sequence[int] = (3, 32, 32),
    blocks: Sequence[Sequence[int]] = ((2, 32), (2, 64), (2, 128)),
    dense: Sequence[int] = (128, 10),
    style: str = "vgg",
    activity: float = 0.2,
    activity_sigma: float = 0.5,
    weight_bits: int = 8,
    steps_per_inference: int = 1,
    seed: int = 0,
    name: str = "convolutional",
) -> Network:
    """Generate a convolutional network.

    Parameters
    ----------
    input_shape
        (channels, height, width).
    blocks
        (convolutions, channels) of each block; see `style`.
    dense
        Neurons of the dense layers after the last block.
    style
        `vgg`: 3x3 convolutions, and a 2x2 pool at the end of each block. `mobilenet`: pairs of a 3x3 depthwise and a
        1x1 convolution after a first full one; the first pair of each later block has stride 2. `plain`: one
        convolution per block, which is (channels, kernel, stride down, stride across, padding down, padding across).
    activity
        Mean messages per neuron and timestep of every layer.
    activity_sigma
        Spread of the activity within a layer, as in `nm.lognormal_activity`.
    weight_bits
        Bits of every weight.
    steps_per_inference
        Timesteps of input that one inference needs.
    seed
        Of everything that is drawn.
    name
        Of the network.

    Raises
    ------
    InputError
        For numbers out of range, with the argument's name.

    Examples
    --------
    >>> convolutional((1, 8, 8), blocks=[(1, 4)], dense=[10]).layer_names
    ('input', 'conv_1_1', 'pool_1', 'dense_1')

    """
    if style not in STYLES:
        raise InputError(f"style: no '{style}'{did_you_mean(str(style), STYLES)}")
    shape = _sizes("input_shape", input_shape, 3)
    assembly = Assembly(f"network '{name}'")
    x = assembly.layer("input", shape[0] * shape[1] * shape[2], "input", shape).reshape(shape)

    def conv(
        label: str,
        channels: int,
        kernel: int,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] | None = None,
        groups: int = 1,
    ) -> Tensor:
        around = (kernel // 2,) * 2 if padding is None else padding
        sizes = [(n + 2 * p - kernel) // s + 1 for n, s, p in zip(x.shape[1:], stride, around, strict=True)]
        if min(sizes) < 1:
            raise InputError(f"blocks, {label}: its kernel is larger than the map {x.shape}; take fewer blocks")
        geometry = {"kernel": (kernel,) * 2, "stride": stride, "padding": around, "groups": groups}
        return assembly.convolve(label, x, "relu", weight_bits, (channels, *sizes), **geometry)

    for i, block in enumerate(blocks, 1):
        if style == "plain":
            channels, kernel, *rest = _sizes(f"blocks, block {i}", block, 6, least=0)
            x = conv(f"conv_{i}", channels, kernel, (rest[0], rest[1]), (rest[2], rest[3]))
            continue
        n, channels = _sizes(f"blocks, block {i}", block, 2)
        if style == "mobilenet" and i == 1:
            x = conv("stem", channels, 3, (2, 2))
        for j in range(1, n + 1):
            if style == "vgg":
                x = conv(f"conv_{i}_{j}", channels, 3)
            else:
                stride = (2, 2) if j == 1 and i > 1 else (1, 1)
                x = conv(f"depthwise_{i}_{j}", x.shape[0], 3, stride, groups=x.shape[0])
                x = conv(f"pointwise_{i}_{j}", channels, 1)
        if style == "vgg":
            if min(x.shape[1:]) < 2:
                raise InputError(
                    f"blocks, block {i}: no place is left to pool, its map is {x.shape}; take fewer blocks"
                )
            pooled = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2)
            geometry = {"kernel": (2, 2), "stride": (2, 2), "groups": x.shape[0]}
            x = assembly.convolve(f"pool_{i}", x, "pool", UNIT_BITS, pooled, **geometry)
    x = x.ravel()
    for i, n in enumerate(dense, 1):
        target = assembly.layer(f"dense_{i}", whole_number(f"dense, layer {i}", n, 1), "relu")
        assembly.connect_matrix(x, target, weight_bits)
        x = target
    return assembly.network(name, ActivitySpec(activity, activity_sigma, steps_per_inference, seed))


def reservoir(
    inputs: int = 64,
    neurons: int = 2048,
    outputs: int = 16,
    density: float = 0.02,
    input_density: float = 0.1,
    activity: float = 0.1,
    activity_sigma: float = 0.5,
    weight_bits: int = 8,
    steps_per_inference: int = 100,
    seed: int = 0,
    name: str = "reservoir",
) -> Network:
    """Generate a recurrent reservoir: sparse input, sparse recurrent synapses at random, a dense readout.

    Parameters
    ----------
    inputs, neurons, outputs
        Neurons of the input, of the reservoir and of the readout.
    density
        Share of the possible recurrent synapses that exist, in (0, 1].
    input_density
        Share of the possible synapses from the input that exist, in (0, 1].
    activity
        Mean messages per neuron and timestep of every layer.
    activity_sigma
        Spread of the activity within a layer, as in `nm.lognormal_activity`.
    weight_bits
        Bits of every weight.
    steps_per_inference
        Timesteps of input that one inference needs.
    seed
        Of everything that is drawn.
    name
        Of the network.

    Raises
    ------
    InputError
        For numbers out of range, with the argument's name.

    Examples
    --------
    >>> reservoir(inputs=8, neurons=100, outputs=2, density=0.1, input_density=0.5).n_synapses
    1600

    """
    for key, size in (("inputs", inputs), ("neurons", neurons), ("outputs", outputs)):
        whole_number(key, size, 1)
    rng = np.random.default_rng(seed)
    assembly = Assembly(f"network '{name}'")
    source, pool = assembly.layer("input", inputs, "input"), assembly.layer("reservoir", neurons, "lif")
    readout = assembly.layer("readout", outputs, "linear")
    for key, layer, share in (("input_density", source, input_density), ("density", pool, density)):
        if not 0 < finite_number(key, share) <= 1 or share * layer.size * neurons > MAXIMUM_SYNAPSES:
            raise InputError(f"{key}: expected a share in (0, 1] of at most {MAXIMUM_SYNAPSES} synapses, got {share}")
        n = round(share * layer.size * neurons)
        cells = rng.choice(layer.size * neurons, n, replace=False, shuffle=False)
        pairs = (np.ones(n, dtype=np.int8), np.divmod(cells, neurons))
        assembly.connect(layer, pool, Sparse.from_matrix(csr_array(pairs, (layer.size, neurons))), weight_bits)
    assembly.connect_matrix(pool, readout, weight_bits)
    return assembly.network(name, ActivitySpec(activity, activity_sigma, steps_per_inference, seed))


def transformer(
    tokens: int = 64,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
    hidden: int = 256,
    window: int | None = None,
    activity: float = 0.2,
    activity_sigma: float = 0.5,
    weight_bits: int = 8,
    steps_per_inference: int = 1,
    seed: int = 0,
    name: str = "transformer",
) -> Network:
    """Generate a transformer encoder; each token attends to all, or to those at most `window` places away.

    Per layer: queries, keys and values, scores (kind `softmax`), their products with the values, a projection back with
    the residual, and two dense layers per token with theirs. Products of activations hold no weights. Normalisations
    are taken as functions of each neuron.

    Parameters
    ----------
    tokens
        Of the sequence.
    width
        Neurons per token between layers.
    heads
        Of the attention, a divisor of `width`.
    layers
        Of the encoder.
    hidden
        Neurons per token of the inner dense layer.
    window
        How many places away a token sees others; None: all.
    activity
        Mean messages per neuron and timestep of every layer.
    activity_sigma
        Spread of the activity within a layer, as in `nm.lognormal_activity`.
    weight_bits
        Bits of every weight.
    steps_per_inference
        Timesteps of input that one inference needs.
    seed
        Of everything that is drawn.
    name
        Of the network.

    Raises
    ------
    InputError
        For numbers out of range, with the argument's name.

    Examples
    --------
    >>> transformer(tokens=4, width=8, heads=2, layers=1, hidden=16).layer_names[:3]
    ('input', 'query_1', 'key_1')

    """
    sizes = {"tokens": tokens, "width": width, "heads": heads, "layers": layers, "hidden": hidden}
    for key, size in sizes.items():
        whole_number(key, size, 1)
    if width % heads:
        raise InputError(f"heads: expected a divisor of width {width}, got {heads}")
    if window is not None and whole_number("window", window) >= tokens - 1:
        window = None
    d = width // heads
    assembly = Assembly(f"network '{name}'")

    def per_token(label: str, x: Tensor, n: int, kind: str) -> Tensor:
        """(n, 1, tokens) neurons, each token's from its own (width, 1, tokens) neurons."""
        return assembly.convolve(label, x, kind, weight_bits, (n, 1, tokens), kernel=(1, 1))

    x = assembly.layer("input", width * tokens, "input", (width, 1, tokens)).reshape(width, 1, tokens)
    for i in range(1, layers + 1):
        q, k, v = (per_token(f"{part}_{i}", x, width, "linear") for part in ("query", "key", "value"))
        q, k, v = (part.reshape(heads, d, tokens) for part in (q, k, v))
        mixed = _attend(assembly, str(i), q, k, v, window)
        back = per_token(f"attended_{i}", mixed.reshape(width, 1, tokens), width, "norm")
        assembly.connect_each(x.ravel(), back.ravel())
        inner = per_token(f"inner_{i}", back, hidden, "gelu")
        x = per_token(f"outer_{i}", inner, width, "norm")
        assembly.connect_each(back.ravel(), x.ravel())
    return assembly.network(name, ActivitySpec(activity, activity_sigma, steps_per_inference, seed))


def _attend(assembly: Assembly, label: str, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Neurons (heads, d, tokens) of the products of scores and values; q, k and v have this shape too."""
    heads, d, tokens = q.shape
    if window is None:
        by_query, by_key = (x.transpose(0, 2, 1) for x in (q, v))  # (heads, tokens, d)
        scores = assembly.multiply(f"scores_{label}", by_query, k, "softmax")  # by head, query and key
        return assembly.multiply(f"mixed_{label}", scores, by_key, "linear").transpose(0, 2, 1)
    query, key = np.nonzero(np.abs(np.subtract.outer(np.arange(tokens), np.arange(tokens))) <= window)
    n = query.size  # pairs of tokens that see each other
    scores = assembly.layer(f"scores_{label}", heads * n, "softmax", (heads, 1, n)).reshape(heads, n)
    mixed = assembly.layer(f"mixed_{label}", heads * d * tokens, "linear", (heads * d, 1, tokens)).reshape(
        heads, d, tokens
    )
    at = np.arange(heads)[:, None, None], np.arange(d)[None, :, None]
    pairs = [
        (q[at[0], at[1], query], np.broadcast_to(scores[:, None], (heads, d, n)), scores),
        (k[at[0], at[1], key], np.broadcast_to(scores[:, None], (heads, d, n)), scores),
        (np.broadcast_to(scores[:, None], (heads, d, n)), mixed[at[0], at[1], query], mixed),
        (v[at[0], at[1], key], mixed[at[0], at[1], query], mixed),
    ]
    for sources, targets, layer in pairs:
        assembly.connect_pairs(sources.ravel(), targets.ravel(), layer.ravel(), 0)
    return mixed


def _sizes(key: str, given: Sequence[int], n: int, least: int = 1) -> tuple[int, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != n:
        raise InputError(f"{key}: expected {n} whole numbers, got {given!r}")
    return tuple(whole_number(key, size, least) for size in given)
