"""Networks from the configuration: generated or read, and numbered for a system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neuromap_moo.errors import InputError, did_you_mean, expect, refuse_unknown, whole_number
from neuromap_moo.generators.architectures import convolutional, reservoir, transformer
from neuromap_moo.generators.mlp import sparse_mlp
from neuromap_moo.network.network import Network
from neuromap_moo.partition.map_numbering import numbered_for
from neuromap_moo.partition.neuron_order import with_shared_sources
from neuromap_moo.readers.files import read_network
from neuromap_moo.system.system import System

#: Keys of every generator.
GENERATED = ("activity", "activity_sigma", "weight_bits", "steps_per_inference", "seed", "name")

#: What makes a network of each type, and the keys that it takes.
NETWORKS: dict[str, tuple[Callable[..., Network], tuple[str, ...]]] = {
    "sparse_mlp": (
        sparse_mlp,
        ("sizes", "density", "structure", *GENERATED),
    ),
    "convolutional": (convolutional, ("input_shape", "blocks", "dense", "style", *GENERATED)),
    "reservoir": (reservoir, ("inputs", "neurons", "outputs", "density", "input_density", *GENERATED)),
    "transformer": (transformer, ("tokens", "width", "heads", "layers", "hidden", "window", *GENERATED)),
    "file": (
        read_network,
        ("path", "activity", "activity_sigma", "steps_per_inference", "seed", "input_shape", "weight_bits"),
    ),
}

#: Keys of every network that say how its neurons are numbered, and its name, which a generator may take.
NUMBERED = ("type", "name", "cut", "order")


def network_for(config: Mapping[str, Any], system: System, given: Sequence[str] = ()) -> Network:
    """Return the network of a configuration, numbered for a system.

    Parameters
    ----------
    config
        The config group `network`: its `type`, the arguments of the generator or reader, `cut` and `order`.
    system
        What the feature maps are numbered for.
    given
        The keys that a user named, such as "network.activity".

    Raises
    ------
    InputError
        For unknown keys and values, with the key.

    """
    return number_neurons(build_network(config, given), config, system)


def build_network(config: Mapping[str, Any], given: Sequence[str] = ()) -> Network:
    """Make or read the network that the config group `network` describes; `given` are the keys that a user named."""
    kind = config.get("type")
    if kind not in NETWORKS:
        raise InputError(f"network.type: no '{kind}'{did_you_mean(str(kind), NETWORKS)}")
    make, known = NETWORKS[kind]
    refuse_unknown(config, [*NUMBERED, *known], "network.")
    arguments = {key: config[key] for key in known if key in config}
    if kind == "file":
        expect("network.path", config.get("path"), str, "the path of a network file")
        if has_activity(config) and "network.activity" in given:
            raise InputError("network.activity: a .npz file holds its own; leave it out, or save the file anew")
        whole_number("network.weight_bits", config.get("weight_bits", 8), 1)
        _check_input_shape(config.get("input_shape"))
    return make(**arguments)


def _check_input_shape(given: Any) -> None:
    """Check the key network.input_shape: a list of sizes, or such lists by name."""
    shapes = given.values() if isinstance(given, Mapping) else [given] if given is not None else []
    for shape in shapes:
        expect("network.input_shape", shape, (list, tuple), "a list of sizes, e.g. [1,3,224,224], or one by input")
        for size in shape:
            whole_number("network.input_shape", size, 1)


def number_neurons(network: Network, config: Mapping[str, Any], system: System) -> Network:
    """Number neurons as network.cut and network.order say, since slices are runs of numbers."""
    order = config.get("order")
    if order not in (None, "shared_sources"):
        raise InputError(f"network.order: expected null or shared_sources, got {order!r}")
    numbered = numbered_for(network, system, config.get("cut"), "network.cut")
    return numbered if order is None else with_shared_sources(numbered, system)


def has_activity(config: Mapping[str, Any]) -> bool:
    """Tell whether the config group `network` names a file that holds its own activity."""
    return str(config.get("path")).endswith(".npz")
