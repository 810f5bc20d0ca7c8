"""A simulated board: the packet simulator behind the device protocol, as slow, noisy and unreliable as asked for.

    python -m neuromap_moo.workers.virtual_board --help

Its cost constants are not those of the system it is told of, but drawn around them: a search sees them through
measurements alone, as those of a chip.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import abc
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from neuromap_moo.boards.protocol import METRICS
from neuromap_moo.boards.serving import FatalError, Measure, TransientError, serve
from neuromap_moo.mapping.mapping import Mapping, stack
from neuromap_moo.models.packet import PacketEvaluator
from neuromap_moo.network.files import load_npz
from neuromap_moo.network.network import Network
from neuromap_moo.partition.fixed import partitioner_for
from neuromap_moo.system.system import System, load_system


@dataclass(frozen=True)
class Options:
    """How the board behaves; each is an option of the command line, see HELP."""

    seed: int = 0
    spread: float = 2.0
    steps: int = 8
    noise: float = 0.03
    offset: float = 0.0
    drift: float = 0.0
    delay_s: float = 0.0
    crashes: float = 0.0
    hangs: float = 0.0
    transients: float = 0.0
    dies_after: int = 0
    memory: str = ""
    luck: int = 0


HELP = {
    "seed": "of the cost constants",
    "spread": "constants are off by up to this factor, either way",
    "steps": "timesteps simulated for each mapping",
    "noise": "relative standard deviation of each repeat",
    "offset": "by which all that this board measures is off, relatively",
    "drift": "relative change over each 100 measurements",
    "delay_s": "seconds that a measurement takes beside the simulation",
    "crashes": "share of measurements in which the process ends",
    "hangs": "share in which it never answers",
    "transients": "share in which it says that it did not work",
    "dies_after": "measurements after which it never starts again, 0 for never; needs memory",
    "memory": "file that counts measurements over restarts, for drift and dies_after",
    "luck": "seed of noise and failures",
}


def planted(system: System, seed: int, spread: float) -> System:
    """Return a system whose cost constants are off by random factors.

    Constants of one family, such as those of mesh_x and mesh_y, are off by the same factor; `message_bits` stays.

    Parameters
    ----------
    system
        The system as it is known.
    seed
        Of the factors.
    spread
        Factors are log-uniform between 1 / spread and spread.

    """
    rng = np.random.default_rng(seed)
    families = sorted({name.partition(".")[0] for name in system.costs} - {"message_bits"})
    factor = dict(zip(families, spread ** rng.uniform(-1.0, 1.0, len(families)), strict=True))
    costs = {name: c.value * factor.get(name.partition(".")[0], 1.0) for name, c in system.costs.items()}
    return system.with_costs(costs)


def truth(network: Network, system: System, options: Options) -> PacketEvaluator:
    """Return the evaluator that gives a virtual board's values without their noise, drift and offset.

    Parameters
    ----------
    network
        The network to run.
    system
        The system as it is known.
    options
        Of the board; `seed`, `spread` and `steps` count.

    """
    real = planted(system, options.seed, options.spread)
    return PacketEvaluator(partitioner_for(network, real), real, steps=options.steps)


class VirtualBoard:
    """A simulated board; `start` gives it its network and system, and it counts what it has measured."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._count = 0

    def start(self, message: abc.Mapping[str, Any]) -> tuple[str, tuple[str, ...], Measure]:
        """Take the network and system of a message `hello`; return the worker's name, its metrics and what measures.

        Raises FatalError where the board is dead.
        """
        if self.options.dies_after and self._counted() >= self.options.dies_after:
            raise FatalError(f"dead after {self.options.dies_after} measurements")
        network, system = load_npz(message["network"]), load_system(Path(message["system"]))
        self._evaluator = truth(network, system, self.options)
        fewest = self._evaluator.partitioner.minimum.tolist()
        cores = system.usable_cores[: sum(fewest)].tolist()
        self._exact(Mapping(tuple(fewest), tuple(cores)))  # compiles: no part of a measurement
        return f"virtual board {self.options.seed}", METRICS, self.simulate

    def simulate(self, message: abc.Mapping[str, Any]) -> dict[str, list[float]]:
        """Return the values of all repeats by metric, for a message `measure`."""
        options = self.options
        # Noise and failures go by the id, so a run can be repeated, and a second attempt has luck of its own.
        rng = np.random.default_rng([options.luck, int(message["id"])])
        time.sleep(options.delay_s)
        self._fail_perhaps(rng.random())
        given = message["mapping"]
        exact = self._exact(Mapping(given["cores_per_layer"], given["core_of_slice"]))
        off = (1.0 + options.offset) * (1.0 + options.drift) ** (self._counted(1) / 100.0)
        scatter = np.exp(options.noise * rng.standard_normal((len(METRICS), message["repeats"])))
        return {name: (exact[name] * off * row).tolist() for name, row in zip(METRICS, scatter, strict=True)}

    def _exact(self, mapping: Mapping) -> dict[str, float]:
        found = self._evaluator.evaluate(stack([mapping]))
        return {name: float(found[name][0]) for name in METRICS}

    def _fail_perhaps(self, drawn: float) -> None:
        crashes, hangs, transients = np.cumsum([self.options.crashes, self.options.hangs, self.options.transients])
        if drawn < crashes:
            os._exit(1)
        elif drawn < hangs:
            while True:
                time.sleep(3600.0)
        elif drawn < transients:
            raise TransientError("the chip did not answer this time")

    def _counted(self, more: int = 0) -> int:
        """Count measurements, in this process or, where there is a file, over all of them; return how many before."""
        path = Path(self.options.memory)
        if self.options.memory:
            self._count = int(path.read_text(encoding="utf-8")) if path.exists() else 0
        before, self._count = self._count, self._count + more
        if self.options.memory and more:
            path.write_text(str(self._count), encoding="utf-8")
        return before


def main() -> int:
    """Take the options and serve until the host is gone."""
    parser = argparse.ArgumentParser(
        prog="python -m neuromap_moo.workers.virtual_board", description=(__doc__ or "").splitlines()[0]
    )
    for option in fields(Options):
        kind = type(option.default)
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=kind,
            default=option.default,
            help=HELP[option.name] + " (%(default)s)",
        )
    return serve(VirtualBoard(Options(**vars(parser.parse_args()))).start)


if __name__ == "__main__":
    sys.exit(main())
