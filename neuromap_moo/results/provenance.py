"""Where a run came from: versions, revision, command, configuration and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from neuromap_moo.problem.problem import MappingProblem

LIBRARIES = ("pymoo", "moocore", "numpy", "numba", "scipy", "networkx", "hydra-core")


def provenance_of(problem: MappingProblem, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return versions, git revision, command, resolved config, digests and machine."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {
            "neuromap-moo": _version("neuromap-moo"),
            "python": platform.python_version(),
            **{name: _version(name) for name in LIBRARIES},
        },
        "git_revision": _git_revision(),
        "machine": {"platform": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "network": problem.network.digest,
        "system": problem.system.digest,
        "constraints": problem.constraints.digest,
        "config": config,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Revision of the checkout this package runs from, with "+changes" where it differs; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    if revision.returncode != 0:
        return None
    return revision.stdout.strip() + ("+changes" if status.stdout.strip() else "")
