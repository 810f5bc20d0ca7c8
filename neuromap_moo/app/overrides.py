"""What the command line names, and how it is laid over the configuration of an earlier run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig

from neuromap_moo.errors import InputError
from neuromap_moo.system.costs import BRACKET
from neuromap_moo.system.topology import GIVEN

#: What a task takes from the run that it works on unless the command line names it.
GROUPS = ("network", "system", "constraints", "evaluator", "objectives", "name")


def given_keys() -> list[str]:
    """Return the keys that the command line names."""
    return [override.partition("=")[0].lstrip("+~") for override in HydraConfig.get().overrides.task]


def mark_given(resolved: dict[str, Any]) -> None:
    """Say of a capacity or cost set on the command line that its user gave it: its source spoke of another number."""
    given = given_keys()
    for key in given:
        path = key.split(".")
        if path[0] == "system" and path[-1] == "value":
            constant = find(resolved, path[:-1])
            named = {other.rpartition(".")[2] for other in given if other.rpartition(".")[0] == key.rpartition(".")[0]}
            constant.update({} if "source" in named else GIVEN)
            for end in set(BRACKET) - named:
                constant.pop(end, None)


def lay_over_run(earlier: Mapping[str, Any], resolved: dict[str, Any]) -> None:
    """Take from the run's configuration what this command line does not name, a key or a whole group."""
    given = given_keys()
    for group in GROUPS:
        if group in given or ("experiment" in given and group in ("network", "system", "name")):
            continue
        if group == "constraints" and resolved[group] is not None:
            continue  # given key by key, or by an experiment: they make sense together only
        now, resolved[group] = resolved[group], copy.deepcopy(earlier[group])
        for key in given:
            path = key.split(".")
            if path[0] == group:
                find(resolved, path[:-1])[path[-1]] = find({group: now}, path[:-1])[path[-1]]
    mark_given(resolved)


def find(tree: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """Return the part of nested data that a path of keys leads to; InputError where it leads nowhere."""
    for i, part in enumerate(path):
        if not isinstance(tree.get(part), dict):
            raise InputError(f"unknown key '{'.'.join(path)}': '{'.'.join(path[: i + 1])}' holds no further keys")
        tree = tree[part]
    return tree
