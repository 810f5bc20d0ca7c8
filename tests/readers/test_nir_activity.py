"""NIR graphs in fixed point, against forward Euler in floating point."""

import nir
import numpy as np
import pytest
from helpers import nir_chain, nir_conv, nir_ends, nir_flatten, nir_pool

import neuromap_moo as nm


def euler(nodes, order, spikes, dt):
    """Shares of timesteps (by node) in which neurons of a chain fire; what one sends reaches the next a step later."""
    state = {}
    sent = dict.fromkeys(order)
    counts = {}
    for x in spikes:
        before = dict(sent)
        values = x
        for name in order:
            node = nodes[name]
            if isinstance(node, nir.Affine):
                values = node.weight @ values + node.bias
            elif isinstance(node, nir.Scale):
                values = node.scale * values
            elif isinstance(node, (nir.LIF, nir.IF, nir.CubaLIF, nir.Threshold)):
                v, current = state.get(name, (np.zeros(node_size(node)), np.zeros(node_size(node))))
                values = np.zeros_like(v) if values is None else values
                if isinstance(node, nir.LIF):
                    v = v + dt / node.tau * (node.v_leak - v + node.r * values)
                elif isinstance(node, nir.IF):
                    v = v + dt * node.r * values
                elif isinstance(node, nir.CubaLIF):
                    current = current + dt / node.tau_syn * (node.w_in * values - current)
                    v = v + dt / node.tau_mem * (node.v_leak - v + node.r * current)
                else:
                    v = values
                fires = v > (node.threshold if isinstance(node, nir.Threshold) else node.v_threshold)
                state[name] = np.where(fires, 0, v), current
                sent[name] = fires.astype(float)
                counts[name] = counts.get(name, 0) + fires
                values = before[name] if before[name] is not None else np.zeros_like(v)
    return {name: n / len(spikes) for name, n in counts.items()}


def node_size(node):
    keys = ("v_threshold", "threshold")
    return next(np.shape(getattr(node, key)) for key in keys if hasattr(node, key))


def affine(n_in, n_out, rng, low=-0.5, high=1.0):
    return nir.Affine(weight=rng.uniform(low, high, (n_out, n_in)), bias=rng.uniform(0, 0.1, n_out))


def populations(rng, n, dt):
    """Neurons of each type that fire now and then."""
    ones = np.ones(n)
    tau = dt * rng.uniform(4, 20, n)
    return {
        "lif": nir.LIF(tau=tau, r=4 * ones, v_leak=0.1 * ones, v_threshold=rng.uniform(0.8, 2, n), v_reset=0 * ones),
        "if": nir.IF(r=ones / dt, v_threshold=rng.uniform(3, 6, n), v_reset=0 * ones),
        "cuba": nir.CubaLIF(
            tau_syn=tau, tau_mem=2 * tau, r=8 * ones, v_leak=0 * ones, v_threshold=ones, w_in=ones, v_reset=0 * ones
        ),
        "threshold": nir.Threshold(threshold=rng.uniform(1, 2, n)),
    }


def measured(tmp_path, nodes, edges, spikes, **keys):
    path = tmp_path / "net.nir"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    np.save(tmp_path / "samples.npy", spikes[None])
    return path, nm.measure_activity(path, tmp_path / "samples.npy", **keys)


@pytest.mark.parametrize("dt", [1e-4, 1.0])
@pytest.mark.parametrize("kind", ["lif", "if", "cuba", "threshold"])
@pytest.mark.default_cases(3)
def test_fixed_point_fires_as_floating_point_does(tmp_path, kind, dt):
    rng = np.random.default_rng(0)
    first, second = (populations(rng, n, dt)[kind] for n in (30, 20))
    nodes = nir_ends(12, 20) | {"w": affine(12, 30, rng), "a": first, "s": nir.Scale(scale=np.full(30, 0.5))}
    nodes |= {"v": affine(30, 20, rng, -0.2, 0.4), "b": second}
    spikes = rng.random((400, 12)) < 0.3
    _, found = measured(tmp_path, nodes, nir_chain("input", "w", "a", "s", "v", "b", "output"), spikes, dt=dt)
    expected = euler(nodes, ["w", "a", "s", "v", "b"], spikes.astype(float), dt)
    for name in ("a", "b"):
        assert 0.01 < expected[name].mean() < 0.9
        assert np.abs(found.by_layer[name] - expected[name]).mean() < 0.02
    assert found.by_layer["input"] == pytest.approx(spikes.mean(axis=0))


def test_pools_and_maps_by_hand(tmp_path):
    """A pool sums four spikes, or takes their mean; behind it a neuron adds up and fires at three."""
    one = nir_conv(1, 1, (1, 1), (1, 1), bias=np.zeros(1))
    one.weight[:] = 1.0
    for kind, threshold in ((nir.SumPool2d, 2.5), (nir.AvgPool2d, 2.5 / 4)):
        shape = np.full((1, 1, 1), threshold)
        fires = nir.IF(r=np.ones((1, 1, 1)), v_threshold=shape, v_reset=0 * shape)
        nodes = nir_ends((1, 2, 2), 1) | {
            "p": nir_pool(2, 2, kind=kind),
            "c": one,
            "n": fires,
            "f": nir_flatten(1, 1, 1),
        }
        spikes = np.zeros((6, 1, 2, 2))
        spikes[0, 0, 0], spikes[2] = 1, 1  # two of four, then all
        _, found = measured(tmp_path, nodes, nir_chain("input", "p", "c", "n", "f", "output"), spikes)
        assert found.by_layer["p"].tolist() == [2 / 6]
        assert found.by_layer["n"].tolist() == [1 / 6]  # at 2 + 4


def test_what_follows_neurons_without_a_threshold_is_not_shown(tmp_path):
    ones = np.ones(3)
    nodes = nir_ends(2, 3) | {
        "w": affine(2, 3, np.random.default_rng(0)),
        "a": nir.LI(tau=ones, r=ones, v_leak=0 * ones),
    }
    nodes |= {"v": nir.Linear(weight=np.eye(3)), "b": nir.IF(r=ones, v_threshold=ones, v_reset=0 * ones)}
    path, found = measured(tmp_path, nodes, nir_chain("input", "w", "a", "v", "b", "output"), np.ones((5, 2)))
    assert found.not_shown == ("a", "b")
    assert found.by_layer["b"].tolist() == [1, 1, 1]
    nm.save_activity(found, tmp_path / "activity.npz")
    assert nm.load_network(path, activity=tmp_path / "activity.npz").layers[2].activity.tolist() == [1, 1, 1]


def test_what_cannot_be_simulated_is_refused(tmp_path):
    ones = np.ones(2)
    reset = nir.LIF(tau=ones, r=ones, v_leak=ones, v_threshold=ones, v_reset=-ones)
    nodes = nir_ends(2, 2) | {"w": nir.Linear(weight=np.eye(2)), "a": reset}
    with pytest.raises(nm.InputError, match=r"node 'a' \(LIF\), v_reset: expected 0"):
        measured(tmp_path, nodes, nir_chain("input", "w", "a", "output"), np.ones((5, 2)))
    nodes["a"] = nir.LIF(tau=ones, r=ones, v_leak=ones, v_threshold=ones, v_reset=0 * ones)
    with pytest.raises(nm.InputError, match=r"node 'a' \(LIF\): expected time constants of at least dt = 3"):
        measured(tmp_path, nodes, nir_chain("input", "w", "a", "output"), np.ones((5, 2)), dt=3.0)
    with pytest.raises(nm.InputError, match=r"samples: expected an array \(n, timesteps, 2\) or \(n, 2\)"):
        measured(tmp_path, nodes, nir_chain("input", "w", "a", "output"), np.ones((5, 3)))


def test_public_networks_fire(networks_folder):
    found = nm.measure_activity(networks_folder / "cnn_sinabs.nir", steps=20)
    assert all(0 < x.mean() < 0.7 for x in found.by_layer.values())
