import numpy as np
import pytest

import neuromap_moo as nm
from neuromap_moo.oracles import analytic


def joined(network):
    return {(p.source, p.target): p for p in network.projections}


def targets(p, i):
    return analytic._targets(p, i)


# ------------------------------------------------------------------------------------------------------ convolutional


def test_vgg_layers_by_hand():
    network = nm.convolutional((3, 8, 6), [[2, 4], [1, 5]], [7, 2], activity=0.3, activity_sigma=0.0, name="tiny")
    assert [(x.name, x.kind, x.shape or x.size) for x in network.layers] == [
        ("input", "input", (3, 8, 6)),
        ("conv_1_1", "relu", (4, 8, 6)),
        ("conv_1_2", "relu", (4, 8, 6)),
        ("pool_1", "pool", (4, 4, 3)),
        ("conv_2_1", "relu", (5, 4, 3)),
        ("pool_2", "pool", (5, 2, 1)),
        ("dense_1", "relu", 7),
        ("dense_2", "relu", 2),
    ]
    p = joined(network)
    assert p["input", "conv_1_1"].connectivity.n_multiplications == 3 * 4 * 9 * 48
    assert p["conv_2_1", "pool_2"].connectivity.n_synapses == 5 * 2 * 4  # the last column of three is pooled by none
    assert p["pool_2", "dense_1"].connectivity.n_synapses == 70
    assert [p.weight_bits for p in network.projections] == [8, 8, 1, 8, 1, 8, 8]
    assert (network.layers[3].activity == 0.3).all()
    assert network.name == "tiny"


def test_mobilenet_layers_by_hand():
    network = nm.convolutional((3, 9, 9), [[1, 4], [2, 6]], [3], style="mobilenet")
    assert [(x.name, x.shape or x.size) for x in network.layers[1:]] == [
        ("stem", (4, 5, 5)),
        ("depthwise_1_1", (4, 5, 5)),
        ("pointwise_1_1", (4, 5, 5)),
        ("depthwise_2_1", (4, 3, 3)),
        ("pointwise_2_1", (6, 3, 3)),
        ("depthwise_2_2", (6, 3, 3)),
        ("pointwise_2_2", (6, 3, 3)),
        ("dense_1", 3),
    ]
    depthwise = joined(network)["pointwise_1_1", "depthwise_2_1"].connectivity
    assert (depthwise.groups, depthwise.stride, depthwise.n_multiplications) == (4, (2, 2), 4 * 9 * 9)


def test_the_pilotnet_experiment_has_the_layers_of_the_public_network(networks_folder):
    made = nm.convolutional(
        (3, 66, 200),
        [[24, 3, 2, 2, 0, 0], [36, 3, 2, 2, 0, 0], [48, 3, 2, 2, 0, 0], [64, 3, 2, 1, 1, 0], [64, 3, 1, 1, 0, 0]],
        [100, 50, 10, 1],
        "plain",
    )
    read = nm.load_network(networks_folder / "pilotnet_sdnn.net")
    assert [x.size for x in made.layers] == [x.size for x in read.layers]
    for a, b in zip(made.projections[:5], read.projections[:5], strict=True):
        assert a.connectivity.n_synapses == b.connectivity.n_synapses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"style": "lenet"}, "style: no 'lenet'"),
        ({"input_shape": (3, 32)}, r"input_shape: expected 3 whole numbers, got \(3, 32\)"),
        ({"blocks": [[1, 2, 3]]}, r"blocks, block 1: expected 2 whole numbers, got \[1, 2, 3\]"),
        ({"blocks": [[1, 2]] * 6}, "blocks, block 6: no place is left to pool"),
        ({"style": "plain", "blocks": [[4, 40, 1, 1, 0, 0]]}, "blocks, conv_1: its kernel is larger than the map"),
        ({"dense": [0]}, "dense, layer 1: expected a whole number >= 1, got 0"),
    ],
)
def test_wrong_convolutional_networks_are_refused(arguments, message):
    with pytest.raises(nm.InputError, match=message):
        nm.convolutional(**arguments)


# ---------------------------------------------------------------------------------------------------------- recurrent


def test_reservoir_by_hand():
    network = nm.reservoir(5, 40, 3, density=0.25, input_density=0.5, seed=1)
    assert {pair: p.connectivity.n_synapses for pair, p in joined(network).items()} == {
        ("input", "reservoir"): 100,
        ("reservoir", "reservoir"): 400,
        ("reservoir", "readout"): 120,
    }
    assert network.depth == 3
    assert network.steps_per_inference == 100
    assert nm.reservoir(5, 40, 3, seed=1) == nm.reservoir(5, 40, 3, seed=1) != nm.reservoir(5, 40, 3, seed=2)
    with pytest.raises(nm.InputError, match=r"density: expected a share in \(0, 1\]"):
        nm.reservoir(density=0.0)


# -------------------------------------------------------------------------------------------------------- transformer


def by_token(network, name, shape):
    """Numbers of the neurons of a layer, in this shape."""
    return np.arange(network.layers[network.layer_index[name]].size).reshape(shape)


def test_every_token_attends_to_all():
    tokens, width, heads = 5, 6, 2
    network = nm.transformer(tokens, width, heads, layers=1, hidden=7)
    p = joined(network)
    q = by_token(network, "query_1", (heads, 3, tokens))
    scores = by_token(network, "scores_1", (heads, tokens, tokens))  # by head, query, key
    mixed = by_token(network, "mixed_1", (heads, tokens, 3))
    for h, d, t in np.ndindex(heads, 3, tokens):
        assert targets(p["query_1", "scores_1"], q[h, d, t]) == scores[h, t].tolist()
        assert targets(p["key_1", "scores_1"], q[h, d, t]) == scores[h, :, t].tolist()
        assert targets(p["value_1", "mixed_1"], q[h, d, t]) == mixed[h, :, d].tolist()
    for h, t, s in np.ndindex(heads, tokens, tokens):
        assert targets(p["scores_1", "mixed_1"], scores[h, t, s]) == mixed[h, t].tolist()
    x = by_token(network, "input", (width, tokens))
    assert targets(p["input", "query_1"], x[2, 3]) == x[:, 3].tolist()
    assert targets(p["input", "attended_1"], x[2, 3]) == [x[2, 3]]
    back = p["mixed_1", "attended_1"]
    for h, t, d in np.ndindex(heads, tokens, 3):
        assert targets(back, mixed[h, t, d]) == x[:, t].tolist()
    assert {pair for pair, of_pair in p.items() if of_pair.weight_bits == 0} == {
        ("query_1", "scores_1"),
        ("key_1", "scores_1"),
        ("scores_1", "mixed_1"),
        ("value_1", "mixed_1"),
    }


def test_with_a_window_tokens_attend_to_their_neighbours():
    tokens, width, heads, window = 6, 4, 2, 1
    network = nm.transformer(tokens, width, heads, layers=1, hidden=3, window=window)
    near = [(t, s) for t in range(tokens) for s in range(tokens) if abs(t - s) <= window]
    p = joined(network)
    q = by_token(network, "query_1", (heads, 2, tokens))
    scores = by_token(network, "scores_1", (heads, len(near)))
    mixed = by_token(network, "mixed_1", (heads, 2, tokens))
    for h, d, t in np.ndindex(heads, 2, tokens):
        as_query = [scores[h, i] for i, (a, _) in enumerate(near) if a == t]
        as_key = [scores[h, i] for i, (_, b) in enumerate(near) if b == t]
        seen_by = sorted(mixed[h, d, a] for a, b in near if b == t)
        assert targets(p["query_1", "scores_1"], q[h, d, t]) == as_query
        assert targets(p["key_1", "scores_1"], q[h, d, t]) == as_key
        assert targets(p["value_1", "mixed_1"], q[h, d, t]) == seen_by
    for h, i in np.ndindex(heads, len(near)):
        assert targets(p["scores_1", "mixed_1"], scores[h, i]) == mixed[h, :, near[i][0]].tolist()
    whole = nm.transformer(tokens, width, heads, layers=1, hidden=3, window=tokens)
    assert whole == nm.transformer(tokens, width, heads, layers=1, hidden=3)


def test_wrong_transformers_are_refused():
    with pytest.raises(nm.InputError, match="heads: expected a divisor of width 64, got 5"):
        nm.transformer(heads=5)
    with pytest.raises(nm.InputError, match="window: expected a whole number >= 0, got -1"):
        nm.transformer(window=-1)


# --------------------------------------------------------------------------------------------------------- structures


def matrix(network, i=0):
    c = network.projections[i].connectivity
    full = np.zeros((c.n_source, c.n_target), dtype=bool)
    full[np.repeat(np.arange(c.n_source), np.diff(c.indptr)), c.indices] = True
    return full


@pytest.mark.parametrize("structure", ["unstructured", "block", "banded", "power_law"])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.3])
def test_every_structure_has_exactly_the_synapses_asked_for(structure, density):
    network = nm.sparse_mlp([90, 130, 40], density, structure=structure, seed=3)
    assert [p.connectivity.n_synapses for p in network.projections] == [round(density * 11700), round(density * 5200)]
    assert network == nm.sparse_mlp([90, 130, 40], density, structure=structure, seed=3)


def test_blocks_are_whole_but_one():
    full = matrix(nm.sparse_mlp([64, 80], 0.2, structure="block"))
    counts = full.reshape(4, 16, 5, 16).sum(axis=(1, 3)).ravel()
    assert sorted(counts)[-4:] == [256] * 4
    assert np.count_nonzero((counts > 0) & (counts < 256)) <= 1


def test_bands_follow_the_diagonal():
    full = matrix(nm.sparse_mlp([60, 120], 0.1, structure="banded"))
    for i, row in enumerate(full):
        at = np.flatnonzero(row)
        assert (np.diff(at) == 1).all()
        assert abs(at.mean() - (2 * i + 0.5)) <= 6.5  # half a band at the edges


def test_power_laws_have_few_neurons_of_many_synapses():
    full = matrix(nm.sparse_mlp([200, 200], 0.05, structure="power_law"))
    plain = matrix(nm.sparse_mlp([200, 200], 0.05))
    for axis in (0, 1):
        assert full.sum(axis=axis).std() > 2 * plain.sum(axis=axis).std()
    with pytest.raises(nm.InputError, match="too many for structure power_law"):
        nm.sparse_mlp([30, 30], 1.0, structure="power_law")


def test_unknown_structures_are_refused():
    with pytest.raises(nm.InputError, match="structure: no 'blocks'; did you mean 'block'"):
        nm.sparse_mlp([3, 3], 0.5, structure="blocks")
