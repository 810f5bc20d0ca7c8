"""The activity of a lava-dl network's neurons, by a simulation of its fixed-point neurons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromap_moo.arrays import IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.fixed_point.samples import BATCH, frames_of, spikes_of
from neuromap_moo.fixed_point.simulator import Delta, Lif, Neurons, Relay, Sigma, SigmaDelta, simulate
from neuromap_moo.network.activity import Activity, digest_of
from neuromap_moo.readers.input_shape import InputShape
from neuromap_moo.readers.netx import text_of, walk

#: Bits of the fraction in messages and in weights of sigma-delta networks, and by which LIF biases are shifted: what
#: lava-dl's netx gives Lava. Values and weights of 1.0 are 64 in a file.
SPIKE_EXP, STATE_EXP, BIAS_EXP, ONE = 6, 6, 6, 64


def measure_net(
    path: Path,
    samples: Mapping[str, NDArray[Any]] | None = None,
    input_shape: InputShape = None,
    seed: int = 0,
    steps: int | None = None,
) -> Activity:
    """Simulate a lava-dl network; a neuron's activity is the share of timesteps in which it sends something.

    Parameters
    ----------
    path
        Of the file.
    samples
        One array: (n, timesteps, neurons of the input), or (n, neurons of the input), where an input may have the shape
        of its map. Values come in at every timestep: for networks of spiking neurons a spike where they are not 0;
        values from 0 to 1 in samples without timesteps are the chance of a spike in each of `steps`. Inputs of
        sigma-delta networks are taken as they are where they are integers, else in units of 1/64.
    input_shape
        As of `read_net`.
    seed
        Of random samples and spikes.
    steps
        Timesteps of samples that have none.

    """
    walked = walk(path, input_shape)
    layers = [(neurons, _model(where, node, i == 0)) for i, (neurons, where, node) in enumerate(walked.neurons)]
    shape, where = walked.outputs[0].shape, f"'{path}'"
    if isinstance(layers[0][1], Relay):
        inputs, n_samples = spikes_of(where, shape, samples, steps, seed)
    else:
        inputs, n_samples = frames_of(where, shape, samples, steps, seed, ONE)
    counts = np.zeros(walked.assembly.n_neurons)
    for first in range(0, len(inputs), BATCH):
        for sent in simulate(layers, walked.synapses, {0: inputs[first : first + BATCH]}):
            counts += (sent[1:] != 0).sum(axis=1)
    activity = counts / (inputs.shape[0] * inputs.shape[1])
    walked.assembly.pass_on(activity)
    return Activity(walked.assembly.by_layer(activity), n_samples, (), digest_of(path))


def _model(where: str, node: Any, is_input: bool) -> Neurons:
    """What Lava makes of the neurons that a layer describes."""
    described = node.get("neuron")
    if not isinstance(described, dict):
        return Relay()
    kind = text_of(described["type"]).upper()
    bias = _bias(where, node)
    try:
        if kind in ("CUBA", "LOIHI"):
            if is_input:
                return Relay()
            values = [_integer(described[key]) for key in ("vThMant", "iDecay", "vDecay")]
            return Lif(values[0], values[1] - 1, values[2], bias << BIAS_EXP)
        if kind == "SDNN":
            if is_input:
                return Delta(_integer(described["vThMant"]), SPIKE_EXP)
            if "sigma_output" in described:
                return Sigma()
            relu = text_of(described.get("activation", "relu")).lower() == "relu"
            return SigmaDelta(_integer(described["vThMant"]), bias, SPIKE_EXP, STATE_EXP, relu)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}, neuron: expected whole numbers for its thresholds and decays ({error})") from error
    raise InputError(
        f"{where}: neurons of type '{kind}' cannot be simulated, expected CUBA, LOIHI or SDNN; give network.activity "
        "a number"
    )


def _integer(value: Any) -> int:
    number = float(np.asarray(value).ravel()[0])
    if number != round(number):
        raise ValueError(f"got {number}")
    return int(number)


def _bias(where: str, node: Any) -> IntArray:
    """Of every neuron; a convolution has one of each channel."""
    if "bias" not in node:
        return np.zeros(1, dtype=np.int64)
    bias = np.asarray(node["bias"], dtype=np.float64).ravel()
    n = int(np.prod(np.atleast_1d(node["shape"])))
    if bias.size == 0 or n % bias.size or not np.isfinite(bias).all():
        raise InputError(f"{where}, bias: expected one number for each of {n} neurons or for each channel")
    return np.repeat(bias.astype(np.int64), n // bias.size)
