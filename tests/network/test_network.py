import dataclasses
import itertools
import json
import os
import re
from typing import NamedTuple

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.files import whole_file
from neuromap_moo.network.connectivity import row_words
from neuromap_moo.network.counts import count_rows
from neuromap_moo.network.files import load_npz, save_network
from neuromap_moo.oracles import analytic


def layer(name, *activity):
    return nm.Layer(name, len(activity), "lif", activity)


def network_of(n_layers, pairs):
    """One neuron per layer, a dense projection for each pair of layer numbers."""
    layers = [layer(f"l{i}", 0.5) for i in range(n_layers)]
    return nm.Network("graph", layers, [nm.Projection(f"l{a}", f"l{b}", nm.Dense(1, 1)) for a, b in pairs])


def sparse_from(matrix):
    matrix = np.asarray(matrix, dtype=bool)
    indptr = np.concatenate([[0], np.cumsum(matrix.sum(axis=1))])
    return nm.Sparse(*matrix.shape, indptr, np.nonzero(matrix)[1])


# ------------------------------------------------------------------------------------------------------ validation


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1], [0], r"indptr of 3 ascending offsets from 0, got shape \(2,\)"),
        ([1, 1, 1], [], "indptr of 3 ascending offsets from 0"),
        ([0, 2, 1], [0], "indptr of 3 ascending offsets from 0"),
        ([[0, 1, 1]], [0], r"got shape \(1, 3\); build it with scipy"),
        ([0, 1, 2], [0], "expected 2 indices as indptr says, got 1"),
        ([0, 1, 2], [0, 3], r"target indices in 0\.\.2, got 0\.\.3"),
        ([0, 1, 2], [-1, 2], r"target indices in 0\.\.2, got -1\.\.2"),
        ([0, 2, 2], [2, 1], r"ascending and unique; call sum_duplicates\(\)"),
        ([0, 0, 2], [1, 1], r"ascending and unique; call sum_duplicates\(\)"),
    ],
)
def test_sparse_refuses_what_is_no_sorted_csr(indptr, indices, message):
    with pytest.raises(nm.InputError, match=message):
        nm.Sparse(2, 3, indptr, indices)


def test_sparse_accepts_exactly_the_sorted_unique_rows_in_every_tiny_case():
    accepted = 0
    for n in range(4):
        for indices in itertools.product(range(2), repeat=n):
            for inner in itertools.product(range(n + 1), repeat=2):
                offsets = [0, *inner, n]
                rows = [indices[a:b] for a, b in itertools.pairwise(offsets)]
                good = all(a <= b for a, b in itertools.pairwise(offsets)) and all(
                    list(row) == sorted(set(row)) for row in rows
                )
                if good:
                    assert nm.Sparse(3, 2, offsets, indices).n_synapses == n
                    accepted += 1
                else:
                    with pytest.raises(nm.InputError, match="sparse connectivity: expected"):
                        nm.Sparse(3, 2, offsets, indices)
    # Each of three rows is one of {}, {0}, {1}, {0, 1}; three rows hold at most 3 synapses together in
    # 4^3 - C(6, 4) - C(6, 5) - C(6, 6) = 64 - 15 - 6 - 1 = 42 of the cases.
    assert accepted == 42


@pytest.mark.parametrize("indices", [[2**32], [0.5]])
def test_sparse_refuses_indices_that_a_conversion_would_change(indices):
    with pytest.raises(nm.InputError, match="indices"):
        nm.Sparse(1, 4, [0, 1], np.array(indices))


def test_sparse_refuses_offsets_that_a_conversion_would_change():
    with pytest.raises(nm.InputError, match="indptr"):
        nm.Sparse(1, 4, [0, 1.7], [2])


@pytest.mark.parametrize(
    ("size", "activity", "message"),
    [
        (0, [], "layer 'x', size: expected a whole number >= 1, got 0"),
        (2, [0.1], r"activity of shape \(2,\), got \(1,\); give one value per neuron"),
        (2, 0.1, r"activity of shape \(2,\), got \(\)"),
        (2, [[0.1, 0.1]], r"activity of shape \(2,\), got \(1, 2\)"),
        (2, [0.1, np.nan], "layer 'x': expected activity finite and >= 0"),
        (2, [0.1, np.inf], r"finite and >= 0, got 0\.1\.\.inf"),
        (2, [-0.5, 0.1], r"finite and >= 0, got -0\.5\.\.0\.1"),
    ],
)
def test_layer_refuses_wrong_activity(size, activity, message):
    with pytest.raises(nm.InputError, match=message):
        nm.Layer("x", size, "lif", activity)


@pytest.mark.parametrize("bits", [-1, 33])
def test_weight_bits_out_of_range_are_refused(bits):
    with pytest.raises(nm.InputError, match=f"'a' -> 'b'.*weight_bits.*got {bits}"):
        nm.Projection("a", "b", nm.Dense(1, 1), bits)


def test_weight_bits_at_both_ends_of_the_range_are_accepted():
    assert [nm.Projection("a", "b", nm.Dense(1, 1), bits).weight_bits for bits in (0, 32)] == [0, 32]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "network 'n': expected at least one layer"),
        ({"layers": (layer("a", 1), layer("a", 1))}, r"unique layer names, got \['a', 'a'\]"),
        ({"steps_per_inference": 0}, r"network 'n'.*steps_per_inference.*>= 1, got 0"),
        ({"projections": (nm.Projection("a", "c", nm.Dense(2, 3)),)}, "'a' -> 'c': no layer 'c'; the layers are a, b"),
        ({"projections": (nm.Projection("c", "b", nm.Dense(2, 3)),)}, "'c' -> 'b': no layer 'c'; the layers are a, b"),
        ({"projections": (nm.Projection("a", "b", nm.Dense(1, 3)),)}, "connectivity for 2 neurons of 'a', got 1"),
        ({"projections": (nm.Projection("a", "b", nm.Dense(2, 2)),)}, "connectivity for 3 neurons of 'b', got 2"),
        (
            {"projections": (nm.Projection("a", "b", nm.Dense(2, 3)),) * 2},
            "one projection per pair of layers, or several.*got 2",
        ),
    ],
)
def test_network_refuses_what_does_not_fit_together(change, message):
    given = {"name": "n", "layers": (layer("a", 1, 1), layer("b", 1, 1, 1)), "projections": ()}
    with pytest.raises(nm.InputError, match=message):
        nm.Network(**(given | change))


def test_both_directions_between_two_layers_are_two_projections():
    assert len(network_of(2, [(0, 1), (1, 0)]).projections) == 2


def test_sizes_of_the_chain(chain):
    assert chain.layer_names == ("input", "hidden", "output")
    assert chain.n_neurons == 2 + 3 + 2
    assert chain.n_synapses == 3 + 3 * 2


def test_arrays_are_copies_that_cannot_be_written():
    activity, indptr, indices = np.array([0.5, 0.5]), np.array([0, 1, 1]), np.array([0])
    made, connectivity = nm.Layer("a", 2, "lif", activity), nm.Sparse(2, 1, indptr, indices)
    activity[0] = indptr[1] = indices[0] = 9
    assert made.activity[0] == 0.5
    assert connectivity.indptr[1] == 1
    assert connectivity.indices[0] == 0
    for array in (made.activity, connectivity.indptr, connectivity.indices):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_fields_cannot_be_assigned(chain):
    for item, field in ((chain, "name"), (chain.layers[0], "size"), (chain.projections[0], "weight_bits")):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{field}'"):
            setattr(item, field, 1)


# ---------------------------------------------------------------------------------------------------------- counts


class Counts(NamedTuple):
    reach: np.ndarray
    synops: np.ndarray
    synmem_reads: np.ndarray
    received: np.ndarray
    words: np.ndarray


def counts_of(connectivity, activity, weight_bits, bounds):
    rows, row = connectivity.rows(bounds), connectivity.row_of_source
    reach = np.zeros((rows.start.size - 1, bounds.size - 1), dtype=bool)
    for r in range(rows.start.size - 1):
        reach[r, rows.slices[rows.start[r] : rows.start[r + 1]]] = True
    words_of = row_words(np.arange(connectivity.n_target + 1), weight_bits)
    per_step = count_rows(*rows, np.bincount(row, activity, reach.shape[0]), words_of, bounds.size - 1)
    return Counts(reach[row], *per_step, connectivity.words(weight_bits, bounds))


def test_counts_of_a_sparse_projection_by_hand():
    # Four sources, five targets in slices {0, 1, 2} and {3, 4}; 8 weight bits, so s synapses take
    # ceil((20 s + 16) / 64) words: 1 -> 1, 2 -> 1, 3 -> 2.
    matrix = [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    counts = counts_of(sparse_from(matrix), np.array([0.5, 2.0, 0.25, 9.0]), 8, np.array([0, 3, 5]))
    assert counts.reach.tolist() == [[True, False], [True, True], [False, True], [False, False]]
    # 0.5 * 3 + 2 * 1 = 3.5 and 2 * 2 + 0.25 * 1 = 4.25
    assert counts.synops.tolist() == [3.5, 4.25]
    # 0.5 * 2 + 2 * 1 = 3 and 2 * 1 + 0.25 * 1 = 2.25
    assert counts.synmem_reads.tolist() == [3.0, 2.25]
    # 0.5 + 2 and 2 + 0.25
    assert counts.received.tolist() == [2.5, 2.25]
    # 2 + 1 and 1 + 1
    assert counts.words.tolist() == [3, 2]


def test_counts_of_a_dense_projection_by_hand():
    # Two sources of activity 0.5 and 1.5, slices of 3 and 1 targets, 4 weight bits: ceil((3*16 + 16)/64) = 1 word and
    # ceil((1*16 + 16)/64) = 1 word per row.
    counts = counts_of(nm.Dense(2, 4), np.array([0.5, 1.5]), 4, np.array([0, 3, 4]))
    assert counts.reach.all()
    assert counts.reach.shape == (2, 2)
    assert counts.synops.tolist() == [6.0, 2.0]
    assert counts.synmem_reads.tolist() == [2.0, 2.0]
    assert counts.words.tolist() == [2, 2]


bounds_of = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(lambda sizes: np.cumsum([0, *sizes]))
activities = st.lists(st.floats(0, 4), min_size=1, max_size=8).map(np.array)


@given(activity=activities, weight_bits=st.integers(1, 32), bounds=bounds_of)
def test_dense_equals_sparse_of_the_full_matrix(activity, weight_bits, bounds):
    n, m = activity.size, int(bounds[-1])
    dense, sparse = nm.Dense(n, m), sparse_from(np.ones((n, m)))
    assert dense.n_synapses == sparse.n_synapses
    a, b = (counts_of(c, activity, weight_bits, bounds) for c in (dense, sparse))
    assert a.reach.tolist() == b.reach.tolist()
    assert a.words.tolist() == b.words.tolist()
    np.testing.assert_allclose(a.synops, b.synops, rtol=1e-12)
    np.testing.assert_allclose(a.synmem_reads, b.synmem_reads, rtol=1e-12)


@given(activity=activities, weight_bits=st.integers(1, 32), bounds=bounds_of, seed=st.integers(0, 2**32 - 1))
def test_sparse_counts_equal_loops_over_every_synapse(activity, weight_bits, bounds, seed):
    matrix = np.random.default_rng(seed).random((activity.size, bounds[-1])) < 0.4
    counts = counts_of(sparse_from(matrix), activity, weight_bits, bounds)
    for c, (start, stop) in enumerate(itertools.pairwise(bounds)):
        synapses = [int(row[start:stop].sum()) for row in matrix]
        words = [-((s * (weight_bits + 12) + 16) // -64) if s else 0 for s in synapses]
        assert counts.reach[:, c].tolist() == [s > 0 for s in synapses]
        assert counts.words[c] == sum(words)
        assert counts.synops[c] == pytest.approx(sum(a * s for a, s in zip(activity, synapses, strict=True)))
        assert counts.synmem_reads[c] == pytest.approx(sum(a * w for a, w in zip(activity, words, strict=True)))


# --------------------------------------------------------------------------------------------------- depth, order


@pytest.mark.parametrize(
    ("n_layers", "pairs", "depth", "order"),
    [
        (1, [], 1, (0,)),
        (3, [(0, 1), (1, 2)], 2, (0, 1, 2)),
        # declared backwards
        (3, [(2, 1), (1, 0)], 2, (2, 1, 0)),
        # skip connection 0 -> 2: the longer way counts
        (3, [(0, 1), (1, 2), (0, 2)], 2, (0, 1, 2)),
        # self loop on 1: 0 -> 1, once round, 1 -> 2
        (3, [(0, 1), (1, 1), (1, 2)], 3, (0, 1, 2)),
        (1, [(0, 0)], 1, (0,)),
        # cycle of 1 and 2: 0 -> 1, twice to go round, -> 3
        (4, [(0, 1), (1, 2), (2, 1), (2, 3)], 4, (0, 1, 2, 3)),
        # the same cycle declared as 2 and 0, entered from 1, left to 3
        (4, [(1, 2), (2, 0), (0, 2), (0, 3)], 4, (1, 0, 2, 3)),
        # two parts that are not joined
        (4, [(0, 1), (2, 3)], 1, (0, 1, 2, 3)),
    ],
    ids=["one", "chain", "backwards", "skip", "self loop", "only a self loop", "cycle", "cycle inside", "two parts"],
)
def test_depth_and_order_by_hand(n_layers, pairs, depth, order):
    network = network_of(n_layers, pairs)
    assert network.depth == depth
    assert network.topological_order == order


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_depth_and_order_of_any_graph(case):
    n, pairs = case
    network = network_of(n, sorted(pairs))
    assert network.depth == analytic._depth(network)
    order = network.topological_order
    assert sorted(order) == list(range(n))
    reach = nx.transitive_closure(nx.DiGraph(pairs), reflexive=False)
    for a, b in pairs:
        if not reach.has_edge(b, a):
            assert order.index(a) < order.index(b)
        elif a != b:  # layers of one cycle keep their order
            assert (order.index(a) < order.index(b)) == (a < b)


# ---------------------------------------------------------------------------------------------------------- digest


def changed_networks():
    """Every way of changing one thing in a small network, by name; "name" is the one that does not count."""
    a, b = layer("a", 0.5, 0.25), layer("b", 1.0, 0.0)
    p = nm.Projection("a", "b", nm.Sparse(2, 2, [0, 1, 2], [0, 1]), 8)
    q = nm.Projection("b", "b", nm.Dense(2, 2), 8)
    base = nm.Network("n", (a, b), (p, q), 3)
    change = dataclasses.replace
    full = nm.Sparse(2, 2, [0, 2, 4], [0, 1, 0, 1])
    return base, {
        "steps": change(base, steps_per_inference=4),
        "kind": change(base, layers=(a, change(b, kind="relu"))),
        "activity": change(base, layers=(layer("a", 0.5, 0.5), b)),
        "activity order": change(base, layers=(layer("a", 0.25, 0.5), b)),
        "layer order": change(base, layers=(b, a)),
        "one layer more": change(base, layers=(a, b, layer("c", 0.5))),
        "layer name": change(base, layers=(change(a, name="c"), b), projections=(change(p, source="c"), q)),
        "no projection": change(base, projections=(p,)),
        "source": change(base, projections=(p, change(q, source="a", target="a"))),
        "weight bits": change(base, projections=(change(p, weight_bits=7), q)),
        "target": change(base, projections=(change(p, connectivity=nm.Sparse(2, 2, [0, 1, 2], [1, 1])), q)),
        "row": change(base, projections=(change(p, connectivity=nm.Sparse(2, 2, [0, 2, 2], [0, 1])), q)),
        "form": change(base, projections=(p, change(q, connectivity=full))),
    }


@pytest.mark.parametrize("part", changed_networks()[1])
def test_digest_changes_with_each_part_of_the_content(part):
    base, changed = changed_networks()
    assert changed[part].digest != base.digest
    assert changed[part] != base


def test_digests_of_all_changes_differ():
    base, changed = changed_networks()
    assert len({base.digest, *(network.digest for network in changed.values())}) == len(changed) + 1


def test_digest_does_not_depend_on_the_name():
    base, _ = changed_networks()
    other = dataclasses.replace(base, name="another")
    assert other.digest == base.digest
    assert other == base
    assert len({other, base}) == 1
    assert base != "n"


def test_numpy_integers_count_as_integers():
    def make(number):
        layers = (nm.Layer("a", number(2), "lif", [0.5, 0.25]),)
        return nm.Network("n", layers, (nm.Projection("a", "a", nm.Dense(number(2), 2), number(8)),), number(3))

    assert make(np.int64).digest == make(int).digest


# ----------------------------------------------------------------------------------------------------------- files


def test_saved_network_is_read_back_equal(chain, tmp_path):
    save_network(chain, tmp_path / "chain.npz")
    back = nm.load_network(tmp_path / "chain.npz")
    assert back == chain
    assert back.digest == chain.digest
    assert back.name == "chain"
    assert [type(p.connectivity) for p in back.projections] == [nm.Sparse, nm.Dense]
    assert back.layers[1].activity.tolist() == [0.125, 0.0, 1.0]


@pytest.mark.parametrize("seed", range(15))
def test_random_networks_are_read_back_equal(random_network, tmp_path, seed):
    network = random_network(np.random.default_rng(seed))
    save_network(network, tmp_path / "network.npz")
    assert load_npz(tmp_path / "network.npz").digest == network.digest


def write_bad(kind, chain, path):
    save_network(chain, path)
    with np.load(path) as data:
        arrays = dict(data)
    meta = json.loads(str(arrays["meta"]))
    if kind == "garbage":
        path.write_bytes(b"this is no zip file")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "npy":
        with open(path, "wb") as f:
            np.save(f, np.arange(3))
    elif kind == "pickled array":
        np.savez(path, **arrays | {"activity_0": np.array([{"a": 1}], dtype=object)})
    elif kind == "pickled meta":
        np.savez(path, **arrays | {"meta": np.array([None], dtype=object)})
    elif kind == "no meta":
        np.savez(path, weights=np.ones(3))
    elif kind == "meta is no JSON":
        np.savez(path, **arrays | {"meta": np.array("{")})
    elif kind == "meta is a list":
        np.savez(path, **arrays | {"meta": np.array("[]")})
    elif kind == "schema":
        np.savez(path, **arrays | {"meta": np.array(json.dumps(meta | {"schema": 99}))})
    elif kind == "missing array":
        del arrays["indices_0"]
        np.savez(path, **arrays)
    elif kind == "unknown layer":
        meta["projections"][0]["target"] = "nowhere"
        np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})
    elif kind == "negative activity":
        np.savez(path, **arrays | {"activity_1": -np.ones(3)})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("garbage", "expected an .npz written by save_network"),
        ("truncated", "expected an .npz written by save_network"),
        ("empty", "the file is empty"),
        ("npy", "expected an .npz written by save_network"),
        ("pickled array", "expected an .npz written by save_network"),
        ("pickled meta", "expected an .npz written by save_network"),
        ("no meta", "expected an .npz written by save_network.*meta"),
        ("meta is no JSON", "expected an .npz written by save_network"),
        ("meta is a list", "expected an .npz written by save_network"),
        ("schema", "expected schema 1, got 99; save it again"),
        ("missing array", "expected an .npz written by save_network.*indices_0"),
        ("unknown layer", "nowhere"),
        ("negative activity", "layer 'hidden': expected activity finite and >= 0"),
    ],
)
def test_broken_file_is_named_with_what_is_wrong(chain, tmp_path, kind, message):
    path = tmp_path / "broken.npz"
    write_bad(kind, chain, path)
    with pytest.raises(nm.InputError, match=re.escape(str(path)) + ".*" + message):
        nm.load_network(path)


def test_every_truncation_is_refused(chain, tmp_path):
    path = tmp_path / "cut.npz"
    save_network(chain, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(nm.InputError, match=r"cut\.npz"):
            nm.load_network(path)


@pytest.mark.slow
def test_every_flipped_byte_is_refused_or_harmless(chain, tmp_path):
    path = tmp_path / "flipped.npz"
    save_network(chain, path)
    whole = path.read_bytes()
    wrong = {}
    for position, mask in itertools.product(range(len(whole)), (0x01, 0xFF)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :])
        try:
            if nm.load_network(path) != chain:
                wrong["read as another network"] = f"{position} ^ {mask:#x}"
        except Exception as error:
            if not isinstance(error, nm.InputError) or "flipped.npz" not in str(error):
                wrong[type(error).__name__] = f"{position} ^ {mask:#x}: {error}"
    assert wrong == {}


def test_saving_writes_no_pickle(chain, tmp_path):
    save_network(chain, tmp_path / "chain.npz")
    with np.load(tmp_path / "chain.npz", allow_pickle=False) as data:
        kinds = {key: data[key].dtype.kind for key in data.files}
    assert "O" not in kinds.values()
    assert {"meta", "activity_0", "indptr_0", "indices_0"} <= set(kinds)


def write_half(path):
    with whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("in the middle")


def test_whole_file_leaves_nothing_behind_when_the_writer_raises(tmp_path):
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(tmp_path / "new.txt")
    assert list(tmp_path.iterdir()) == []


def test_whole_file_keeps_the_old_file_when_the_writer_raises(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(tmp_path / "old.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


def test_whole_file_replaces_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for text in ("first", "second"):
        with whole_file(path) as temporary:
            assert temporary.suffix == ".txt"
            assert temporary.parent == path.parent
            temporary.write_text(text)
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_whole_file_has_the_permissions_of_an_ordinary_file(tmp_path):
    (tmp_path / "ordinary").write_text("")
    with whole_file(tmp_path / "whole") as temporary:
        temporary.write_text("")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_sparse_from_a_matrix_takes_its_non_zeros():
    matrix = np.array([[0, 2.5, 0], [1, 0, -1]])
    for form in (matrix, scipy.sparse.csr_matrix(matrix), scipy.sparse.coo_array(matrix)):
        sparse = nm.Sparse.from_matrix(form)
        assert (sparse.n_source, sparse.n_target) == (2, 3)
        assert sparse.indptr.tolist() == [0, 1, 3]
        assert sparse.indices.tolist() == [1, 0, 2]


def test_a_bare_matrix_as_connectivity_is_refused_with_the_way_out():
    with pytest.raises(nm.InputError, match=r"got ndarray; nm\.Sparse\.from_matrix"):
        nm.Projection("a", "b", np.ones((2, 3)))


def test_networks_are_saved_under_an_ending_that_can_be_read_back(chain, tmp_path):
    with pytest.raises(nm.InputError, match=r"expected an ending \.npz"):
        nm.save_network(chain, tmp_path / "chain.net")
    assert list(tmp_path.iterdir()) == []
