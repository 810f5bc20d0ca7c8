import itertools
import math
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.network.assembly import weight_bits_of
from neuromap_moo.network.connectivity import slice_bounds
from neuromap_moo.oracles import analytic
from neuromap_moo.partition import partitioner as partitioner_module
from neuromap_moo.partition.core_graph import LOADS
from neuromap_moo.partition.fixed import FixedPartitioner, partitioner_for
from neuromap_moo.partition.partitioner import Partitioner

seeds = st.integers(0, 2**32 - 1)


def words_of_slice(network, layer, start, stop):
    """Synapse words of the neurons start..stop - 1 of a layer, synapse after synapse."""
    words = 0
    for p in network.projections:
        if p.target != network.layers[layer].name:
            continue
        c = p.connectivity
        for i in range(c.n_source):
            targets = range(c.n_target) if isinstance(c, nm.Dense) else c.indices[c.indptr[i] : c.indptr[i + 1]]
            s = sum(start <= j < stop for j in targets)
            if s:
                words += math.ceil((s * (p.weight_bits + 12) + 16) / 64)
    return words


def fits_by_hand(network, system, layer, k):
    size = network.layers[layer].size
    parts = np.array_split(np.arange(size), k)
    return max(map(len, parts)) <= system.neurons_per_core and all(
        words_of_slice(network, layer, part[0], part[-1] + 1) <= system.synapse_words for part in parts
    )


def fan_in_network(fan_in, n_source=20, activity=1.0):
    """Target neuron j has fan_in[j] synapses, each from a source neuron of its own: that many words."""
    rows = [j for j, n in enumerate(fan_in) for _ in range(n)]
    rows += [None] * (n_source - len(rows))
    indptr = np.cumsum([0, *(row is not None for row in rows)])
    connectivity = nm.Sparse(n_source, len(fan_in), indptr, [row for row in rows if row is not None])
    layers = (
        nm.Layer("source", n_source, "input", np.full(n_source, activity)),
        nm.Layer("target", len(fan_in), "lif", np.zeros(len(fan_in))),
    )
    return nm.Network("fan_in", layers, (nm.Projection("source", "target", connectivity, 8),))


def two_heavy(most):
    """Every layer of up to `most` neurons of which two need a whole core each, the others nothing."""
    for size in range(2, most + 1):
        for heavy in itertools.combinations(range(size), 2):
            yield fan_in_network([8 if j in heavy else 0 for j in range(size)], n_source=16)


# ----------------------------------------------------------------------------------------------------------- slices


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_slices_are_cut_as_array_split_cuts(case):
    size, k = case
    expected = [len(part) for part in np.array_split(np.arange(size), k)]
    bounds = slice_bounds(size, k)
    assert bounds[0] == 0
    assert bounds[-1] == size
    assert np.diff(bounds).tolist() == expected


# ----------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("n_source", "n_target", "weight_bits", "words"),
    [
        # n_source * ceil((n_target * (weight_bits + 12) + 16) / 64)
        (1, 1, 8, 1),  # 36 bits
        (3, 2, 8, 3),  # 56 bits -> 1 word, 3 rows
        (3, 3, 8, 6),  # 76 bits -> 2
        (1, 12, 8, 4),  # 256 bits -> 4 exactly
        (1, 13, 8, 5),  # 276 bits
        (10, 1, 32, 10),  # 60 bits
        (10, 2, 32, 20),  # 104 bits
        (2560, 100, 4, 66_560),  # 1616 bits -> 26
        (2560, 17, 4, 12_800),  # 288 bits -> 5
        (100, 50, 6, 1500),  # 916 bits -> 15
        (50, 10, 5, 150),  # 186 bits -> 3
    ],
)
def test_memory_words_by_hand(n_source, n_target, weight_bits, words):
    layers = (nm.Layer("a", n_source, "input", np.ones(n_source)), nm.Layer("b", n_target, "lif", np.ones(n_target)))
    network = nm.Network("two", layers, (nm.Projection("a", "b", nm.Dense(n_source, n_target), weight_bits),))
    partitioner = Partitioner(network, nm.mesh_system(2, 2, synapse_words=10**6))
    assert partitioner.layer_loads(1, 1).words.tolist() == [words]
    assert partitioner.layer_loads(0, 1).words.tolist() == [0]


def test_words_and_loads_of_the_chain_by_hand(chain):
    partitioner = Partitioner(chain, nm.mesh_system(4, 4))
    hidden = partitioner.layer_loads(1, 2)  # slices {0, 1} and {2}
    assert hidden.dendops.tolist() == [2.0, 1.0]
    # input 0 (0.5) reaches hidden 0 and 2, input 1 (0.25) reaches hidden 1
    assert hidden.synops.tolist() == [0.75, 0.5]
    assert hidden.synmem_reads.tolist() == [0.75, 0.5]
    assert hidden.words.tolist() == [2, 1]
    assert hidden.received.tolist() == [0.75, 0.5]
    output = partitioner.layer_loads(2, 1)
    # every hidden neuron reaches both: (0.125 + 0 + 1) * 2 synapses, 1 word a row as 2 * 16 + 16 <= 64
    assert output.synops.tolist() == [2.25]
    assert output.synmem_reads.tolist() == [1.125]
    assert output.words.tolist() == [3]
    assert output.received.tolist() == [1.125]
    assert Partitioner(chain, nm.mesh_system(4, 4)).layer_loads(0, 2).received.tolist() == [0.0, 0.0]


@given(seeds)
def test_messages_received_do_not_depend_on_how_their_sources_are_cut(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), nm.mesh_system(5, 5, 2)
    partitioner = Partitioner(network, system)
    counts = random_mapping(rng, network, system).cores_per_layer
    graph = partitioner.core_graph(counts)
    received = np.bincount(graph.target, graph.messages, graph.n_slices)
    for answers in (partitioner, FixedPartitioner(graph, system)):
        found = [answers.layer_loads(i, k).received for i, k in enumerate(counts)]
        np.testing.assert_allclose(np.concatenate(found), received, rtol=1e-12)


def test_projections_into_one_layer_add_up():
    layers = [nm.Layer(name, 2, "lif", [1.0, 0.5]) for name in "abc"]
    projections = [nm.Projection("a", "c", nm.Dense(2, 2), 8), nm.Projection("b", "c", nm.Dense(2, 2), 20)]
    loads = Partitioner(nm.Network("two_in", layers, projections), nm.mesh_system(3, 3)).layer_loads(2, 1)
    # 2 rows of ceil(56/64) = 1 word, 2 rows of ceil(80/64) = 2 words
    assert loads.words.tolist() == [2 * 1 + 2 * 2]
    # 1.5 * 1 + 1.5 * 2
    assert loads.synmem_reads.tolist() == [4.5]
    assert loads.synops.tolist() == [1.5 * 2 + 1.5 * 2]


def check_fits(network, system):
    """Compare a Partitioner with trying every cut; returns False where no partition fits."""
    expected = [
        [1 <= k <= layer.size and fits_by_hand(network, system, i, k) for k in range(system.n_cores + 1)]
        for i, layer in enumerate(network.layers)
    ]
    fewest = [row.index(True) if any(row) else None for row in expected]
    if None in fewest or sum(fewest) > system.n_cores:
        with pytest.raises(nm.InputError, match=r"layer '|needs at least"):
            Partitioner(network, system)
        return False
    partitioner = Partitioner(network, system)
    assert partitioner.fits.tolist() == expected
    assert partitioner.minimum.tolist() == fewest
    assert partitioner.maximum.tolist() == [max(k for k, fit in enumerate(row) if fit) for row in expected]
    return True


@pytest.mark.parametrize("block", range(6))
def test_fits_equals_trying_every_cut(random_network, block):
    outcomes = set()
    for seed in range(block * 10, block * 10 + 10):
        rng = np.random.default_rng(seed)
        capacities = {"synapse_words": int(rng.integers(2, 30)), "neurons": int(rng.integers(2, 12))}
        system = nm.mesh_system(int(rng.integers(2, 7)), int(rng.integers(2, 5)), **capacities)
        outcomes.add(check_fits(random_network(rng), system))
    assert outcomes == {True, False}  # the capacities are tight enough for both


def test_fits_equals_trying_every_cut_wherever_two_heavy_neurons_are():
    system = nm.mesh_system(9, 1, synapse_words=8)
    gaps = 0
    for network in two_heavy(8):
        if check_fits(network, system):
            row = Partitioner(network, system).fits[1]
            gaps += not row[row.argmax() : network.layers[1].size + 1].all()
    assert gaps > 0  # a finer cut that does not fit is among the cases


def test_finer_cut_may_not_fit_where_a_coarser_one_does():
    # Neurons 2 and 3 take 4 words each, a core holds 4: {0 1 2} {3 4} fits, {0 1} {2 3} {4} does not.
    system = nm.mesh_system(3, 3, synapse_words=4)
    partitioner = Partitioner(fan_in_network([0, 0, 4, 4, 0]), system)
    assert np.flatnonzero(partitioner.fits[1]).tolist() == [2, 4, 5]
    assert (partitioner.minimum[1], partitioner.maximum[1]) == (2, 5)


def test_neurons_per_core_limit_the_slices():
    partitioner = Partitioner(nm.sparse_mlp([10, 7], 0.5), nm.mesh_system(4, 4, neurons=3))
    # ceil(10 / 3) and ceil(7 / 3)
    assert partitioner.minimum.tolist() == [4, 3]
    assert partitioner.maximum.tolist() == [10, 7]


def test_cores_that_are_masked_do_not_count():
    system = nm.mesh_system(3, 3, masked_cores=range(4))
    assert Partitioner(nm.sparse_mlp([10, 10], 0.5), system).maximum.tolist() == [5, 5]


@pytest.mark.parametrize(
    ("network", "system", "message"),
    [
        # one neuron takes 9 words, a core holds 8
        (
            fan_in_network([1, 9]),
            nm.mesh_system(4, 4, synapse_words=8),
            r"layer 'target' \(2 neurons\): even in 2 slices one needs 9 synapse words, a core holds 8; lower the fan",
        ),
        # 20 words in all, at most 4 a core: 5 cores, there are 4
        (
            fan_in_network([2] * 10),
            nm.mesh_system(2, 2, synapse_words=4),
            r"layer 'target' \(10 neurons\) needs at least 5 cores, the system has 4 usable; take more chips",
        ),
        # 1 + 4 cores of 4: 16 words in all
        (
            fan_in_network([4] * 4),
            nm.mesh_system(2, 2, synapse_words=4),
            r"network 'fan_in' needs at least 5 cores \('target' 4, 'source' 1\), system 'mesh' has 4 usable",
        ),
        # 20 source neurons, 3 a core
        (
            fan_in_network([1]),
            nm.mesh_system(2, 3, neurons=3),
            r"layer 'source' \(20 neurons\) needs at least 7 cores, the system has 6 usable",
        ),
    ],
    ids=["fan-in", "one layer", "all layers", "neurons"],
)
def test_networks_that_cannot_fit_are_refused_with_layer_demand_and_limit(network, system, message):
    with pytest.raises(nm.InputError, match=message):
        partitioner_for(network, system)


# ------------------------------------------------------------------------------------------------------ vendor rule


def vendor(network, system):
    counts, notes = partitioner_for(network, system).vendor_slice_counts()
    return counts.tolist(), notes


def pilotnet_head():
    """Return the dense layers of PilotNet with the weight widths that the words of the public log imply."""
    sizes, bits = [2560, 100, 50, 10, 1], [4, 6, 5, 8]
    layers = [nm.Layer(f"l{i}", n, "sigma_delta", np.full(n, 0.1)) for i, n in enumerate(sizes)]
    projections = [nm.Projection(f"l{i}", f"l{i + 1}", nm.Dense(sizes[i], sizes[i + 1]), b) for i, b in enumerate(bits)]
    return nm.Network("pilotnet_head", layers, projections)


def test_vendor_rule_gives_the_cores_of_the_public_pilotnet_log():
    # 100 neurons of 2560 inputs, 4 bits: 66 560 words in one slice, ceil(66 560 / 12 000) = 6;
    # chunks of 17 take 12 800 words, ceil(12 800 / 12 000) = 2, so 12; chunks of 9 take 2560 * 3 = 7680.
    # The log prints 12, 1, 1, 1 cores; the mean of its 12 cores is (11 * 7680 + 1 * 2560) / 12 = 7253 words.
    assert vendor(pilotnet_head(), nm.load_system("loihi2")) == ([1, 12, 1, 1, 1], ())
    partitioner = partitioner_for(pilotnet_head(), nm.load_system("loihi2"))
    tried = [partitioner.vendor_chunks(layer) for layer in range(1, 5)]
    # The violations that the log prints, and its words per core, output first 10, 150, 1500, 7253.
    assert [[words.max() for words in cuts[:-1]] for cuts in tried] == [[66_560, 12_800], [], [], []]
    assert [int(cuts[-1].mean()) for cuts in tried] == [7253, 1500, 150, 10]


def test_weight_widths_of_the_public_pilotnet_file_are_those_of_the_log(networks_folder):
    import h5py

    with h5py.File(networks_folder / "pilotnet_sdnn.net") as f:
        weights = [f["layer"][str(i)]["weight"][()] for i in (7, 8, 9, 10)]
    assert [w.shape for w in weights] == [(100, 2560), (50, 100), (10, 50), (1, 10)]
    # Any width that gives the same words is as good: those of the file are at most those that `pilotnet_head` has.
    network = pilotnet_head()
    projections = [replace(p, weight_bits=weight_bits_of(w)) for p, w in zip(network.projections, weights, strict=True)]
    partitioner = partitioner_for(replace(network, projections=tuple(projections)), nm.load_system("loihi2"))
    tried = [partitioner.vendor_chunks(layer) for layer in range(1, 5)]
    assert [[words.max() for words in cuts[:-1]] for cuts in tried] == [[66_560, 12_800], [], [], []]
    assert [int(cuts[-1].mean()) for cuts in tried] == [7253, 1500, 150, 10]


def test_vendor_rule_takes_the_minimum_where_it_asks_for_too_many_cores():
    # As above it asks for 1 + 12 + 1 + 1 + 1 = 16 cores. Chunks of up to 15 neurons take ceil((15 * 16 + 16) / 64) = 4
    # words a row, 10 240 in all, chunks of 16 take 5, 12 800: ceil(100 / 15) = 7 slices are the fewest.
    counts, notes = vendor(pilotnet_head(), nm.mesh_system(15, 1))
    assert counts == [1, 7, 1, 1, 1]
    assert len(notes) == 1
    assert "asks for 16 cores of 15; minimum partition taken" in notes[0]


def test_vendor_rule_multiplies_until_it_fits_and_ends_with_a_short_chunk():
    # Neurons 0, 1, 2 take 4 words each, a core holds 8. One slice: 12 -> 2 slices {0-4}: 12 -> 4 slices {0-2}: 12 -> 8
    # slices, chunks of ceil(10 / 8) = 2: {0 1} 8, {2 3} 4, ...; that makes 5 chunks.
    assert vendor(fan_in_network([4, 4, 4] + [0] * 7), nm.mesh_system(4, 4, synapse_words=8)) == ([1, 5], ())


def test_vendor_rule_multiplies_for_neurons_too():
    # 20 sources, 3 a core: ceil(20 / 3) = 7 slices, chunks of ceil(20 / 7) = 3, the last one of 2
    counts, notes = vendor(fan_in_network([1, 1]), nm.mesh_system(4, 4, neurons=3))
    assert counts == [7, 1]
    assert notes == ()


def test_vendor_rule_moves_on_where_the_even_cut_does_not_fit():
    # Neurons 8 and 9 take 8 words each, a core holds 8. One slice: 16 -> 2 {5-9}: 16 -> 4 chunks of 3: {6 7 8} {9} fit.
    # Cut evenly 4 slices are 3, 3, 2, 2 and {8 9} does not fit, nor in 5; 6 slices end with {8} {9}.
    counts, notes = vendor(fan_in_network([0] * 8 + [8, 8]), nm.mesh_system(4, 4, synapse_words=8))
    assert counts == [1, 6]
    assert notes == ("'target' moved to 6 slices, which fit when cut evenly",)


def test_vendor_rule_starts_with_one_slice():
    assert vendor(nm.sparse_mlp([30, 40, 20], 0.2), nm.load_system("loihi2")) == ([1, 1, 1], ())


def vendor_chunks(network, system, layer):
    """Return the vendor's number of chunks for one layer, by its rule as docs/model.md words it."""
    size, k = network.layers[layer].size, 1
    while True:
        chunk = math.ceil(size / k)
        words = [words_of_slice(network, layer, start, start + chunk) for start in range(0, size, chunk)]
        factor = max(math.ceil(max(words) / system.synapse_words), math.ceil(chunk / system.neurons_per_core))
        if factor <= 1:
            return len(words)
        k *= factor


def test_vendor_rule_equals_plain_python_wherever_two_heavy_neurons_are():
    system = nm.mesh_system(11, 1, synapse_words=8)
    moves = 0
    for network in two_heavy(10):
        counts, notes = Partitioner(network, system).vendor_slice_counts()
        asked = vendor_chunks(network, system, 1)
        expected = next(k for k in range(asked, 11) if fits_by_hand(network, system, 1, k))
        assert counts.tolist() == [1, expected]
        assert len(notes) == (expected != asked)
        moves += expected != asked
    assert moves > 0


@given(seeds)
def test_vendor_partition_always_fits(random_network, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    capacities = {"synapse_words": int(rng.integers(40, 150)), "neurons": int(rng.integers(2, 12))}
    partitioner = Partitioner(network, nm.mesh_system(8, 6, **capacities))
    counts, notes = partitioner.vendor_slice_counts()
    assert all(partitioner.fits[i, k] for i, k in enumerate(counts))
    assert counts.sum() <= partitioner.n_cores
    assert (counts >= partitioner.minimum).all()
    assert all(isinstance(note, str) and note for note in notes)


# ------------------------------------------------------------------------------------------------------ core graphs


def oracle_graph(network, counts):
    dendops, synops, reads, sent = analytic._count(network, nm.Mapping(counts, range(sum(counts))))
    return dendops, synops, reads, sent


@given(seeds)
def test_core_graph_equals_the_oracle(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), nm.mesh_system(6, 5)
    counts = random_mapping(rng, network, system).cores_per_layer
    partitioner = Partitioner(network, system)
    graph = partitioner.core_graph(counts)
    dendops, synops, reads, sent = oracle_graph(network, counts)
    assert graph.cores_per_layer == counts
    assert graph.n_slices == sum(counts)
    assert graph.layer_names == network.layer_names
    assert (graph.steps_per_inference, graph.depth) == (network.steps_per_inference, network.depth)
    np.testing.assert_allclose(graph.dendops, dendops, rtol=1e-12)
    np.testing.assert_allclose(graph.synops, synops, rtol=1e-12)
    np.testing.assert_allclose(graph.synmem_reads, reads, rtol=1e-12)
    pairs = list(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert dict(zip(pairs, graph.messages, strict=True)) == pytest.approx(sent, rel=1e-12)
    first = np.cumsum([0, *counts])
    for i, p in enumerate(network.projections):
        a, b = network.layer_index[p.source], network.layer_index[p.target]
        block = messages(partitioner, i, counts[a], counts[b])
        expected = [[sent.get((first[a] + s, first[b] + t), 0.0) for t in range(counts[b])] for s in range(counts[a])]
        np.testing.assert_allclose(block, expected, rtol=1e-12, atol=0)


def messages(partitioner, projection, k_source, k_target):
    """The cached block of messages from slice to slice, (k_source, k_target)."""
    start = partitioner._block(projection, k_source, k_target)
    return partitioner._pool[start : start + k_source * k_target].reshape(k_source, k_target).copy()


def test_messages_of_the_chain_by_hand(chain):
    partitioner = Partitioner(chain, nm.mesh_system(4, 4))
    # input 0 (0.5) -> hidden 0, 2; input 1 (0.25) -> hidden 1
    assert messages(partitioner, 0, 1, 1).tolist() == [[0.75]]
    assert messages(partitioner, 0, 2, 2).tolist() == [[0.5, 0.5], [0.25, 0.0]]
    # hidden (0.125, 0, 1) in slices {0, 1} and {2}, every one to both outputs: one message per core, not per synapse
    assert messages(partitioner, 1, 2, 1).tolist() == [[0.125], [1.0]]
    assert messages(partitioner, 1, 2, 2).tolist() == [[0.125, 0.125], [1.0, 1.0]]


def graph_lists(graph):
    return [x.tolist() for x in (graph.dendops, graph.synops, graph.synmem_reads, graph.source, graph.target)] + [
        graph.messages.tolist()
    ]


@pytest.mark.parametrize("seed", range(5))
def test_dropping_the_cache_changes_nothing(random_network, random_mapping, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), nm.mesh_system(6, 5)
    all_counts = [random_mapping(rng, network, system).cores_per_layer for _ in range(8)]
    kept = Partitioner(network, system)
    expected = [graph_lists(kept.core_graph(counts)) for counts in all_counts]
    together = kept.core_graphs(np.array(all_counts))
    monkeypatch.setattr(partitioner_module, "CACHE_BYTES", 0)
    dropping = Partitioner(network, system)
    for _ in range(2):
        assert [graph_lists(dropping.core_graph(counts)) for counts in all_counts] == expected
    for a, b in zip(dropping.core_graphs(np.array(all_counts)), together, strict=True):
        assert a.tolist() == b.tolist()


def test_the_cache_stays_near_its_limit(monkeypatch):
    network, system = nm.sparse_mlp([300, 300, 300], 0.1), nm.mesh_system(8, 8)
    limit = 200_000
    monkeypatch.setattr(partitioner_module, "CACHE_BYTES", limit)
    partitioner = Partitioner(network, system)
    largest, dropped, before = 0, 0, 0
    for k in range(1, 60):
        partitioner.core_graphs(np.array([[k, k, 1], [1, k, k]]))
        largest = max(largest, partitioner._cached_bytes)
        dropped += partitioner._cached_bytes < before
        before = partitioner._cached_bytes
    assert dropped >= 3
    # beyond the limit by what one call adds: two reach tables of 300 x 60, four blocks of 60 x 60 doubles, and loads
    assert limit < largest < limit + 2 * 300 * 60 + 4 * 8 * 60 * 60 + 10_000


def test_no_reach_table_is_kept_from_the_search_for_the_fewest_cores():
    partitioner = Partitioner(nm.sparse_mlp([200, 200], 0.5), nm.mesh_system(8, 8, synapse_words=1000))
    assert partitioner.minimum[1] > 1
    assert partitioner._cached_bytes == 0


@pytest.mark.parametrize("seed", range(10))
def test_window_words_equal_the_largest_of_all_windows(seed):
    rng = np.random.default_rng(seed)
    dense = rng.random((7, 15)) < 0.4
    indptr = np.concatenate([[0], np.cumsum(dense.sum(axis=1))])
    sparse, bits = nm.Sparse(7, 15, indptr, np.nonzero(dense)[1]), int(rng.integers(1, 33))
    for window in (1, 2, 5, 15):
        counts = [dense[:, i : i + window].sum(axis=1) for i in range(15 - window + 1)]
        words = [sum(math.ceil((s * (bits + 12) + 16) / 64) for s in c.tolist() if s) for c in counts]
        assert sparse.window_words(bits, window) == max(words)
        assert nm.Dense(7, 15).window_words(bits, window) == 7 * math.ceil((window * (bits + 12) + 16) / 64)


def test_many_blocks_outgrow_the_first_pool_and_stay_right():
    network, system = nm.sparse_mlp([90, 90], 0.2, seed=3), nm.mesh_system(14, 14)
    full = Partitioner(network, system)
    first = messages(full, 0, 3, 5)
    for k in range(40, 91):  # 51 blocks of at least 40 * 40 take more than the 65 536 numbers of the first pool
        messages(full, 0, k, k)
    assert full._pool.size > 2**16
    assert messages(full, 0, 3, 5).tolist() == first.tolist()
    for k in (40, 61, 90):
        assert messages(full, 0, k, k).tolist() == messages(Partitioner(network, system), 0, k, k).tolist()


def test_core_graphs_of_several_partitions_hold_the_extremes_and_sums(chain):
    partitioner = Partitioner(chain, nm.mesh_system(4, 4))
    graphs = partitioner.core_graphs(np.array([[1, 1, 1], [1, 2, 2]]))
    load = dict(zip(LOADS, graphs.loads.T.tolist(), strict=True))
    assert load["dendops_max"] == [3.0, 2.0]  # hidden; then input, hidden {0, 1}
    assert load["dendops"] == [7.0, 7.0]
    # hidden 0.5 * 2 + 0.25 = 1.25, output 1.125 * 2 = 2.25; cut in two hidden is 0.75 and 0.5, output 1.125 each
    assert load["synops_max"] == [2.25, 1.125]
    assert load["synops"] == [3.5, 3.5]
    # a word per row: hidden 0.75 in one slice, 0.75 + 0.5 in two; output 1.125, then 1.125 each
    assert load["synmem_reads"] == [0.75 + 1.125, 1.25 + 2.25]
    # input 0.75 -> hidden 1.125 -> output; in the second input sends 0.75 + 0.5, hidden {2} sends 1 + 1
    assert load["sent_max"] == [1.125, 2.0]
    assert load["received_max"] == [1.125, 1.125]
    assert load["messages"] == [1.875, 1.25 + 2.25]
    assert graphs.edge_start.tolist() == [0, 2, 2 + 2 + 4]


@pytest.mark.parametrize("seed", range(6))
def test_metrics_do_not_depend_on_what_is_evaluated_together(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    system = nm.mesh_system(3, 2, 2, chips_x=2, chips_y=2)
    mappings = [random_mapping(rng, network, system) for _ in range(25)]
    together = AnalyticEvaluator(Partitioner(network, system), system).evaluate(stack(mappings))
    shared = AnalyticEvaluator(Partitioner(network, system), system)
    for i in rng.permutation(len(mappings)):
        alone = shared.evaluate(stack([mappings[i]]))
        assert {key: column[i] for key, column in together.items()} == {key: c[0] for key, c in alone.items()}
    half = AnalyticEvaluator(Partitioner(network, system), system).evaluate(stack(mappings[::-2]))
    for key, column in half.items():
        assert column.tolist() == together[key][::-2].tolist()


def test_metrics_of_a_deep_network_do_not_depend_on_what_is_evaluated_together(random_mapping):
    rng = np.random.default_rng(0)
    network, system = nm.sparse_mlp([20] * 17, 0.3, steps_per_inference=3), nm.mesh_system(6, 4, 2, chips_y=2)
    mappings = [random_mapping(rng, network, system) for _ in range(40)]
    evaluator = AnalyticEvaluator(Partitioner(network, system), system)
    together = evaluator.evaluate(stack(mappings))
    for i, mapping in enumerate(mappings):
        assert {key: column[i] for key, column in together.items()} == {
            key: column[0] for key, column in evaluator.evaluate(stack([mapping])).items()
        }


# ------------------------------------------------------------------------------------------------ fixed core graphs


def test_directed_graph_by_hand():
    G = nx.DiGraph()
    G.add_node("b", dendops=3, synops=1.5)
    G.add_node("a", synmem_reads=2)
    G.add_edge("a", "b", messages=4)
    G.add_edge("b", "b", messages=0.5)
    graph = nm.CoreGraph.from_networkx(G, name="tiny")
    assert graph.name == "tiny"
    assert graph.layer_names == ("b", "a")  # in node order
    assert graph.cores_per_layer == (1, 1)
    assert (graph.steps_per_inference, graph.depth, graph.topological_order) == (1, 1, (0, 1))
    assert graph.dendops.tolist() == [3.0, 0.0]
    assert graph.synops.tolist() == [1.5, 0.0]
    assert graph.synmem_reads.tolist() == [0.0, 2.0]
    assert sorted(zip(graph.source, graph.target, graph.messages, strict=True)) == [(0, 0, 0.5), (1, 0, 4.0)]


def test_undirected_edges_carry_their_messages_both_ways():
    G = nx.Graph()
    G.add_edge(0, 1, messages=2.0)
    G.add_edge(1, 1, messages=7.0)
    graph = nm.CoreGraph.from_networkx(G)
    edges = sorted(zip(graph.source.tolist(), graph.target.tolist(), graph.messages.tolist(), strict=True))
    assert edges == [(0, 1, 2.0), (1, 0, 2.0), (1, 1, 7.0)]


@pytest.mark.parametrize("kind", [nx.MultiGraph, nx.MultiDiGraph])
def test_parallel_edges_add_up(kind):
    G = kind()
    G.add_nodes_from([0, 1])
    for messages in (1.0, 0.25, 0.0):
        G.add_edge(0, 1, messages=messages)
    graph = nm.CoreGraph.from_networkx(G)
    edges = sorted(zip(graph.source.tolist(), graph.target.tolist(), graph.messages.tolist(), strict=True))
    assert edges == [(0, 1, 1.25)] + ([(1, 0, 1.25)] if kind is nx.MultiGraph else [])


def test_edges_without_messages_to_send_are_left_out():
    G = nx.DiGraph()
    G.add_edge(0, 1, messages=0)
    graph = nm.CoreGraph.from_networkx(G)
    assert graph.source.size == graph.target.size == graph.messages.size == 0


@pytest.mark.parametrize(
    ("node", "edge", "message"),
    [
        ({}, {}, r"core graph, edge 0 -> 1, messages: expected a finite number >= 0, got None"),
        ({}, {"messages": -1}, r"edge 0 -> 1, messages: expected a finite number >= 0, got -1"),
        ({}, {"messages": float("nan")}, "edge 0 -> 1, messages: expected a finite number >= 0, got nan"),
        ({}, {"messages": float("inf")}, "edge 0 -> 1, messages: expected a finite number >= 0, got inf"),
        ({}, {"messages": "many"}, "edge 0 -> 1, messages: expected a finite number >= 0, got 'many'"),
        ({"synops": -2}, {"messages": 1}, "core graph, node 0, synops: expected a finite number >= 0, got -2"),
        ({"dendops": None}, {"messages": 1}, "core graph, node 0, dendops: expected a finite number >= 0, got None"),
    ],
)
def test_wrong_numbers_of_a_graph_are_named(node, edge, message):
    G = nx.DiGraph()
    G.add_node(0, **node)
    G.add_edge(0, 1, **edge)
    with pytest.raises(nm.InputError, match=message):
        nm.CoreGraph.from_networkx(G)


def test_empty_graph_is_refused():
    with pytest.raises(nm.InputError, match="core graph: expected at least one node, got an empty graph"):
        nm.CoreGraph.from_networkx(nx.DiGraph())


def test_graph_larger_than_the_system_is_refused():
    graph = nm.CoreGraph.from_networkx(nx.empty_graph(4), name="four")
    with pytest.raises(nm.InputError, match="core graph 'four' has 4 slices, system 'mesh' has 3 usable cores; take a"):
        partitioner_for(graph, nm.mesh_system(2, 2, masked_cores=[1]))


def test_fixed_partitioner_has_one_partition():
    graph = nm.CoreGraph.from_networkx(nx.empty_graph(3))
    partitioner = partitioner_for(graph, nm.mesh_system(2, 2))
    assert isinstance(partitioner, FixedPartitioner)
    assert partitioner.minimum.tolist() == partitioner.maximum.tolist() == [1, 1, 1]
    assert [np.flatnonzero(row).tolist() for row in partitioner.fits] == [[1], [1], [1]]
    assert partitioner.core_graph((1, 1, 1)) is graph
    counts, notes = partitioner.vendor_slice_counts()
    assert (counts.tolist(), notes) == ([1, 1, 1], ())


def test_graph_digest_counts_content_not_names():
    def make(first="a", **attributes):
        G = nx.DiGraph()
        G.add_node(first, dendops=attributes.get("dendops", 1))
        G.add_edge(first, "z", messages=attributes.get("messages", 2))
        return nm.CoreGraph.from_networkx(G, name=attributes.get("name", "g"))

    base = make()
    assert make("b", name="other") == base
    assert make(dendops=2) != base
    assert make(messages=3) != base
    assert base != 1
    assert len({make(), base}) == 1


@pytest.mark.parametrize("seed", range(5))
def test_core_graph_of_a_partition_may_be_placed_by_itself(random_network, random_mapping, seed):
    rng = np.random.default_rng(seed)
    network, system = random_network(rng), nm.mesh_system(3, 3, 2, chips_x=2)
    mapping = random_mapping(rng, network, system)
    partitioner = Partitioner(network, system)
    graph = partitioner.core_graph(mapping.cores_per_layer)
    whole = AnalyticEvaluator(partitioner, system).evaluate(stack([mapping]))
    fixed = FixedPartitioner(graph, system)
    graphs = fixed.core_graphs(np.array([mapping.cores_per_layer]))
    assert graphs.edge_start.tolist() == [0, graph.source.size]
    assert graphs.messages.tolist() == graph.messages.tolist()
    alone = AnalyticEvaluator(fixed, system).evaluate(stack([mapping]))
    for key, column in whole.items():
        if key == "bottleneck":
            assert column.tolist() == alone[key].tolist()
        else:
            np.testing.assert_allclose(alone[key], column, rtol=1e-12)
