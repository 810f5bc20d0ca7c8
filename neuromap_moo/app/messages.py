"""Help, and what a wrong command line is told; all of it from the files in conf/, without Hydra."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuromap_moo import __version__
from neuromap_moo.errors import InputError, did_you_mean
from neuromap_moo.files import config_folder


def say(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr, flush=True)


GROUPS = ("network", "system", "evaluator", "algorithm", "experiment")

#: Tasks of the command line and what each does.
TASKS = {
    "optimize": "search the Pareto front of mappings (the default)",
    "evaluate": "score the mappings of a run on another system or evaluator",
    "sample": "make mappings that differ much, to be measured",
    "calibrate": "fit a system's constants to measurements",
    "profile": "measure the activity of a network file, and tell what each layer needs",
    "measurements": "list what boards have measured, as tables",
    "export": "write a run's mappings as placements for Lava's compiler",
}

HELP = """neuromap_moo {version}: latency-energy Pareto fronts of neural networks mapped onto neuromorphic chips.

  python -m neuromap_moo +experiment=mlp_b                        a ready experiment
  python -m neuromap_moo network=file network.path=my_model.onnx  your own network
  python -m neuromap_moo system=loihi2 system.topology.chips_x=2  two chips in a row
  python -m neuromap_moo algorithm=nsga3 'objectives=[latency_s,energy_j,message_hops]'
  python -m neuromap_moo budget.seconds=60 budget.evaluations=null seed=1 output=outputs/mine
  python -m neuromap_moo -m algorithm=nsga2,nsga3 'seed=range(0,5)'  a sweep
  python -m neuromap_moo task=evaluate run=outputs/mine system=loihi2_152

Tasks (task=NAME)
{tasks}

Groups (group=option; an experiment is added, +experiment=NAME)
{groups}

Keys (key=value)
{keys}

Each option of a group has keys of its own: python -m neuromap_moo GROUP=OPTION --cfg job shows them all.
"""


def answer(arguments: Sequence[str]) -> str | None:
    """Return what is said to `--help` and `--version`, None where neither is asked for."""
    if "--version" in arguments:
        return f"neuromap_moo {__version__}"
    return help_text() if {"--help", "-h"} & set(arguments) else None


def help_text() -> str:
    """Return what `--help` says: tasks, groups with their options, and every key with its default and meaning."""
    return HELP.format(
        version=__version__,
        tasks=_columns(TASKS.items()),
        groups=_columns((group, ", ".join(options_of(group))) for group in GROUPS),
        keys=_columns(_described_keys()),
    )


def options_of(group: str) -> list[str]:
    """Return the options of a configuration group, sorted."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def refuse_unknown_options(arguments: Sequence[str]) -> None:
    """Raise InputError for an option that its group does not have; expressions are left to Hydra."""
    for argument in arguments:
        key, is_given, value = argument.partition("=")
        group = key.lstrip("+")
        if not is_given or group not in GROUPS or not re.fullmatch(r"[\w./\\,-]+", value) or value == "null":
            continue
        known = options_of(group)
        for option in value.split(","):
            if option not in known:
                raise InputError(f"{group}: expected one of {', '.join(known)}, got '{option}'{_hint(group, option)}")


def _hint(group: str, option: str) -> str:
    if group in ("network", "system") and Path(option).suffix:
        return f"; a file is given as {group}=file {group}.path={option}"
    close = did_you_mean(option, options_of(group))
    return close if "did you mean" in close else ""


def _described_keys() -> list[tuple[str, str]]:
    """Return every key of config.yaml with its default, and what the comment behind it says."""
    described = []
    outer = ""
    for line in (config_folder() / "config.yaml").read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"( *)(\w+):(?: +(.*?))?(?:  # (.*))?", line)
        if line.startswith("hydra:"):
            break
        if not found or found[2] == "defaults":
            continue
        indent, key, default, meaning = found.groups()
        outer = outer if indent else key
        if default is not None:
            described.append((f"{outer}.{key}={default}" if indent else f"{key}={default}", meaning or ""))
    return described


def _columns(rows: Any) -> str:
    rows = [tuple(row) for row in rows]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)


def plain_message(message: str) -> str:
    """Return what Hydra says of a wrong command line without what only its developers need."""
    unknown = re.match(r"Could not override '([^']+)'", message)
    known = known_keys() if unknown else set()
    if unknown and unknown[1] == "experiment":
        return "experiment: an experiment is added with a plus, +experiment=NAME"
    if unknown and unknown[1].startswith("constraints."):
        return f"key '{unknown[1]}': constraints are added with a plus, +{unknown[1]}=..."
    if unknown and unknown[1] in known:
        group = unknown[1].partition(".")[0]
        if group == "system":
            return f"key '{unknown[1]}' is not in a system that comes from a file; add it as +{unknown[1]}=..."
        return f"key '{unknown[1]}' does not belong to the {group} chosen; leave it out or choose another {group}=..."
    if unknown:
        return f"unknown key '{unknown[1]}'{did_you_mean(unknown[1], known)}"
    for tail in ("Config search path:", "full_key:", "See https:"):
        message = message.partition(tail)[0]
    if "hydra/launcher/joblib" in message:
        return "hydra/launcher=joblib: not installed; pip install 'neuromap-moo[joblib]'"
    if any(words in message for words in ("LexerNoViableAlt", "mismatched input", "extraneous input")):
        return f"{message.strip()}: put values with special characters in quotes of their own, as in 'output=\"a=b\"'"
    return f"{message.strip()}; see python -m neuromap_moo --help"


def known_keys() -> set[str]:
    """Every key that some configuration has, by its full name."""
    import yaml

    keys: set[str] = set()

    def walk(prefix: str, data: Any) -> None:
        for key, value in data.items() if isinstance(data, dict) else ():
            keys.add(f"{prefix}{key}")
            walk(f"{prefix}{key}.", value)

    folder = config_folder()
    for path in [folder / "config.yaml", *folder.glob("*/*.yaml")]:
        if path.parent.name == "experiment":
            continue
        keys.add(path.parent.name if path.parent != folder else "seed")
        prefix = "" if path.parent == folder else f"{path.parent.name}."
        walk(prefix, yaml.safe_load(path.read_text(encoding="utf-8")))
    return {key for key in keys if not key.startswith(("hydra", "defaults"))}
