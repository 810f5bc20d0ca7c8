"""The rules that every legal mapping keeps, one by one and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.sparse import csr_array

from neuromap_moo.arrays import IntArray
from neuromap_moo.errors import InputError
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.network.connectivity import HEADER_BITS, INDEX_BITS, WORD_BITS, Convolution, Dense, Sparse
from neuromap_moo.network.network import Network
from neuromap_moo.partition.constraints import Constraints, LayerConstraints
from neuromap_moo.partition.core_graph import CoreGraph
from neuromap_moo.system.system import System


class HasNetworkAndSystem(Protocol):
    """Anything with a network (or core graph) and a system, such as a MappingProblem."""

    network: Network | CoreGraph
    system: System


def check(mapping: Mapping, problem: HasNetworkAndSystem) -> None:
    """Raise InputError at the first rule that a mapping breaks; return None where it breaks none.

    Constraints are those of `problem.constraints`, where it has some. Independent of the search: synapse words are
    counted here from the network with scipy, not with the project's kernels.

    >>> import neuromap_moo as nm
    >>> network = nm.sparse_mlp([8, 8], 0.5, seed=0)
    >>> problem = nm.MappingProblem(network, nm.mesh_system(2, 2))
    >>> nm.check(nm.Mapping([1, 2], [0, 3, 1]), problem)
    >>> nm.check(nm.Mapping([1, 2], [0, 3, 3]), problem)
    Traceback (most recent call last):
    ...
    neuromap_moo.errors.InputError: mapping, slices 1 and 2: both on core 3; a core holds one slice
    """
    network, system = problem.network, problem.system
    _check_counts(mapping, network)
    _check_cores(mapping, system)
    if not isinstance(network, CoreGraph):
        _check_memory(mapping.cores_per_layer, network, system)
    elif mapping.cores_per_layer != network.cores_per_layer:
        raise InputError(f"mapping, cores_per_layer: the core graph's partition is fixed to {network.cores_per_layer}")
    constraints: Constraints | None = getattr(problem, "constraints", None)
    if constraints:
        _check_constraints(mapping, constraints, network, system)


def _check_counts(mapping: Mapping, network: Network | CoreGraph) -> None:
    names, k = network.layer_names, mapping.cores_per_layer
    if len(k) != len(names):
        raise InputError(f"mapping, cores_per_layer: expected {len(names)} layers, got {len(k)}")
    for name, n in zip(names, k, strict=True):
        if n < 1:
            raise InputError(f"mapping, layer '{name}': expected at least 1 core, got {n}")
    if sum(k) != mapping.cores_used:
        raise InputError(
            f"mapping, core_of_slice: expected {sum(k)} cores as cores_per_layer says, got {mapping.cores_used}"
        )


def _check_cores(mapping: Mapping, system: System) -> None:
    usable = set(range(system.n_cores)) - set(system.masked_cores)
    seen: dict[int, int] = {}
    for s, core in enumerate(mapping.core_of_slice):
        if core not in usable:
            why = "is masked out" if 0 <= core < system.n_cores else f"is not in 0..{system.n_cores - 1}"
            raise InputError(f"mapping, slice {s}: core {core} {why} on system '{system.name}'")
        if core in seen:
            raise InputError(f"mapping, slices {seen[core]} and {s}: both on core {core}; a core holds one slice")
        seen[core] = s


def _check_memory(k: Sequence[int], network: Network, system: System) -> None:
    for layer, n in zip(network.layers, k, strict=True):
        if n > layer.size:
            raise InputError(
                f"mapping, layer '{layer.name}': expected at most {layer.size} cores, one per neuron, got {n}"
            )
        largest = -(-layer.size // n)
        if largest > system.neurons_per_core:
            raise InputError(
                f"mapping, layer '{layer.name}': {largest} neurons in a slice, a core holds {system.neurons_per_core}; "
                "give it more cores"
            )
        words = _words(network, layer.name, n)
        if words.max() > system.synapse_words:
            raise InputError(
                f"mapping, layer '{layer.name}', slice {int(words.argmax())}: {int(words.max())} synapse words, a core "
                f"holds {system.synapse_words}; give it more cores"
            )


def _check_constraints(
    mapping: Mapping, constraints: Constraints, network: Network | CoreGraph, system: System
) -> None:
    ends = np.cumsum(mapping.cores_per_layer).tolist()
    cores = {
        name: mapping.core_of_slice[end - k : end]
        for name, end, k in zip(network.layer_names, ends, mapping.cores_per_layer, strict=True)
    }
    for name, rule in constraints.layers.items():
        where = f"mapping, layer '{name}'"
        for j, core in enumerate(cores[name]):
            at = f"{where}, slice {j}: core {core}"
            if j in rule.fixed and core != rule.fixed[j]:
                raise InputError(f"{at}, the constraints fix it to core {rule.fixed[j]}")
            _check_numbers(at, core, rule, system)
            if rule.rows is not None or rule.region is not None:
                _check_position(at, core, rule, system)
        _check_fixed(where, len(cores[name]), rule)
        _check_range(where, [len(cores[name])], rule.min_cores, rule.max_cores, "cores")
        neurons = _neurons(network, name, len(cores[name]))
        _check_range(where, neurons, rule.min_neurons_per_core, rule.max_neurons_per_core, "neurons per core")
    for group in constraints.same_chip:
        _check_same_chip(group, cores, system)


def _router(core: int, system: System) -> int:
    return core // system.topology.cores_per_router


def _check_numbers(at: str, core: int, rule: LayerConstraints, system: System) -> None:
    """Cores, routers and chips that the slices of a layer may have."""
    router = _router(core, system)
    for key, value, allowed in (
        ("cores", core, rule.cores),
        ("routers", router, rule.routers),
        ("chips", int(system.chip_of_router[router]), rule.chips),
    ):
        if allowed is not None and value not in allowed:
            raise InputError(f"{at}, the constraints allow {key} {list(allowed)}, it is on {value}")


def _check_position(at: str, core: int, rule: LayerConstraints, system: System) -> None:
    """Rows and the region of a mesh."""
    x, y = system.router_xy[_router(core, system)].tolist()  # type: ignore[index]
    if rule.rows is not None and y not in rule.rows:
        raise InputError(f"{at} lies in row {y}, the constraints allow rows {list(rule.rows)}")
    if rule.region is not None:
        x0, y0, x1, y1 = rule.region
        if not (x0 <= x <= x1 and y0 <= y <= y1):
            raise InputError(f"{at} lies at ({x}, {y}), the constraints allow region {list(rule.region)}")


def _check_fixed(where: str, n_slices: int, rule: LayerConstraints) -> None:
    """Fixed slices have to be there."""
    for j in rule.fixed:
        if j >= n_slices:
            raise InputError(f"{where}: {n_slices} cores, the constraints fix its slice {j}")


def _check_range(where: str, counts: list[int], least: int | None, most: int | None, what: str) -> None:
    """Fewest and most cores of a layer, and neurons on each."""
    if least is not None and min(counts) < least:
        raise InputError(f"{where}: {min(counts)} {what}, the constraints ask for at least {least}")
    if most is not None and max(counts) > most:
        raise InputError(f"{where}: {max(counts)} {what}, the constraints allow at most {most}")


def _check_same_chip(group: Sequence[str], cores: dict[str, tuple[int, ...]], system: System) -> None:
    """Layers that share a chip."""
    used = sorted({int(system.chip_of_router[_router(core, system)]) for name in group for core in cores[name]})
    if len(used) > 1:
        raise InputError(f"mapping, same_chip {list(group)}: expected one chip, its slices are on chips {used}")


def _neurons(network: Network | CoreGraph, layer_name: str, n_slices: int) -> list[int]:
    if isinstance(network, CoreGraph):
        return [1] * n_slices  # its neurons are not known, and no constraint counts them
    size = network.layers[network.layer_index[layer_name]].size
    return [len(part) for part in np.array_split(np.arange(size), n_slices)]


def _words(network: Network, layer_name: str, n_slices: int) -> IntArray:
    """64-bit words of synapses (n_slices,) that each slice of a layer stores."""
    words = np.zeros(n_slices, dtype=np.int64)
    for p in network.projections:
        if p.target != layer_name or p.weight_bits == 0:
            continue
        parts = np.array_split(np.arange(p.connectivity.n_target), n_slices)
        slice_of = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])
        if isinstance(p.connectivity, Convolution):
            words += _kernel_words(p.connectivity, p.weight_bits, slice_of, n_slices)
            continue
        per_row = _synapses_per_row(p.connectivity, slice_of, n_slices)
        bits = per_row * (p.weight_bits + INDEX_BITS) + HEADER_BITS
        words += np.where(per_row > 0, np.ceil(bits / WORD_BITS), 0).sum(axis=0).astype(np.int64)
    return words


def _kernel_words(c: Convolution, weight_bits: int, slice_of: IntArray, n_slices: int) -> IntArray:
    """Words of the kernels that each slice stores, one for every channel of which it holds a neuron."""
    numbers, (channels, height, width) = np.arange(c.n_target), c.output_shape
    channel = numbers // (height * width) if c.cut == "channels" else numbers % channels
    held = np.bincount(np.unique(np.stack([slice_of, channel]), axis=1)[0], minlength=n_slices)
    filled = math.ceil(c.input_shape[0] / 16) * 16 / c.groups
    return np.ceil(held * filled * c.kernel[0] * c.kernel[1] * (weight_bits + 1) / 64).astype(np.int64)


def _synapses_per_row(c: Dense | Sparse, slice_of: IntArray, n_slices: int) -> IntArray:
    """Synapses (n_source, n_slices) of each source neuron into each slice."""
    if isinstance(c, Dense):
        return np.tile(np.bincount(slice_of), (c.n_source, 1))
    ones = np.ones(c.indices.size, dtype=np.int64)
    synapses = csr_array((ones, c.indices, c.indptr), (c.n_source, c.n_target))
    member = (np.ones(c.n_target, dtype=np.int64), (np.arange(c.n_target), slice_of))
    return np.asarray((synapses @ csr_array(member, (c.n_target, n_slices))).toarray())
