"""The activity of a NIR graph's neurons, by a simulation in fixed point, as the graph would be deployed.

NIR describes neurons by differential equations (Pedersen et al., Nature Communications 15, 2024). They advance here by
forward Euler steps of `dt`; weights, thresholds and biases of a population are scaled together, so that its largest
weight takes 8 bits, and rounded to integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import FloatArray, IntArray
from neuromap_moo.errors import InputError, finite_number
from neuromap_moo.fixed_point.samples import BATCH, spikes_of
from neuromap_moo.fixed_point.simulator import ALIGN_BITS, DECAY_BITS, Geometry, Lif, Neurons, Relay, Synapses, simulate
from neuromap_moo.network.activity import Activity, digest_of
from neuromap_moo.readers.input_shape import InputShape
from neuromap_moo.readers.nir import MATRICES, POOLS, Connected, Reading, read_graph

#: Largest weight and threshold of a population in fixed point.
MOST_WEIGHT, MOST_THRESHOLD = 127, 2**17 - 1

#: Step where none is given: of graphs with time constants below 1, in s, and of others, in steps.
STEP_S, STEP = 1e-4, 1.0


class _Population(NamedTuple):
    """Euler steps of one population: v <- (1 - decay) v + gain u + bias, with u the input or a current that decays."""

    gain: FloatArray  # (n,)
    decay: FloatArray
    current_decay: FloatArray
    bias: FloatArray
    threshold: FloatArray


def measure_nir(
    path: Path,
    samples: Mapping[str, NDArray[Any]] | None = None,
    input_shape: InputShape = None,
    seed: int = 0,
    steps: int | None = None,
    dt: float | None = None,
) -> Activity:
    """Simulate a NIR graph; a neuron's activity is the share of timesteps of `dt` in which it sends something.

    Neurons without a threshold (I, LI, CubaLI) and sums that no neurons follow send in every step; what they feed is
    not simulated.

    Parameters
    ----------
    path
        Of the file.
    samples
        One array as for lava-dl networks of spiking neurons (`measure_net`).
    input_shape
        As of `read_nir`.
    seed
        Of random samples and spikes.
    steps
        Timesteps of samples that have none.
    dt
        Timestep in units of the time constants; None: STEP_S where any of these is below 1, else STEP.

    """
    reading = read_graph(path, input_shape)
    inputs_of = [name for name in reading.neurons if reading.kind[name] == "Input"]
    if len(inputs_of) != 1:
        raise InputError(f"'{path}': activity is measured on graphs with one input, it has {len(inputs_of)}")
    step = _step(reading) if dt is None else finite_number("dt", dt, 0.0)
    hidden = _hidden(reading)
    layers, synapses = _simulated(reading, hidden, step)
    shape = reading.neurons[inputs_of[0]].shape
    spikes, n_samples = spikes_of(f"'{path}'", shape, samples, steps, seed)
    source = list(reading.neurons).index(inputs_of[0])
    counts = np.zeros(reading.assembly.n_neurons)
    for first in range(0, len(spikes), BATCH):
        for sent in simulate(layers, synapses, {source: spikes[first : first + BATCH]}):
            counts += (sent[1:] != 0).sum(axis=1)
    activity = counts / prod(spikes.shape[:2])
    for name in hidden:
        activity[reading.neurons[name].ravel() - 1] = 1.0
    reading.assembly.pass_on(activity)
    return Activity(reading.assembly.by_layer(activity), n_samples, tuple(sorted(hidden)), digest_of(path))


def _simulated(
    reading: Reading, hidden: set[str], step: float
) -> tuple[list[tuple[IntArray, Neurons]], list[Synapses]]:
    """Return layers and synapses in fixed point; nothing of the hidden layers, which relay."""
    layers: list[tuple[IntArray, Neurons]] = []
    synapses: list[Synapses] = []
    for name, neurons in reading.neurons.items():
        own = [c for c in reading.connected if c.layer == name]
        model: Neurons = Relay()
        if reading.kind[name] in POOLS and name not in hidden:
            synapses += [_synapses(reading, c, np.ones(neurons.size), 1.0) for c in own]
        elif reading.kind[name] != "Input" and name not in hidden:
            population = _population(reading, name, step, own)
            one = _scale(reading, population, own)
            synapses += [_synapses(reading, c, population.gain, one) for c in own]
            model = _lif(population, one)
        layers.append((neurons.ravel(), model))
    return layers, synapses


def _step(reading: Reading) -> float:
    constants = [
        np.min(getattr(node, key))
        for node in reading.nodes.values()
        for key in ("tau", "tau_mem", "tau_syn")
        if hasattr(node, key)
    ]
    return STEP_S if constants and min(constants) < 1 else STEP


def _hidden(reading: Reading) -> set[str]:
    """Layers that a run in fixed point does not show: those without a threshold, and all that follow them."""
    found = {
        name for name in reading.neurons if reading.kind[name] in ("I", "LI", "CubaLI", *MATRICES, "Conv1d", "Conv2d")
    }
    owner = {int(n): name for name, neurons in reading.neurons.items() for n in neurons.ravel()[:1]}
    feeds: dict[str, set[str]] = {}
    for c in reading.connected:
        for first in reading.assembly.layers_of(c.source):
            feeds.setdefault(owner.get(first, ""), set()).add(c.layer)
    todo = list(found)
    while todo:
        for layer in feeds.get(todo.pop(), set()) - found:
            found.add(layer)
            todo.append(layer)
    return found


def _population(reading: Reading, name: str, dt: float, own: list[Connected]) -> _Population:
    node, kind, n = reading.nodes[name], reading.kind[name], reading.neurons[name].size
    where = f"{reading.where}, node '{name}' ({kind})"

    def of(key: str, default: float = 0.0) -> FloatArray:
        values = np.asarray(getattr(node, key, default), dtype=np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"{where}, {key}: expected finite numbers")
        return np.broadcast_to(values.ravel(), n).copy()

    if np.any(of("v_reset")):
        raise InputError(f"{where}, v_reset: expected 0, which is what the chip resets to")
    per_step = {"IF": None, "Threshold": None, "LIF": "tau", "CubaLIF": "tau_mem"}[kind]
    decay = np.zeros(n) if per_step is None else dt / of(per_step)
    gain, current_decay = np.ones(n), np.ones(n)
    if kind == "IF":
        gain = of("r", 1.0) * dt
    elif kind == "Threshold":
        decay = np.ones(n)
    else:
        gain = of("r", 1.0) * decay
    if kind == "CubaLIF":
        current_decay = dt / of("tau_syn")
        gain = gain * of("w_in", 1.0) * current_decay
    if (decay > 1).any() or (current_decay > 1).any():
        raise InputError(f"{where}: expected time constants of at least dt = {dt:g}; give a smaller dt")
    bias = of("v_leak") * decay
    for c in own:
        if c.node and getattr(reading.nodes[c.node], "bias", None) is not None:
            added = np.asarray(reading.nodes[c.node].bias, dtype=np.float64).ravel()
            bias = bias + gain * np.repeat(added, n // added.size)
    threshold = of("threshold") if kind == "Threshold" else of("v_threshold", 1.0)
    return _Population(gain, decay, current_decay, bias, threshold)


def _scale(reading: Reading, population: _Population, own: list[Connected]) -> float:
    """What 1 is in fixed point."""
    largest = max(
        (float(np.abs(_weights(reading, c)).max() * np.abs(_factors(reading, c)).max()) for c in own), default=0.0
    ) * float(np.abs(population.gain).max())
    one = MOST_WEIGHT / largest if largest > 0 else 1.0
    return min(one, MOST_THRESHOLD / max(float(population.threshold.max()), 1e-300))


def _lif(population: _Population, one: float) -> Lif:
    return Lif(
        vth=np.rint(population.threshold * one).astype(np.int64),
        du=np.rint(population.current_decay * 2**DECAY_BITS).astype(np.int64) - 1,
        dv=np.rint(population.decay * 2**DECAY_BITS).astype(np.int64),
        bias=np.rint(population.bias * one * 2**ALIGN_BITS).astype(np.int64),
    )


def _weights(reading: Reading, c: Connected) -> FloatArray:
    """(out, in), or (out, in / groups, height, width); ones where values come as they are."""
    if not c.node:
        return np.ones(())
    if reading.kind[c.node] in POOLS:  # means too: `_factors` divides what follows, where integers keep their digits
        return np.ones((c.source.shape[0], 1, *reading.window(c.node)[1]["kernel"]))
    weights = np.asarray(reading.nodes[c.node].weight, dtype=np.float64)
    return weights[:, :, None] if reading.kind[c.node] == "Conv1d" else weights


def _factors(reading: Reading, c: Connected) -> FloatArray:
    """What values are multiplied by before the weights, in the shape of the source."""
    found = np.broadcast_to(c.factor, c.source.shape).astype(np.float64)
    for name, neurons in reading.neurons.items():
        if reading.kind[name] == "AvgPool2d":
            low, high = int(neurons.min()), int(neurons.max())
            found[(c.source >= low) & (c.source <= high)] /= prod(reading.window(name)[1]["kernel"])
    return found


def _synapses(reading: Reading, c: Connected, gain: FloatArray, one: float) -> Synapses:
    """Connect in fixed point: weights times what the values are multiplied by before and what becomes of a sum."""
    target, weights = reading.neurons[c.layer].ravel(), _weights(reading, c)
    if not c.node:
        own = np.rint(gain * _factors(reading, c).ravel() * one).astype(np.int64)
        each = Geometry(groups=target.size)
        return Synapses(c.source.reshape(-1, 1, 1), target, own.reshape(-1, 1, 1, 1), each)
    if reading.kind[c.node] in MATRICES:
        whole = weights * gain[:, None] * _factors(reading, c).ravel() * one
        return Synapses(c.source.ravel(), target, np.rint(whole).astype(np.int64))
    shape_after, geometry = reading.window(c.node)
    by_channel = gain.reshape(shape_after[0], -1)
    factors = _factors(reading, c)
    if np.ptp(by_channel, axis=1).any() or np.ptp(factors):
        raise InputError(
            f"{reading.where}, node '{c.node}': expected neurons behind a convolution with the same constants in a "
            "channel, and one Scale for all values before it"
        )
    whole = weights * by_channel[:, 0][:, None, None, None] * float(factors.flat[0]) * one
    source = c.source if c.source.ndim == 3 else c.source[:, None, :]
    moves = Geometry(geometry["stride"], geometry["padding"], geometry["dilation"], geometry["groups"])
    return Synapses(source, target, np.rint(whole).astype(np.int64), moves)
