"""Spiking layers of fixed-point neurons in numpy, bit by bit what Lava's fixed_pt models compute on a CPU.

Neurons are numbered as readers number them (`assemble`): a synapse reads the neuron that stands in its place of a
tensor, 0 for none. What neurons send at one timestep reaches others at the next. Arrays hold a batch of samples in
their last axis; sums of products are taken in float64, which is exact below 2^53.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.network.assembly import Tensor

#: Bits of u and v; of the fraction of decays; by which inputs and thresholds of LIF neurons are shifted (Loihi).
STATE_BITS, DECAY_BITS, ALIGN_BITS = 24, 12, 6

#: Of the windows of a map that are multiplied at once.
WINDOW_BYTES = 2**28


class Geometry(NamedTuple):
    """How a kernel moves over a map, (height, width) each."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Synapses:
    """Weighted sums of what `source` sends, one for each neuron of `target`.

    Without a geometry `weights` is (n_target, n_source); with one it is (out, in / groups, height, width), the source a
    map (channels, height, width). Where messages are not `graded` they count as 1. `exponent` shifts the sums to the
    left, or to the right where it is negative.
    """

    source: Tensor
    target: Tensor
    weights: IntArray
    geometry: Geometry | None = None
    exponent: int = 0
    graded: bool = True

    def sums(self, sent: FloatArray) -> IntArray:
        """Return (n_target, batch) from what all neurons send (n_neurons + 1, batch), row 0 being nobody."""
        values = sent[self.source.ravel()] if self.graded else (sent[self.source.ravel()] != 0).astype(np.float64)
        if self.geometry is None:
            return _shifted(_wrapped(self.weights.astype(np.float64) @ values, 32), self.exponent)
        found = _correlated(values.reshape(*self.source.shape, -1), self.weights.astype(np.float64), self.geometry)
        return _wrapped(_wrapped(found, 32), STATE_BITS).reshape(self.target.size, -1)


class Neurons(Protocol):
    """A model of neurons: state variables by name, and what comes in and goes out at a timestep, all (n, batch)."""

    def start(self, n: int, batch: int) -> dict[str, IntArray]:
        """State before the first timestep."""

    def step(self, state: dict[str, IntArray], a_in: IntArray) -> IntArray:
        """Return what neurons send, and bring the state forward."""


@dataclass(frozen=True)
class Relay:
    """Neurons that send what they get: inputs, and sums without dynamics."""

    def start(self, n: int, batch: int) -> dict[str, IntArray]:
        """Keep nothing."""
        return {}

    def step(self, state: dict[str, IntArray], a_in: IntArray) -> IntArray:
        """Send the input."""
        return a_in


@dataclass(frozen=True, eq=False)
class Lif:
    """Current-based leaky integrate-and-fire neurons, Lava's PyLifModelBitAcc.

    Decays in 4096ths, one more than given for the current; the threshold is shifted by 6 bits; `bias` is added as it is
    (mantissa times 2^exponent); `u` and `v` are what they begin with. Each may be one number or one per neuron.
    """

    vth: IntArray | int
    du: IntArray | int
    dv: IntArray | int
    bias: IntArray | int = 0
    u: IntArray | int = 0
    v: IntArray | int = 0

    def start(self, n: int, batch: int) -> dict[str, IntArray]:
        """Begin with the current and voltage given."""
        first = {"u": self.u, "v": self.v}
        return {key: np.array(np.broadcast_to(_by_neuron(x), (n, batch)), dtype=np.int64) for key, x in first.items()}

    def step(self, state: dict[str, IntArray], a_in: IntArray) -> IntArray:
        """Decay, add, wrap the current and clip the voltage at 24 bits, fire above the threshold, reset to 0."""
        limit = 2 ** (STATE_BITS - 1)
        u = _wrapped(_decayed(state["u"], _by_neuron(self.du) + 1) + _wrapped(a_in << ALIGN_BITS, 32), 32)
        u = np.where(u > limit, u - 2 * limit, np.where(u <= -limit, u + 2 * limit, u))
        v = np.clip(_decayed(state["v"], _by_neuron(self.dv)) + u + _by_neuron(self.bias), 1 - limit, limit - 1)
        fires = v > (_by_neuron(self.vth) << ALIGN_BITS)
        state["u"], state["v"] = u, np.where(fires, 0, v)
        return np.asarray(fires, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Delta:
    """Neurons that send changes of their input of at least a threshold, Lava's PyDeltaModelFixed."""

    vth: int
    spike_exp: int = 0
    state_exp: int = 0

    def start(self, n: int, batch: int) -> dict[str, IntArray]:
        """Begin at an input of 0."""
        return {"act": np.zeros((n, batch), dtype=np.int64), "residue": np.zeros((n, batch), dtype=np.int64)}

    def step(self, state: dict[str, IntArray], a_in: IntArray) -> IntArray:
        """Scale the input, and send where it has changed enough."""
        scale = self.spike_exp + self.state_exp
        return _changes(state, _wrapped(a_in << scale, 32), self.vth << scale) >> self.state_exp


@dataclass(frozen=True, eq=False)
class SigmaDelta:
    """Neurons that add up changes, apply a function and send changes of its value, Lava's PySigmaDeltaModelFixed."""

    vth: int
    bias: IntArray | int = 0
    spike_exp: int = 0
    state_exp: int = 0
    relu: bool = True

    def start(self, n: int, batch: int) -> dict[str, IntArray]:
        """Begin with nothing added up."""
        return {name: np.zeros((n, batch), dtype=np.int64) for name in ("sigma", "act", "residue")}

    def step(self, state: dict[str, IntArray], a_in: IntArray) -> IntArray:
        """Add up, activate, and send where the activation has changed enough."""
        scale = self.spike_exp + self.state_exp
        sigma = state["sigma"] = _wrapped(state["sigma"] + a_in, 32)
        act = _wrapped(sigma + (_by_neuron(self.bias) << scale), 32)
        return _changes(state, np.maximum(act, 0) if self.relu else act, self.vth << scale) >> self.state_exp


@dataclass(frozen=True)
class Sigma:
    """Neurons that add up changes and send the sum at every timestep, Lava's PySigmaModelFixed."""

    def start(self, n: int, batch: int) -> dict[str, IntArray]:
        """Begin with nothing added up."""
        return {"sigma": np.zeros((n, batch), dtype=np.int64)}

    def step(self, state: dict[str, IntArray], a_in: IntArray) -> IntArray:
        """Add up and send."""
        state["sigma"] = _wrapped(state["sigma"] + a_in, 32)
        return state["sigma"]


def simulate(
    layers: Sequence[tuple[Tensor, Neurons]], synapses: Sequence[Synapses], inputs: Mapping[int, NDArray[Any]]
) -> Iterator[IntArray]:
    """Yield what all neurons send (n_neurons + 1, batch) at one timestep after the other; row 0 is nobody.

    Parameters
    ----------
    layers
        Numbers of the neurons (n,) and their model.
    synapses
        What neurons send reaches others at the next timestep.
    inputs
        (batch, steps, n) by the index of a layer: comes in there at the timestep itself.

    """
    batch, steps = next(iter(inputs.values())).shape[:2]
    n_neurons = max(int(neurons.max()) for neurons, _ in layers)
    states = [model.start(neurons.size, batch) for neurons, model in layers]
    coming = np.zeros((n_neurons + 1, batch), dtype=np.int64)
    for t in range(steps):
        sent = np.zeros_like(coming)
        for i, (neurons, model) in enumerate(layers):
            a_in = coming[neurons]
            if i in inputs:
                a_in = a_in + inputs[i][:, t].T
            sent[neurons] = model.step(states[i], a_in)
        yield sent
        coming[:] = 0
        values = sent.astype(np.float64)
        for s in synapses:
            coming[s.target.ravel()] += s.sums(values)


def stored_weights(weights: IntArray, bits: int, signs: str) -> IntArray:
    """Weights as a Loihi synapse of so many bits holds them (Lava's clip_weights and truncate_weights).

    `signs` is mixed, excitatory or inhibitory; weights of both signs have 9 bits, of which the lowest is lost.
    """
    turned = -weights if signs == "inhibitory" else weights
    mixed = int(signs == "mixed")
    lost = 8 - bits + mixed
    kept = (np.clip(turned, -256 * mixed, 255) >> lost) << lost
    return np.asarray(-kept if signs == "inhibitory" else kept)


def _changes(state: dict[str, IntArray], act: IntArray, vth: int) -> IntArray:
    delta = _wrapped(act - state["act"] + state["residue"], 32)
    sent = np.where(np.abs(delta) >= vth, delta, 0)
    state["act"], state["residue"] = act, delta - sent
    return sent


def _decayed(x: IntArray, decay: IntArray) -> IntArray:
    """Towards zero, also when bits are lost."""
    scaled = x * (2**DECAY_BITS - decay)
    return np.asarray(np.sign(scaled) * (np.abs(scaled) >> DECAY_BITS))


def _by_neuron(value: IntArray | int) -> IntArray:
    return np.asarray(value, dtype=np.int64).reshape(-1, 1)


def _shifted(x: IntArray, exponent: int) -> IntArray:
    return _wrapped(x << exponent if exponent > 0 else x >> -exponent, 32)


def _wrapped(x: NDArray[Any], bits: int) -> IntArray:
    """Two's complement of so many bits."""
    half = 1 << (bits - 1)
    return np.asarray((x.astype(np.int64) + half) % (1 << bits) - half)


def _correlated(x: FloatArray, weights: FloatArray, g: Geometry) -> FloatArray:
    """(out, height, width, batch) of a map (channels, height, width, batch)."""
    (top, left), (down, across), (d_y, d_x) = g.padding, g.stride, g.dilation
    n_out, per_group, k_y, k_x = weights.shape
    padded = np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    spans = (d_y * (k_y - 1) + 1, d_x * (k_x - 1) + 1)
    windows = sliding_window_view(padded, spans, axis=(1, 2))[:, ::down, ::across, :, ::d_y, ::d_x]
    _, height, width, batch, _, _ = windows.shape
    found = np.empty((n_out, height, width, batch))
    at_once = max(1, WINDOW_BYTES // (8 * per_group * k_y * k_x * height * width))
    for group, first in itertools.product(range(g.groups), range(0, batch, at_once)):
        outs = slice(group * n_out // g.groups, (group + 1) * n_out // g.groups)
        own = windows[group * per_group : (group + 1) * per_group, :, :, first : first + at_once]
        columns = own.transpose(0, 4, 5, 1, 2, 3).reshape(per_group * k_y * k_x, -1)
        kernel = weights[outs].reshape(-1, per_group * k_y * k_x)
        found[outs, :, :, first : first + at_once] = (kernel @ columns).reshape(-1, height, width, own.shape[3])
    return found
