"""Fixed-point neurons by hand; bit by bit against Lava where it is installed: test_lava.py."""

import numpy as np
import pytest
from helpers import cuba, dense, inputs, kind, sdnn, write_net
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate

import neuromap_moo as nm
from neuromap_moo.fixed_point.simulator import (
    Delta,
    Geometry,
    Lif,
    Relay,
    Sigma,
    SigmaDelta,
    Synapses,
    simulate,
    stored_weights,
)


def run(model, *inputs):
    """What one neuron sends for its inputs, timestep by timestep."""
    state = model.start(1, 1)
    return [int(model.step(state, np.array([[a]]))[0, 0]) for a in inputs]


def test_lif_by_hand():
    # u = 1 * 64, halved per step; v loses a quarter of it per step and fires above 2 * 64.
    lif, state = Lif(vth=2, du=2047, dv=1024), None
    state = lif.start(1, 1)
    seen = []
    for a in (1, 1, 1, 0, 0):
        fires = int(lif.step(state, np.array([[a]]))[0, 0])
        seen.append((int(state["u"][0, 0]), int(state["v"][0, 0]), fires))
    # 64; 32+64, 48+96; 48+64, 0+112; 56, 84+56; 28, 0+28
    assert seen == [(64, 64, 0), (96, 0, 1), (112, 112, 0), (56, 0, 1), (28, 28, 0)]


def test_decay_goes_towards_zero_from_both_sides():
    lif = Lif(vth=131_071, du=2047, dv=4096)
    state = lif.start(1, 2)
    lif.step(state, np.array([[1, -1]]))
    for _ in range(6):
        lif.step(state, np.zeros((1, 2), dtype=np.int64))
    assert state["u"].tolist() == [[1, -1]]
    lif.step(state, np.zeros((1, 2), dtype=np.int64))
    assert state["u"].tolist() == [[0, 0]]


def test_currents_wrap_and_voltages_stop_at_24_bits():
    lif = Lif(vth=131_071, du=4095, dv=0)
    state = lif.start(1, 1)
    lif.step(state, np.array([[2**17 + 1]]))  # 2^23 + 64, over the limit
    assert state["u"][0, 0] == -(2**23) + 64
    assert state["v"][0, 0] == -(2**23) + 64
    lif.step(state, np.array([[-100]]))
    assert state["v"][0, 0] == -(2**23) + 1


def test_biases_are_added_in_each_step():
    assert run(Lif(vth=1, du=4095, dv=0, bias=np.array([40])), 0, 0, 0, 0) == [0, 1, 0, 1]  # 40, 80 > 64


def test_delta_sends_what_has_changed_enough_and_keeps_the_rest():
    # Changes 5, 2 and 9: 5 is under the threshold and stays, 7 goes, then 9.
    assert run(Delta(vth=6), 5, 7, 16, 16, 12, 10) == [0, 7, 9, 0, 0, -6]
    assert run(Delta(vth=6, spike_exp=2), 5, 7) == [0, 28]


def test_sigma_delta_adds_up_and_activates():
    # Sums 10, 4, -6: activations 12, 6, 0 with a bias of 2.
    assert run(SigmaDelta(vth=5, bias=np.array([2])), 10, -6, -10) == [12, -6, -6]
    assert run(SigmaDelta(vth=5, bias=np.array([2]), relu=False), 10, -6, -10) == [12, -6, -10]
    assert run(SigmaDelta(vth=1, state_exp=2), 4, 3, 5) == [1, 0, 2]  # sent without two bits, which are lost
    assert run(Sigma(), 1, 2, -3) == [1, 3, 0]


def test_messages_take_a_timestep():
    a, b = np.array([1, 2]), np.array([3])
    synapses = [Synapses(a, b, np.array([[3, -1]]), graded=False), Synapses(b, b, np.array([[1]]))]
    spikes = np.array([[[1, 0], [1, 1], [0, 0], [0, 0]]])
    sent = list(simulate([(a, Relay()), (b, Relay())], synapses, {0: spikes}))
    assert [s[3, 0] for s in sent] == [0, 3, 2 + 3, 0 + 5]
    assert all(s[0, 0] == 0 for s in sent)


def test_a_place_that_nobody_fills_counts_as_silent():
    a, b = np.array([1]), np.array([2])
    sent = list(
        simulate(
            [(a, Relay()), (b, Relay())], [Synapses(np.array([0, 1]), b, np.array([[5, 7]]))], {0: np.ones((1, 2, 1))}
        )
    )
    assert sent[1][2, 0] == 7


@given(
    seed=st.integers(0, 1000),
    groups=st.integers(1, 2),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_convolutions_equal_correlation_channel_by_channel(seed, groups, stride, padding, dilation):
    rng = np.random.default_rng(seed)
    x = rng.integers(-50, 50, (2 * groups, 6, 7, 3))
    weights = rng.integers(-100, 100, (3 * groups, 2, 2, 3))
    spread = np.zeros((*weights.shape[:2], dilation[0] + 1, 2 * dilation[1] + 1), dtype=np.int64)
    spread[:, :, :: dilation[0], :: dilation[1]] = weights
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    expected = []
    for out, kernel in enumerate(spread):
        first = 2 * (out // 3)
        maps = [
            sum(correlate(padded[first + c, :, :, b], kernel[c], mode="valid", method="direct") for c in range(2))
            for b in range(3)
        ]
        expected.append(np.stack(maps, axis=-1)[:: stride[0], :: stride[1]])
    expected = np.array(expected)
    source = 1 + np.arange(x[..., 0].size).reshape(x.shape[:3])
    target = np.arange(expected[..., 0].size) + 1
    synapses = Synapses(source, target, weights, Geometry(stride, padding, dilation, groups))
    sent = np.concatenate([np.zeros((1, 3)), x.reshape(-1, 3)])
    assert (synapses.sums(sent) == expected.reshape(-1, 3)).all()


def test_weights_as_synapses_hold_them():
    w = np.array([-300, -7, 0, 7, 300])
    assert stored_weights(w, 8, "mixed").tolist() == [-256, -8, 0, 6, 254]
    assert stored_weights(np.abs(w), 8, "excitatory").tolist() == [255, 7, 0, 7, 255]
    assert stored_weights(-np.abs(w), 6, "inhibitory").tolist() == [-252, -4, 0, -4, -252]


# ------------------------------------------------------------------------------------------------ activity of .net


def test_activity_of_a_spiking_network_by_hand(tmp_path):
    path = write_net(tmp_path / "net.net", dense([[1, 1], [4, 0]], **cuba()), dense([[2, 0]], **cuba()))
    spikes = np.array([[[1, 0], [1, 1], [0, 0], [0, 0]]])
    np.save(tmp_path / "samples.npy", spikes)
    found = nm.measure_activity(path, tmp_path / "samples.npy")
    # Neuron a: voltage 64, then 192 > 64; neuron b fires at once, twice; the last one gets 2 once.
    assert {name: x.tolist() for name, x in found.by_layer.items()} == {
        "input": [0.5, 0.25],
        "dense_0": [0.25, 0.5],
        "dense_1": [0.25],
    }
    nm.save_activity(found, tmp_path / "activity.npz")
    network = nm.load_network(path, activity=tmp_path / "activity.npz")
    assert network.layers[1].activity.tolist() == [0.25, 0.5]


def test_activity_of_a_sigma_delta_map_in_its_own_order(tmp_path):
    weights = np.zeros((2, 1, 1, 1))
    weights[1] = 64
    conv = kind(b"conv") | {"shape": np.array([2, 2, 3]), "weight": weights, **sdnn()}
    path = write_net(tmp_path / "net.net", inputs(1, 2, 3) | sdnn(), conv)
    frame = np.zeros((1, 5, 1, 2, 3))
    frame[0, 1:, 0, 1, 2] = 0.5  # changes once, by 32 of 64
    np.save(tmp_path / "samples.npy", frame)
    found = nm.measure_activity(path, tmp_path / "samples.npy").by_layer
    assert found["input"].tolist() == [0, 0, 0, 0, 0, 0.2]
    assert found["conv_1"].tolist() == [0] * 11 + [0.2]


@pytest.mark.parametrize(
    ("layers", "samples", "message"),
    [
        ([dense([[1, 1]], **cuba())], np.ones((2, 3)), r"samples: expected an array \(n, timesteps, 2\) or \(n, 2\)"),
        ([dense([[1, 1]], **cuba())], np.ones(2), r"samples: expected an array \(n, timesteps, 2\) or \(n, 2\)"),
        ([dense([[1, 1]], **cuba())], np.full((1, 2), np.nan), "samples: expected finite numbers"),
        (
            [dense([[1]], **{"neuron/type": "RF_IZ"})],
            np.ones((1, 1)),
            r"layer 0: neurons of type 'RF_IZ' cannot be sim",
        ),
        ([dense([[1]], **{"neuron/type": "CUBA"})], np.ones((1, 1)), r"layer 0, neuron: expected whole numbers"),
        ([dense([[1]], **cuba(vth=0.5))], np.ones((1, 1)), r"layer 0, neuron: expected whole numbers .*got 0\.5"),
        (
            [dense([[1], [1]], bias=np.ones(3), **cuba())],
            np.ones((1, 1)),
            r"layer 0, bias: expected one number for each of 2 neurons",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused(tmp_path, layers, samples, message):
    path = write_net(tmp_path / "net.net", *layers)
    np.save(tmp_path / "samples.npy", samples)
    with pytest.raises(nm.InputError, match=message):
        nm.measure_activity(path, tmp_path / "samples.npy")


def test_chances_become_spikes_and_random_samples_repeat(tmp_path):
    path = write_net(tmp_path / "net.net", dense(np.eye(40), **cuba(vth=0)))
    np.save(tmp_path / "samples.npy", np.full((5, 40), 0.3))
    found = nm.measure_activity(path, tmp_path / "samples.npy", steps=50)
    assert found.by_layer["input"].mean() == pytest.approx(0.3, abs=0.02)
    assert found.n_samples == 5
    one, other = (nm.measure_activity(path, seed=3) for _ in range(2))
    assert (one.by_layer["dense_0"] == other.by_layer["dense_0"]).all()
    assert one.n_samples == 0
    assert 0.15 < one.by_layer["input"].mean() < 0.25


@pytest.mark.default_cases(1)
def test_public_networks_are_simulated(networks_folder):
    found = nm.measure_activity(networks_folder / "pilotnet_sdnn.net", steps=12)
    sizes = [x.size for x in nm.load_network(networks_folder / "pilotnet_sdnn.net").layers]
    assert [x.size for x in found.by_layer.values()] == sizes
    assert all(0 < x.mean() < 1 for x in found.by_layer.values())
