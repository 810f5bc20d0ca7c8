"""The baselines of a problem, which are also the starting points of its searches; all of them keep the constraints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neuromap_moo.arrays import FloatArray
from neuromap_moo.heuristics.rules import Baseline, balanced_partitions, constructive, vendor_orders
from neuromap_moo.mapping.legality import Legality
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.partition.fixed import AnyPartitioner
from neuromap_moo.system.system import System

#: Seed of the random layer orders among the baselines: they belong to the problem, not to a run.
LAYER_ORDER_SEED = 0


def balanced_baselines(partitioner: AnyPartitioner, system: System, legality: Legality | None) -> list[Baseline]:
    """Return balanced mappings from fewest cores to all."""
    made = [_repaired(Baseline(mapping), legality) for mapping in balanced_partitions(partitioner, system)]
    return made if legality is None else list({b.mapping: b for b in made}.values())


def named_baselines(
    partitioner: AnyPartitioner,
    system: System,
    legality: Legality | None,
    objectives: tuple[str, ...],
    balanced: Sequence[Baseline],
    judged: Callable[[Sequence[Mapping]], FloatArray],
) -> dict[str, Baseline]:
    """Return the baselines by name, `vendor_default` first, with their notes.

    Of the balanced mappings the best in each objective is taken, of the vendor's random layer orders the ones of least,
    median and most cost: ranked by the first objective, then the next; the median of ten is the fifth.

    Parameters
    ----------
    partitioner, system, legality
        What is mapped, where to, and where slices may sit (None: anywhere).
    objectives
        Metric columns, m of them.
    balanced
        Mappings to choose from, as `balanced_baselines` makes them.
    judged
        Returns minimised objectives (n, m) of n mappings.

    """
    made = constructive(partitioner, system)
    named = {name: _repaired(baseline, legality) for name, baseline in made.items()}
    F = judged([b.mapping for b in balanced])
    for i, name in enumerate(objectives):
        best = balanced[int(F[:, i].argmin())]
        text = f"best {name} of {len(balanced)} balanced mappings"
        named[f"balanced_{name}"] = Baseline(best.mapping, _joined(text, best.note))
    drawn = vendor_orders(partitioner, system, np.random.default_rng(LAYER_ORDER_SEED))
    orders = [_repaired(Baseline(mapping, made["vendor_default"].note), legality) for mapping in drawn]
    rank = np.lexsort(judged([b.mapping for b in orders]).T[::-1])
    for which, place in (("min", 0), ("median", (len(rank) - 1) // 2), ("max", len(rank) - 1)):
        chosen = orders[rank[place]]
        text = f"{which} {objectives[0]} of {len(rank)} random layer orders"
        named[f"vendor_order_{which}"] = Baseline(chosen.mapping, _joined(text, chosen.note))
    return named


def _repaired(baseline: Baseline, legality: Legality | None) -> Baseline:
    """Return a baseline that keeps the constraints; its note says what had to change."""
    if legality is None:
        return baseline
    mapping, note = legality.repaired(baseline.mapping)
    return Baseline(mapping, _joined(baseline.note, note))


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
