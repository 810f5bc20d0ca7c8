"""Graphs of Lava processes; what needs lava-nc runs on Python 3.10 alone."""

import os
import time

import numpy as np
import pytest
from helpers import BROKEN_PROCESS, commands_with, cuba, dense, kind, needs_lava, sdnn, write_net

import neuromap_moo as nm
from neuromap_moo.fixed_point.simulator import simulate
from neuromap_moo.lava import runner
from neuromap_moo.lava.reader import describe, sent_by_lava
from neuromap_moo.readers.netx import walk
from neuromap_moo.readers.netx_activity import _model

IMPORTS = """
import numpy as np
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIF, TernaryLIF
from lava.proc.sdn.process import ActivationMode, Delta, Sigma, SigmaDelta
from lava.proc.sparse.process import Sparse

rng = np.random.default_rng(0)

def build():
"""


def model(tmp_path, text, name="model.py"):
    lines = text.strip("\n").splitlines()
    spaces = len(lines[0]) - len(lines[0].lstrip())
    path = tmp_path / name
    path.write_text(IMPORTS + "\n".join("    " + line[spaces:] for line in lines) + "\n")
    return path


LIF_NET = """
    source = RingBuffer(data=(rng.random((20, 30)) < 0.3).astype(int))
    first = Dense(weights=rng.integers(-100, 120, (30, 20)))
    a = LIF(shape=(30,), vth=300, du=400, dv=300, bias_mant=rng.integers(-9, 9, 30), bias_exp=6, name="first")
    second = Sparse(weights=np.where(rng.random((10, 30)) < 0.5, rng.integers(-60, 250, (10, 30)), 0), weight_exp=1)
    b = LIF(shape=(10,), vth=500, du=4095, dv=100, name="second")
    back = Dense(weights=rng.integers(-50, 0, (10, 10)), weight_exp=-2)
    source.s_out.connect(first.s_in)
    first.a_out.connect(a.a_in)
    a.s_out.connect(second.s_in)
    second.a_out.connect(b.a_in)
    b.s_out.connect(back.s_in)
    back.a_out.connect(b.a_in)
    sink = Sink(shape=(10,), buffer=5)
    b.s_out.connect(sink.a_in)
    return source
"""

OVERFLOWS = """
    source = RingBuffer(data=rng.integers(0, 2, (40, 25)))
    first = Dense(weights=rng.integers(100, 250, (8, 40)), weight_exp=5)
    a = LIF(shape=(8,), vth=131071, du=10, dv=1)
    source.s_out.connect(first.s_in)
    first.a_out.connect(a.a_in)
    return [a]
"""

SIGMA_DELTA_NET = """
    source = RingBuffer(data=rng.integers(-64, 64, (7, 6, 2, 20)))
    delta = Delta(shape=(7, 6, 2), vth=6, spike_exp=6)
    conv = Conv(
        weight=rng.integers(-64, 64, (4, 3, 2, 1)), input_shape=(7, 6, 2), stride=(2, 1), padding=(1, 0), groups=2,
        num_message_bits=16,
    )
    a = SigmaDelta(shape=conv.output_shape, vth=6, bias=3, spike_exp=6, state_exp=6)
    n = int(np.prod(conv.output_shape))
    middle = Dense(weights=rng.integers(-64, 64, (9, n)), num_message_bits=16)
    b = SigmaDelta(shape=(9,), vth=6, spike_exp=6, state_exp=6, act_mode=ActivationMode.UNIT)
    last = Dense(weights=rng.integers(-64, 64, (3, 9)), num_message_bits=16)
    out = Sigma(shape=(3,))
    source.s_out.connect(delta.a_in)
    delta.s_out.connect(conv.s_in)
    conv.a_out.connect(a.a_in)
    a.s_out.transpose([2, 1, 0]).flatten().connect(middle.s_in)
    middle.a_out.connect(b.a_in)
    b.s_out.connect(last.s_in)
    last.a_out.connect(out.a_in)
    return out
"""


def fed(described, steps):
    """What the sources of a graph send, as `simulate` takes it."""
    return {
        i: np.stack([values[:, t % values.shape[1]] for t in range(steps)])[None]
        for i, values in described.data.items()
    }


@needs_lava
@pytest.mark.parametrize("text", [LIF_NET, OVERFLOWS, SIGMA_DELTA_NET], ids=["lif", "overflows", "sigma_delta"])
def test_the_simulation_equals_lava_bit_by_bit(tmp_path, text):
    path, steps = model(tmp_path, text), 45
    described = describe(path)
    assert described.unlike == ()
    theirs = sent_by_lava(path, steps)
    ours = simulate(described.layers, described.synapses, fed(described, steps))
    ours = np.stack([sent[:, 0] for sent in ours], axis=1)
    for (neurons, _), process in zip(described.layers, described.processes, strict=True):
        assert np.count_nonzero(theirs[process])
        assert (ours[neurons] == theirs[process]).all()


@needs_lava
def test_networks_of_lava_dl_are_simulated_as_lava_runs_them(tmp_path):
    """Weights, decays and biases of a file as lava-dl's netx hands them to Lava."""
    rng = np.random.default_rng(1)
    weights = [rng.integers(-120, 127, (12, 10)), rng.integers(-120, 127, (5, 12))]
    bias = rng.integers(-4, 4, 12)
    path = write_net(
        tmp_path / "net.net",
        dense(weights[0], bias=bias, **cuba(vth=60, i_decay=500, v_decay=300)),
        dense(weights[1], **cuba(vth=30, i_decay=4096, v_decay=100)),
    )
    spikes = rng.random((10, 40)) < 0.4
    np.savez(tmp_path / "arrays.npz", first=weights[0], second=weights[1], bias=bias, spikes=spikes.astype(int))
    script = model(
        tmp_path,
        f"""
        arrays = np.load({str(tmp_path / "arrays.npz")!r})
        source = RingBuffer(data=arrays["spikes"])
        # netx stores weights twice as large with an exponent of -1, so that none of their bits is lost
        first = Dense(weights=2 * arrays["first"], weight_exp=-1)
        a = LIF(shape=(12,), vth=60, du=499, dv=300, bias_mant=arrays["bias"], bias_exp=6)
        second = Dense(weights=2 * arrays["second"], weight_exp=-1)
        b = LIF(shape=(5,), vth=30, du=4095, dv=100)
        source.s_out.connect(first.s_in)
        first.a_out.connect(a.a_in)
        a.s_out.connect(second.s_in)
        second.a_out.connect(b.a_in)
        return source
        """,
    )
    theirs = sent_by_lava(script, 40)
    np.save(tmp_path / "samples.npy", spikes.T[None])
    found = nm.measure_activity(path, tmp_path / "samples.npy").by_layer
    for name, process in (("input", 0), ("dense_0", 2), ("dense_1", 4)):
        assert found[name].tolist() == pytest.approx((theirs[process] != 0).mean(axis=1).tolist())
        assert found[name].any()


@needs_lava
def test_sigma_delta_networks_of_lava_dl_are_simulated_as_lava_runs_them(tmp_path):
    rng = np.random.default_rng(2)
    kernel, matrix, bias = rng.integers(-64, 64, (3, 2, 3, 2)), rng.integers(-64, 64, (4, 36)), rng.integers(-9, 9, 3)
    conv = kind(b"conv") | {"shape": np.array([3, 4, 3]), "weight": kernel.astype(np.float32), "bias": bias}
    conv |= {"stride": np.array([1, 2]), "padding": np.array([0, 0]), "dilation": np.array([1, 1]), **sdnn(vth=6)}
    layers = [kind(b"input") | {"shape": np.array([2, 6, 6]), **sdnn(vth=6)}, conv]
    layers += [kind(b"flatten") | {"shape": np.array([36])}, dense(matrix, **sdnn(vth=6))]
    path = write_net(tmp_path / "net.net", *layers)
    frames = rng.integers(-64, 64, (25, 2, 6, 6))
    np.savez(tmp_path / "arrays.npz", kernel=kernel, matrix=matrix, bias=bias, frames=frames)
    script = model(
        tmp_path,
        f"""
        arrays = np.load({str(tmp_path / "arrays.npz")!r})
        source = RingBuffer(data=arrays["frames"].transpose(3, 2, 1, 0))
        delta = Delta(shape=(6, 6, 2), vth=6, spike_exp=6)
        conv = Conv(
            weight=arrays["kernel"][:, :, ::-1, ::-1].transpose(0, 3, 2, 1), input_shape=(6, 6, 2), stride=(2, 1),
            num_message_bits=16,
        )
        a = SigmaDelta(
            shape=(3, 4, 3), vth=6, bias=np.broadcast_to(arrays["bias"], (3, 4, 3)), spike_exp=6, state_exp=6
        )
        middle = Dense(weights=2 * arrays["matrix"], weight_exp=-1, num_message_bits=16)
        b = SigmaDelta(shape=(4,), vth=6, spike_exp=6, state_exp=6)
        source.s_out.connect(delta.a_in)
        delta.s_out.connect(conv.s_in)
        conv.a_out.connect(a.a_in)
        a.s_out.transpose([2, 1, 0]).flatten().connect(middle.s_in)
        middle.a_out.connect(b.a_in)
        return source
        """,
    )
    theirs = sent_by_lava(script, 25)
    walked = walk(path)
    models = [(neurons, _model(where, node, i == 0)) for i, (neurons, where, node) in enumerate(walked.neurons)]
    sent = np.stack([s[1:, 0] for s in simulate(models, walked.synapses, {0: frames.reshape(1, 25, -1)})], axis=1)
    as_maps = {1: (6, 6, 2), 3: (3, 4, 3), 5: (4, 1, 1)}  # (x, y, channels) of the processes that are neurons
    whole = [
        theirs[i].reshape(*shape, -1).transpose(2, 1, 0, 3).reshape(theirs[i].shape) for i, shape in as_maps.items()
    ]
    assert all(np.count_nonzero(x) for x in whole)
    assert (sent == np.concatenate(whole)).all()


@needs_lava
def test_a_graph_becomes_a_network(tmp_path):
    network = nm.load_network(model(tmp_path, LIF_NET))
    assert network.layer_names == ("input_0", "first", "second")
    assert [(p.source, p.target) for p in network.projections] == [
        ("input_0", "first"),
        ("first", "second"),
        ("second", "second"),
    ]
    assert 500 < network.projections[0].connectivity.n_synapses <= 600
    maps = nm.load_network(model(tmp_path, SIGMA_DELTA_NET, "other.py"))
    assert [(x.kind, x.shape) for x in maps.layers] == [
        ("delta", (2, 6, 7)),
        ("sigma_delta", (4, 5, 4)),
        ("sigma_delta", None),
        ("sigma", None),
    ]
    # Columns of the kernel inside the map: 2, 3, 3, 2 of 3; times 2 rows, 5 places down, 4 channels of one input each.
    assert maps.projections[0].connectivity.n_synapses == (2 + 3 + 3 + 2) * 2 * 5 * 4


@needs_lava
def test_activity_is_what_lava_sends(tmp_path):
    path = model(tmp_path, LIF_NET)
    found = nm.measure_activity(path, steps=30)
    theirs = sent_by_lava(path, 30)
    assert found.by_layer["first"].tolist() == (theirs[2] != 0).mean(axis=1).tolist()
    nm.save_activity(found, tmp_path / "activity.npz")
    assert nm.load_network(path, activity=tmp_path / "activity.npz").layers[1].activity.mean() > 0.1
    (tmp_path / "samples.npy").write_bytes(b"")
    with pytest.raises(nm.InputError, match="has sources of its own; leave samples out"):
        nm.measure_activity(path, tmp_path / "samples.npy")


@needs_lava
def test_a_run_that_hangs_is_ended_and_leaves_nothing(tmp_path, monkeypatch):
    """A process model that raises makes Lava wait for ever."""
    text = """
    import sys
    sys.path.insert(0, FOLDER)
    from broken import Broken
    source = RingBuffer(data=np.ones((4, 5), dtype=int))
    first = Dense(weights=np.ones((4, 4), dtype=int))
    a = LIF(shape=(4,), vth=10)
    source.s_out.connect(first.s_in)
    first.a_out.connect(a.a_in)
    sink = Broken(shape=(4,))
    a.s_out.connect(sink.a_in)
    return source
    """.replace("FOLDER", repr(str(tmp_path / "broken")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.py").write_text(BROKEN_PROCESS)
    path = model(tmp_path, text)
    own = f"{os.getpid() % 65536:04x}"  # others may run Lava at the same time
    monkeypatch.setattr(runner.secrets, "token_hex", lambda n: own)
    began = time.monotonic()
    with pytest.raises(nm.InputError, match=r"(did not run it within 8 s|could not run it)"):
        sent_by_lava(path, 3, limit_s=8)
    assert time.monotonic() - began < 30
    assert [name for name in os.listdir("/dev/shm") if name.startswith(f"nm{own}_")] == []
    assert commands_with(str(tmp_path)) == {}


@needs_lava
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("    return 3", r"build\(\): expected a Lava process or a list of them, got int"),
        ("    return 1 / 0", r"build\(\) raises ZeroDivisionError"),
        (
            """
            a, b = Dense(weights=np.ones((3, 3))), Dense(weights=np.ones((3, 3)))
            a.a_out.connect(b.s_in)
            c = LIF(shape=(3,))
            b.a_out.connect(c.a_in)
            return a
            """,
            "expected neurons or a source before it, got another connection",
        ),
    ],
)
def test_graphs_that_are_no_networks_are_refused(tmp_path, text, message):
    with pytest.raises(nm.InputError, match=message):
        nm.load_network(model(tmp_path, text))


@needs_lava
def test_what_is_not_simulated_is_named(tmp_path):
    text = """
    source = RingBuffer(data=np.ones((4, 5), dtype=int))
    first = Dense(weights=np.full((4, 4), 0.5))
    a = TernaryLIF(shape=(4,), vth_hi=10, vth_lo=-10, name="three")
    source.s_out.connect(first.s_in)
    first.a_out.connect(a.a_in)
    return source
    """
    assert describe(model(tmp_path, text)).unlike == ("'three' (ternary_lif)", "weights that are no integers")


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1\n", r"expected a function build\(\) that returns a Lava process|lava-nc cannot be imported"),
     ("import nowhere_at_all\n", r"the file raises ModuleNotFoundError|lava-nc cannot be imported")],
)  # fmt: skip
def test_other_python_files_are_refused(tmp_path, text, message):
    (tmp_path / "file.py").write_text(text)
    with pytest.raises(nm.InputError, match=message):
        nm.load_network(tmp_path / "file.py")
