"""How the neurons of feature maps are numbered: by channels, rows or columns, layer by layer.

Slices are runs of numbers, so the numbering decides whether a map is cut along its channels, rows or columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.network.connectivity import MOST_SLICES, NUMBERINGS, Connectivity, Convolution, slice_bounds
from neuromap_moo.network.network import Layer, Network, with_cuts
from neuromap_moo.system.system import System

#: A numbering that needs up to this many times the fewest cores may still be taken for its fewer messages.
CORES_FACTOR = 1.25

#: Beyond so many rows and channels, messages by channels are bounded instead of counted.
COUNTED = 2_000_000


def numbered_for(network: Network, system: System, cut: Any = "auto", key: str = "cut") -> Network:
    """Number the feature maps of a network for a system; a network without any is returned as it is.

    Parameters
    ----------
    network
        Read or generated, with its activity.
    system
        Whose cores the slices are to fit.
    cut
        "auto": as `with_best_cuts` does; "as_given" or None: as it is; "channels", "rows" or "columns" for all maps, or
        one of them for each of some layers by name.
    key
        Names `cut` in errors.

    Raises
    ------
    InputError
        For an unknown numbering or layer.

    """
    if cut is None or cut == "as_given":
        return network
    if cut == "auto":
        return with_best_cuts(network, system)
    if isinstance(cut, Mapping):
        return with_cuts(network, {str(name): str(of_layer) for name, of_layer in cut.items()})
    if cut not in NUMBERINGS:
        raise InputError(f"{key}: no '{cut}'{did_you_mean(str(cut), ('auto', 'as_given', *NUMBERINGS))}")
    return with_cuts(network, {layer.name: cut for layer in network.layers if layer.shape is not None})


def with_best_cuts(network: Network, system: System) -> Network:
    """Number every feature map so that it takes few cores first, and few messages then.

    For each layer alone: of the numberings that fit into `CORES_FACTOR` times the fewest cores, the one with which the
    layer receives the fewest messages when it is cut in as many slices. Layers for which this makes no difference
    follow the layer before them, or after them.
    """
    chosen: dict[str, str] = {}
    undecided: list[tuple[str, list[str]]] = []
    for i in network.topological_order:
        layer = network.layers[i]
        if layer.shape is None or 1 in (layer.shape[0], layer.shape[1] * layer.shape[2]):
            continue
        best = _best_numberings(network, layer, system)
        before = [chosen[p.source] for p in network.projections if p.target == layer.name and p.source in chosen]
        if len(best) == 1 or before:
            chosen[layer.name] = _following(before, best)
        else:
            undecided.append((layer.name, best))
    for name, best in undecided:
        after = [chosen[p.target] for p in network.projections if p.source == name and p.target in chosen]
        chosen[name] = _following(after, best)
    return with_cuts(network, chosen)


def _following(others: Sequence[str], best: Sequence[str]) -> str:
    """Return the numbering of the first of other layers where it is among the best, else the best."""
    return others[0] if others and others[0] in best else best[0]


class _Incoming(NamedTuple):
    """What comes in at a layer from one other: how, with which weights, and what its neurons send."""

    connectivity: Connectivity
    weight_bits: int
    activity: FloatArray


def _best_numberings(network: Network, layer: Layer, system: System) -> list[str]:
    """Numberings of a layer that are as good as any, in the order of `NUMBERINGS`."""
    incoming = [
        _Incoming(p.connectivity, p.weight_bits, network.layers[network.layer_index[p.source]].activity)
        for p in network.projections
        if p.target == layer.name
    ]
    fewest: dict[str, int] = {}
    numbered: dict[str, list[_Incoming]] = {}
    for numbering in NUMBERINGS:
        forms = [_with_target(x, numbering) for x in incoming]
        k = _fewest_slices(layer, forms, system)
        if k:
            fewest[numbering], numbered[numbering] = k, forms
    if not fewest:
        return list(NUMBERINGS)  # it fits in none; the partition says so
    within = [numbering for numbering, k in fewest.items() if k <= CORES_FACTOR * min(fewest.values())]
    k = max(fewest[numbering] for numbering in within)
    messages = {numbering: sum(_messages(x, layer, k) for x in numbered[numbering]) for numbering in within}
    least = min(messages.values())
    return [numbering for numbering in within if messages[numbering] <= 1.001 * least]


def _with_target(incoming: _Incoming, numbering: str) -> _Incoming:
    """Return it with the target's neurons numbered another way."""
    c = incoming.connectivity
    return incoming._replace(connectivity=replace(c, cut=numbering)) if isinstance(c, Convolution) else incoming


def _fewest_slices(layer: Layer, incoming: Sequence[_Incoming], system: System) -> int:
    """Slices in which the layer fits, about as few as possible; 0 if there are none."""
    most = min(layer.size, system.usable_cores.size, MOST_SLICES)
    k = -(-layer.size // system.neurons_per_core)
    while k <= most:
        bounds, none = slice_bounds(layer.size, k), np.zeros(k, dtype=np.int64)
        words = sum((x.connectivity.words(x.weight_bits, bounds) for x in incoming), none)
        if words.max() <= system.synapse_words:
            return k
        k = max(k + 1, k + k // 16)
    return 0


def _messages(incoming: _Incoming, layer: Layer, k: int) -> float:
    """Messages per timestep that a projection makes the k slices of its target receive, all together."""
    form, activity = incoming.connectivity, incoming.activity
    if isinstance(form, Convolution) and form.cut == "channels" and form.sends.size * form.output_shape[0] > COUNTED:
        return float(activity[form.sends].sum()) * min(k, form.output_shape[0] // form.groups)
    rows = form.rows(slice_bounds(layer.size, k))
    return float(np.diff(rows.start)[form.row_of_source] @ activity)
