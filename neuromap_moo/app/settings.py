"""The configuration of a run: every key of conf/config.yaml checked, and the system made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from neuromap_moo.app.messages import TASKS
from neuromap_moo.errors import InputError, did_you_mean, expect, refuse_unknown, whole_number
from neuromap_moo.evolution.budget import Budget
from neuromap_moo.models.metrics import check_objectives
from neuromap_moo.partition.constraints import Constraints
from neuromap_moo.system.system import System, load_system, system_from_dict

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
        name = _name(config)
        refuse_unknown(config["budget"], [f.name for f in fields(Budget)], "budget.")
        if config["task"] not in TASKS:
            raise InputError(f"task: no '{config['task']}'{did_you_mean(str(config['task']), TASKS)}")
        if config["format"] not in FORMATS:
            raise InputError(f"format: no '{config['format']}'{did_you_mean(str(config['format']), FORMATS)}")
        _check_use(config)
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


def _check_use(config: Mapping[str, Any]) -> None:
    """Raise InputError for a key that the task does not use."""
    for key, tasks in USED_BY.items():
        if config[key] is not None and config["task"] not in tasks:
            raise InputError(
                f"{key}: got '{config[key]}' with task={config['task']}, which does not use it; add "
                f"{' or '.join(f'task={task}' for task in tasks)}"
            )


def _name(config: Mapping[str, Any]) -> str:
    """Return the run's name; a network from a file goes by the file's."""
    name = config["name"]
    if name is None:
        name = re.sub(r"[^\w.+ -]", "_", Path(str(config["network"].get("path", "network"))).stem)
    name = str(name)
    if not re.fullmatch(r"[\w.+ -]{1,100}", name) or name.strip(". ") == "":
        raise InputError(f"name: expected up to 100 letters, digits and . _ + - (it names a folder), got {name!r}")
    return name


def build_system(config: Mapping[str, Any]) -> System:
    """Make the system that the config group `system` describes, or load the YAML that it names."""
    if "path" in config:
        expect("system.path", config["path"], str, "the path of a system YAML")
        changes = {key: value for key, value in config.items() if key != "path"}
        return load_system(Path(str(config["path"])), changes)
    return system_from_dict(config, where=str(config.get("name", "system")))
