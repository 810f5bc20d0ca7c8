"""How far the analytic model is from the packet-level simulator, and how much of a search's gain outlives the change.

    python experiments/e03_fidelity/run.py [--seeds 5] [--jobs 2]

Part one: mappings from good to bad, of few to many cores, of four networks in three regimes, under both models.
Part two: searches on the analytic model, and with few evaluations on the simulator, their fronts judged by the
simulator on spikes that no search has seen. Part three: a dense layer that grows, packed and spread.
Writes CSVs, table.md and figures beside this file; takes about 15 minutes on two cores.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.sparse import coo_array
from scipy.stats import pearsonr, spearmanr

import neuromap_moo as nm
from neuromap_moo.problem.networks import build_network
from neuromap_moo.results.benchmark.instances import experiment_parts
from neuromap_moo.results.style import save_figure

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import above_zero, in_processes, parser_of, spread, table_of, write_csv, write_page

#: Spikes by which everything is judged; searches on the simulator see others.
JUDGE = {"name": "packet", "steps": 8, "seed": 1000}
PROPOSER = {"name": "packet", "steps": 2, "seed": 0}

SEARCHED = ("mlp_a", "mlp_b")

#: What a regime makes of a preset's costs: factors, by the beginning of a cost's name. Barrier: see `barrier_bound`.
REGIMES: dict[str, dict[str, float]] = {
    "compute": {"t_dendop_s": 5.0, "t_synop_s": 5.0, "t_synmem_s": 5.0},
    "traffic": {"bandwidth_bit_per_s": 0.1},
    "preset": {},
    "barrier": {},
}
#: Mappings that differ by less than this under the analytic model are no choice that a search makes.
CLEAR = 0.05

FIELDS = ("network", "regime", "mapping", "cores", "bottleneck", "analytic_s", "packet_s", "ci95_s")


class Case(NamedTuple):
    """A network on a system."""

    network: nm.Network
    system: nm.System


def convolutional() -> Case:
    """A small convolutional network, synapse by synapse: two layers of feature maps and a dense one."""
    rng = np.random.default_rng(11)
    maps = [(2, 32, 32), (8, 16, 16), (16, 8, 8)]
    sizes = [int(np.prod(m)) for m in maps] + [64]
    names = ["input", "conv_1", "conv_2", "dense"]
    layers = tuple(
        nm.Layer(name, size, "lif", nm.lognormal_activity(size, 0.2, 0.5, rng) if name != "dense" else np.zeros(size))
        for name, size in zip(names, sizes, strict=True)
    )
    projections = [
        nm.Projection(names[i], names[i + 1], nm.Sparse.from_matrix(convolution(maps[i], maps[i + 1], 3, 2)), 8)
        for i in range(2)
    ]
    projections.append(nm.Projection("conv_2", "dense", nm.Dense(sizes[2], sizes[3]), 8))
    return Case(nm.Network("cnn", layers, tuple(projections)), nm.load_system("loihi2"))


def convolution(before: tuple[int, int, int], after: tuple[int, int, int], kernel: int, stride: int) -> Any:
    """Synapses (source neurons, target neurons) of a convolution with padding; a map is (channels, rows, columns)."""
    channels, rows, columns = before
    out = np.stack(np.meshgrid(*map(np.arange, after), indexing="ij"), -1).reshape(-1, 3)
    sources, targets = [], []
    for c, dy, dx in itertools.product(range(channels), range(kernel), range(kernel)):
        y, x = (out[:, 1 + axis] * stride + d - kernel // 2 for axis, d in ((0, dy), (1, dx)))
        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        sources.append(((c * rows + y) * columns + x)[inside])
        targets.append(np.flatnonzero(inside))
    source, target = np.concatenate(sources), np.concatenate(targets)
    shape = int(np.prod(before)), int(np.prod(after))
    return coo_array((np.ones(source.size), (source, target)), shape).tocsr()


def experiment_case(name: str) -> Callable[[], Case]:
    def build() -> Case:
        network, system = experiment_parts(name)
        return Case(build_network(network), system)

    return build


CASES: dict[str, Callable[[], Case]] = {
    "mlp_a": experiment_case("mlp_a"),
    "mlp_b": experiment_case("mlp_b"),
    "cnn": convolutional,
    "two_chips": experiment_case("mlp_b_two_chips"),
}


def with_factors(system: nm.System, factors: dict[str, float]) -> nm.System:
    return system.with_costs(
        {
            key: system.cost(key) * factor
            for start, factor in factors.items()
            for key in system.costs
            if key.startswith(start)
        }
    )


def barrier_bound(case: Case, mappings: Iterable[nm.Mapping]) -> nm.System:
    """A barrier as long as the median step of the mappings."""
    steps = nm.MappingProblem(*case).evaluate_mappings(list(mappings))["step_time_s"]
    now = case.system.cost("t_barrier_s.chips_1")
    return with_factors(case.system, {"t_barrier_s": float(np.median(steps)) / now})


# ------------------------------------------------------------------------------------------------ part one: agreement


def mappings_of(case: Case, n_varied: int) -> dict[str, nm.Mapping]:
    """Mappings from good to bad, of few to many cores, by name: the baselines and `n_varied` others."""
    problem = nm.MappingProblem(*case)
    return nm.baselines(problem) | nm.varied_mappings(problem, n_varied, np.random.default_rng(7))


def compare(task: tuple[str, str, int]) -> list[dict[str, Any]]:
    """Rows of FIELDS for one network in one regime; the task names them and the number of varied mappings."""
    name, regime, n_varied = task
    case = CASES[name]()
    made = mappings_of(case, n_varied)
    mappings = list(made.values())
    system = barrier_bound(case, mappings) if regime == "barrier" else with_factors(case.system, REGIMES[regime])
    analytic, packet = (
        nm.MappingProblem(case.network, system, evaluator=evaluator).evaluate_mappings(mappings)
        for evaluator in ("analytic", JUDGE)
    )
    columns = (
        made,
        analytic["cores_used"].tolist(),
        analytic["bottleneck"].tolist(),
        analytic["latency_s"].tolist(),
        packet["latency_s"].tolist(),
        packet["latency_ci95_s"].tolist(),
    )
    return [dict(zip(FIELDS, (name, regime, *row), strict=True)) for row in zip(*columns, strict=True)]


def agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How well the two models agree over some mappings."""
    analytic, packet = (np.array([row[key] for row in rows]) for key in ("analytic_s", "packet_s"))
    ratio = packet / analytic
    worst = int(np.abs(np.log(ratio)).argmax())
    a, b = np.triu_indices(len(rows), 1)
    better = np.sign(np.round(np.log(analytic[a] / analytic[b]), 9)) == np.sign(
        np.round(np.log(packet[a] / packet[b]), 9)
    )
    clear = np.abs(np.log(analytic[a] / analytic[b])) > np.log1p(CLEAR)
    varies = np.ptp(analytic) > 0 and np.ptp(packet) > 0
    return {
        "mappings": len(rows),
        "pearson": pearsonr(analytic, packet).statistic if varies else np.nan,
        "spearman": spearmanr(analytic, packet).statistic if varies else np.nan,
        "packet / analytic": spread(ratio.tolist(), "{:.3f}"),
        "worst": f"{rows[worst]['mapping']} ({rows[worst]['bottleneck']})",
        "same choice": better[clear].mean() if clear.any() else np.nan,
    }


# ------------------------------------------------------------------------------------------- part two: gains that last


def gains(task: tuple[str, str, int, int]) -> dict[str, Any]:
    """Latency gains over vendor_default of a search's front: by the model searched on, and by the judge.

    The task is the network, the model searched on, the evaluations and the seed.
    """
    name, searched_on, evaluations, seed = task
    case = CASES[name]()
    evaluator: Any = "analytic" if searched_on == "analytic" else PROPOSER
    problem = nm.MappingProblem(*case, evaluator=evaluator)
    run = nm.search(problem, evaluations=evaluations, seed=seed)
    judge = nm.MappingProblem(*case, evaluator=JUDGE)
    vendor = nm.baselines(problem)["vendor_default"]
    seen = problem.evaluate_mappings([vendor])["latency_s"][0]
    judged = judge.evaluate_mappings([vendor, *run.front.mappings])
    latency, energy = judged["latency_s"], judged["energy_j"]
    fastest = 1 + int(run.front.table["latency_s"].argmin())
    believed = 1.0 - run.front.table["latency_s"].min() / seen
    real = 1.0 - latency[fastest] / latency[0]
    best = 1.0 - latency[1:].min() / latency[0]
    return {
        "network": name,
        "searched on": searched_on,
        "seed": seed,
        "evaluations": run.evaluations,
        "front": len(run.front.mappings),
        "gain_believed": believed,
        "gain_of_fastest": real,
        "gain_of_best": best,
        "survives": real / believed,
        "energy_gain": 1.0 - energy[1:].min() / energy[0],
        "hypervolume": judge.hypervolume(np.stack([latency[1:], energy[1:]], axis=1)),
        "seconds": run.seconds,
    }


# ------------------------------------------------------------------------------------------ part three: a dense layer


def growing(task: tuple[int, str]) -> dict[str, Any]:
    """Step time of a dense layer of n neurons onto n, 32 neurons a core, under both models."""
    n, placement = task
    rng = np.random.default_rng(3)
    layers = tuple(nm.Layer(name, n, "lif", np.full(n, 0.5)) for name in ("source", "target"))
    network = nm.Network("dense", layers, (nm.Projection("source", "target", nm.Dense(n, n), 1),))
    # A mesh of single cores, with little compute: what is looked at is traffic.
    system = nm.mesh_system(16, 8, t_synop_s=1e-11, t_synmem_s=1e-12, t_dendop_s=1e-10, t_barrier_s={"chips_1": 1e-9})
    k = n // 32
    if placement == "packed":  # each layer a rectangle, side by side, as square as can be
        side = int(np.ceil(np.sqrt(k)))
        cells = [(i % side, i // side) for i in range(k)]
        cores = [y * 16 + x for x, y in cells] + [y * 16 + side + x for x, y in cells]
    else:  # evenly over the whole mesh, layers in turn
        order = rng.permutation(128)[: 2 * k]
        cores = order.tolist()
    mapping = nm.Mapping((k, k), tuple(int(c) for c in cores))
    row: dict[str, Any] = {"neurons": n, "placement": placement, "cores": 2 * k}
    for evaluator in ("analytic", JUDGE):
        problem = nm.MappingProblem(network, system, evaluator=evaluator)
        metrics = problem.evaluate_mappings([mapping])
        row["analytic_s" if evaluator == "analytic" else "packet_s"] = float(metrics["step_time_s"][0])
    return row


# ------------------------------------------------------------------------------------------------------------- output


def main() -> None:
    parser = parser_of(__doc__, __file__)
    parser.add_argument("--seeds", type=above_zero, default=5, help="of the searches")
    parser.add_argument("--jobs", type=above_zero, default=2, help="processes at a time")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES), help="which of them")
    parser.add_argument("--mappings", type=above_zero, default=48, help="varied mappings beside the baselines")
    parser.add_argument(
        "--evaluations",
        nargs=2,
        type=above_zero,
        default=(20_000, 2_000),
        metavar=("ANALYTIC", "PACKET"),
        help="of the searches on the analytic model and on the simulator",
    )
    parser.add_argument("--neurons", type=above_zero, default=1024, help="of the largest dense layer; 64 or more")
    arguments = parser.parse_args()
    if not set(SEARCHED) & set(arguments.networks):
        parser.error(f"argument --networks: expected one of {', '.join(SEARCHED)} among them")
    searches = dict(zip(("analytic", "packet"), arguments.evaluations, strict=True))
    of_searches = [
        (name, model, searches[model], seed)
        for name in SEARCHED
        if name in arguments.networks
        for model in ("packet", "analytic")  # the long ones first
        for seed in range(arguments.seeds)
    ]
    of_mappings = list(itertools.product(arguments.networks, REGIMES, (arguments.mappings,)))
    of_layers = list(itertools.product(range(64, arguments.neurons + 1, 64), ("packed", "spread")))
    searched = list(in_processes(gains, of_searches, arguments.jobs))
    rows = [row for part in in_processes(compare, of_mappings, arguments.jobs) for row in part]
    grown = list(in_processes(growing, of_layers, arguments.jobs))

    write_csv(arguments.out / "comparison.csv", rows)
    write_csv(arguments.out / "searches.csv", searched)
    write_csv(arguments.out / "dense_layer.csv", grown)
    lines = [
        "# The analytic model against the packet-level simulator",
        "",
        "Made by `python experiments/e03_fidelity/run.py`.",
        "",
        "## Agreement",
        "",
        table_of(agreement_rows(rows)),
        "",
        "## Gains that last",
        "",
        f"Medians of {arguments.seeds} seeds; gains are of latency over vendor_default.",
        "",
        table_of(search_rows(searched)),
    ]
    write_page(arguments.out / "table.md", lines)
    save_figure(agreement_figure(rows), arguments.out, "agreement")
    save_figure(growth_figure(grown), arguments.out, "dense_layer")


def networks_in(rows: list[dict[str, Any]]) -> list[str]:
    """Names of the networks, in the order of CASES."""
    return [name for name in CASES if any(row["network"] == name for row in rows)]


def agreement_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for regime, name in itertools.product(REGIMES, networks_in(rows)):
        of_case = [r for r in rows if r["network"] == name and r["regime"] == regime]
        binding = [r["bottleneck"] for r in of_case]
        shares = {b: binding.count(b) / len(binding) for b in sorted(set(binding), key=binding.count, reverse=True)}
        bound = ", ".join(f"{b} {100 * share:.0f} %" for b, share in shares.items())
        out.append({"regime": regime, "network": name, "bound by": bound, **written(agreement(of_case))})
    return out


def search_rows(searched: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for name, model in itertools.product(networks_in(searched), ("analytic", "packet")):
        of_case = [r for r in searched if r["network"] == name and r["searched on"] == model]
        median = {
            key: float(np.median([r[key] for r in of_case]))
            for key in of_case[0]
            if key not in ("network", "searched on", "seed")
        }
        out.append(
            {
                "network": name,
                "searched on": model,
                "evaluations": f"{median['evaluations']:.0f}",
                "gain by that model": percent(median["gain_believed"]),
                "gain by the simulator": percent(median["gain_of_fastest"]),
                "survives": percent(median["survives"]),
                "gain of the front's best": percent(median["gain_of_best"]),
                "energy gain": percent(median["energy_gain"]),
                "hypervolume": f"{median['hypervolume']:.3f}",
                "seconds": f"{median['seconds']:.0f}",
            }
        )
    return out


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def written(row: dict[str, Any]) -> dict[str, str]:
    """Cells of a table; no correlation where all values are equal."""
    return {
        key: str(value) if not isinstance(value, float) else "all equal" if np.isnan(value) else f"{value:.3f}"
        for key, value in row.items()
    }


def agreement_figure(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(3.2 * len(REGIMES), 3.2), layout="constrained")
    axes = figure.subplots(1, len(REGIMES))
    markers = dict(zip(CASES, "os^D", strict=True))
    for ax, regime in zip(axes, REGIMES, strict=True):
        for name in networks_in(rows):
            of_case = [r for r in rows if r["network"] == name and r["regime"] == regime]
            ax.plot(
                [1e6 * r["analytic_s"] for r in of_case],
                [1e6 * r["packet_s"] for r in of_case],
                markers[name],
                ms=3,
                alpha=0.6,
                label=name,
            )
        ax.set(xscale="log", yscale="log", title=regime, xlabel="analytic latency (µs)")
        low, high = ax.get_xlim()
        ax.plot((low, high), (low, high), "k-", lw=0.6, zorder=0)
    axes[0].set_ylabel("packet latency (µs)")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def growth_figure(grown: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    ax = figure.subplots()
    for placement, colour in (("packed", "C0"), ("spread", "C1")):
        of_case = [r for r in grown if r["placement"] == placement]
        n = [r["neurons"] for r in of_case]
        for model, line in (("packet", "o-"), ("analytic", "--")):
            seconds = [1e6 * r[f"{model}_s"] for r in of_case]
            ax.plot(n, seconds, line, color=colour, ms=3, label=f"{placement}, {model}")
    ax.set(xlabel="neurons per layer", ylabel="timestep (µs)")
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
