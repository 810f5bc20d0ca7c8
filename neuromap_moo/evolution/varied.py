"""Mappings that differ much: to be measured, or to compare evaluators by."""

from __future__ import annotations

import numpy as np

from neuromap_moo.annealing.run import advance, start_run
from neuromap_moo.annealing.space import Scalarisation
from neuromap_moo.mapping.encoding import Genomes
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.problem.problem import MappingProblem

#: How a partition is placed, in turn: on cores in ascending order, at random, or from there by so many annealing moves.
PLACEMENTS = {"in_order": 0, "random": 0, "annealed_briefly": 2_000, "annealed": 30_000}
HEAT = 0.1  # see start_run

PATIENCE = 20  # partitions in a row that bring no new mapping; small problems have few


def varied_mappings(problem: MappingProblem, n: int, rng: np.random.Generator) -> dict[str, Mapping]:
    """Return different mappings, of few to many cores, badly and well placed.

    Balanced and random partitions take turns, so that every layer is the slowest in some, and each is placed in all of
    the ways of PLACEMENTS. Fewer than n come back only where there hardly are as many.

    Parameters
    ----------
    problem
        the problem whose mappings are wanted.
    n
        how many, at most.
    rng
        all random numbers come from it.

    Returns
    -------
    mappings by names that say how each was made.

    """
    e = problem.encoding
    balanced = e.encode([b.mapping for b in problem.balanced])[:, : e.n_layers]
    n_balanced = -(-n // (2 * len(PLACEMENTS)))
    balanced = balanced[np.linspace(0, len(balanced) - 1, n_balanced).round().astype(int)]
    made: dict[Mapping, str] = {}
    turn = idle = 0
    while len(made) < n and idle < PATIENCE:
        is_random = turn % 2 == 1
        extras = e.random(1, rng)[0, : e.n_layers] if is_random else balanced[turn // 2 % n_balanced]
        before = len(made)
        for way in PLACEMENTS:
            if len(made) < n:
                mapping = e.decode(_place(problem, extras, way, rng)[None]).unstack()[0]
                made.setdefault(mapping, f"{'random' if is_random else 'balanced'}_{way}")
        turn, idle = turn + 1, 0 if len(made) > before else idle + 1
    return {f"{i}_{name}": mapping for i, (mapping, name) in enumerate(made.items())}


def _place(problem: MappingProblem, extras: Genomes, way: str, rng: np.random.Generator) -> Genomes:
    """Return a genotype (V,) with a partition as given in its first variables (L,)."""
    e = problem.encoding
    order = np.arange(e.n_cores) if way == "in_order" else rng.permutation(e.n_cores)
    genome: Genomes = e.repair(np.concatenate([extras, order])[None])[0]
    if n_moves := PLACEMENTS[way]:
        scalarisation = Scalarisation(tuple((1.0 / np.abs(problem.reference_point)).tolist()))
        run = start_run(problem.space, scalarisation, genome, n_moves, HEAT, rng)
        advance(problem.space, run, n_moves, rng)
        genome = e.join(*run.best)
    return genome
