"""The configuration of a run: every key of conf/config.yaml checked, network and system made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from neuromap_moo.app.messages import TASKS
from neuromap_moo.errors import InputError, did_you_mean, whole_number
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.generators.architectures import convolutional, reservoir, transformer
from neuromap_moo.generators.mlp import sparse_mlp
from neuromap_moo.models.metrics import check_objectives
from neuromap_moo.network.connectivity import CUTS
from neuromap_moo.network.network import Network, with_cuts
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.partition.map_numbering import with_best_cuts
from neuromap_moo.partition.neuron_order import with_shared_sources
from neuromap_moo.readers.files import load_network
from neuromap_moo.system.system import System, load_system, system_from_dict

GENERATED = ("activity", "activity_sigma", "weight_bits", "steps_per_inference", "seed", "name")

NETWORKS = {
    "sparse_mlp": (
        sparse_mlp,
        ("sizes", "density", "structure", *GENERATED),
    ),
    "convolutional": (convolutional, ("input_shape", "blocks", "dense", "style", *GENERATED)),
    "reservoir": (reservoir, ("inputs", "neurons", "outputs", "density", "input_density", *GENERATED)),
    "transformer": (transformer, ("tokens", "width", "heads", "layers", "hidden", "window", *GENERATED)),
    "file": (
        load_network,
        ("path", "activity", "activity_sigma", "steps_per_inference", "seed", "input_shape", "weight_bits"),
    ),
}

FORMATS = ("csv", "parquet")

#: Keys that are a path or null; those that only some tasks use.
PATHS = ("output", "run", "measurements", "samples")
USED_BY = {
    "run": ("evaluate", "calibrate", "measurements", "export"),
    "measurements": ("calibrate", "measurements"),
    "samples": ("profile",),
}


@dataclass(frozen=True)
class Settings:
    """The resolved configuration, checked: one field per key of conf/config.yaml."""

    name: str
    task: str
    objectives: tuple[str, ...]
    budget: Budget
    seed: int
    output: str | None
    overwrite: bool
    keep_evaluations: bool
    figures: bool
    report: bool
    robustness_samples: int
    run: str | None
    mappings: int
    measurements: str | None
    samples: str | None
    format: str
    started: str
    network: Mapping[str, Any]
    system: Mapping[str, Any]
    evaluator: Mapping[str, Any]
    algorithm: Mapping[str, Any]
    constraints: Constraints

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Check keys and types; `++key` gets past Hydra, so nothing is taken for granted."""
        known = [f.name for f in fields(cls)]
        refuse_unknown(config, known, "")
        for key in known:
            if key not in config:
                raise InputError(f"{key}: missing; expected the key of conf/config.yaml, leave out '~{key}'")
        for key in ("budget", "network", "system", "evaluator", "algorithm"):
            expect(key, config[key], Mapping, "a group of keys")
        for key in ("overwrite", "keep_evaluations", "figures", "report"):
            expect(key, config[key], bool, "true or false")
        for key in PATHS:
            if config[key] is not None:
                expect(key, config[key], (str, int), "a path or null")
        name = config["name"]
        if name is None:  # a network from a file goes by the file's name
            name = re.sub(r"[^\w.+ -]", "_", Path(str(config["network"].get("path", "network"))).stem)
        name = str(name)
        if not re.fullmatch(r"[\w.+ -]{1,100}", name) or name.strip(". ") == "":
            raise InputError(f"name: expected up to 100 letters, digits and . _ + - (it names a folder), got {name!r}")
        refuse_unknown(config["budget"], [f.name for f in fields(Budget)], "budget.")
        if config["task"] not in TASKS:
            raise InputError(f"task: no '{config['task']}'{did_you_mean(str(config['task']), TASKS)}")
        if config["format"] not in FORMATS:
            raise InputError(f"format: no '{config['format']}'{did_you_mean(str(config['format']), FORMATS)}")
        for key, tasks in USED_BY.items():
            if config[key] is not None and config["task"] not in tasks:
                raise InputError(
                    f"{key}: got '{config[key]}' with task={config['task']}, which does not use it; add "
                    f"{' or '.join(f'task={task}' for task in tasks)}"
                )
        given = dict(config)
        given |= {
            "name": name,
            "objectives": check_objectives(config["objectives"]),
            "seed": whole_number("seed", config["seed"]),
            "robustness_samples": whole_number("robustness_samples", config["robustness_samples"]),
            "mappings": whole_number("mappings", config["mappings"], 1),
            "budget": Budget(**config["budget"]),
            "constraints": Constraints.from_config(config["constraints"]),
        } | {key: None if config[key] is None else str(config[key]) for key in PATHS}
        return cls(**given)


def build_network(config: Mapping[str, Any], given: Sequence[str] = ()) -> Network:
    """Make or read the network that the config group `network` describes; `given` are the keys that a user named."""
    kind = config.get("type")
    if kind not in NETWORKS:
        raise InputError(f"network.type: no '{kind}'{did_you_mean(str(kind), NETWORKS)}")
    make, known = NETWORKS[kind]
    refuse_unknown(config, ["type", "name", "cut", "order", *known], "network.")
    arguments = {key: config[key] for key in known if key in config}
    if kind == "file":
        expect("network.path", config.get("path"), str, "the path of a network file")
        if has_activity(config) and "network.activity" in given:
            raise InputError("network.activity: a .npz file holds its own; leave it out, or save the file anew")
        whole_number("network.weight_bits", config.get("weight_bits", 8), 1)
        arguments["input_shape"] = _input_shape(config.get("input_shape"))
    return make(**arguments)  # type: ignore[operator,no-any-return]


def _input_shape(given: Any) -> Any:
    """Check the key network.input_shape: a list of sizes, or such lists by name."""
    shapes = given.values() if isinstance(given, Mapping) else [given] if given is not None else []
    for shape in shapes:
        expect("network.input_shape", shape, (list, tuple), "a list of sizes, e.g. [1,3,224,224], or one by input")
        for size in shape:
            whole_number("network.input_shape", size, 1)
    return given


def cut_network(network: Network, config: Mapping[str, Any], system: System) -> Network:
    """Number neurons as network.order and network.cut say, since slices are runs of numbers."""
    order = config.get("order")
    if order not in (None, "shared_sources"):
        raise InputError(f"network.order: expected null or shared_sources, got {order!r}")
    cut = _cut(network, config.get("cut"), system)
    return cut if order is None else with_shared_sources(cut, system)


def _cut(network: Network, cut: Any, system: System) -> Network:
    """Cut feature maps: auto, one cut for all, or cuts by layer."""
    if cut is None:
        return network
    if cut == "auto":
        return with_best_cuts(network, system)
    if isinstance(cut, Mapping):
        return with_cuts(network, {str(name): str(of_layer) for name, of_layer in cut.items()})
    if cut not in CUTS:
        raise InputError(f"network.cut: no '{cut}'{did_you_mean(str(cut), ('auto', *CUTS))}")
    return with_cuts(network, {layer.name: cut for layer in network.layers if layer.shape is not None})


def build_system(config: Mapping[str, Any]) -> System:
    """Make the system that the config group `system` describes, or load the YAML that it names."""
    if "path" in config:
        expect("system.path", config["path"], str, "the path of a system YAML")
        changes = {key: value for key, value in config.items() if key != "path"}
        return load_system(Path(str(config["path"])), changes)
    return system_from_dict(config, where=str(config.get("name", "system")))


def has_activity(config: Mapping[str, Any]) -> bool:
    """Tell whether the config group `network` names a file that holds its own activity."""
    return str(config.get("path")).endswith(".npz")


def refuse_unknown(given: Mapping[str, Any], known: Any, prefix: str) -> None:
    """Raise InputError for a key that is not among the known ones."""
    for key in given:
        if key not in known:
            raise InputError(f"unknown key '{prefix}{key}'{did_you_mean(str(key), known)}")


def expect(key: str, value: Any, kind: Any, words: str) -> None:
    """Raise InputError for a value of another kind."""
    if not isinstance(value, kind):
        raise InputError(f"{key}: expected {words}, got {value!r}")
