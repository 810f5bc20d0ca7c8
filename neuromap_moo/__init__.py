"""Latency-energy Pareto fronts of neural networks mapped onto spatial accelerators such as Intel Loihi 2.

    import neuromap_moo as nm

    network = nm.sparse_mlp([256, 512, 128], density=0.1)      # or nm.load_network("model.net")
    system = nm.load_system("loihi2")                          # or nm.mesh_system(width=8, height=8)
    problem = nm.MappingProblem(network, system, objectives=("latency_s", "energy_j"))
    run = nm.search(problem, algorithm="nsga2", evaluations=20_000, seed=0)
    run.front.table["latency_s"], run.front.mappings           # the front, fastest first

A MappingProblem is a pymoo Problem; `operators(problem)` gives the keyword arguments for any pymoo algorithm.
"""

from neuromap_moo.best_known import benchmark
from neuromap_moo.connectivity import Convolution, Dense, Sparse
from neuromap_moo.constraints import Constraints, LayerConstraints
from neuromap_moo.cuts import with_best_cuts
from neuromap_moo.errors import InputError
from neuromap_moo.front import Front
from neuromap_moo.instances import Benchmark, benchmarks
from neuromap_moo.mapping import Mapping, check, load_mappings, save_mappings
from neuromap_moo.network import Layer, Network, Projection, save_network, with_activity, with_cuts, with_orders
from neuromap_moo.orders import with_shared_sources
from neuromap_moo.partition import CoreGraph
from neuromap_moo.readers import (
    convolutional,
    from_relax,
    load_network,
    lognormal_activity,
    measure_activity,
    partition_relax,
    reservoir,
    save_activity,
    sparse_mlp,
    transformer,
)
from neuromap_moo.run import Run, search
from neuromap_moo.search import MappingProblem, baselines, operators, varied_mappings
from neuromap_moo.system import Constant, System, load_system, mesh_system
from neuromap_moo.topology import Graph, Mesh

__version__ = "0.1.0"

__all__ = [
    "Benchmark",
    "Constant",
    "Constraints",
    "Convolution",
    "CoreGraph",
    "Dense",
    "Front",
    "Graph",
    "InputError",
    "Layer",
    "LayerConstraints",
    "Mapping",
    "MappingProblem",
    "Mesh",
    "Network",
    "Projection",
    "Run",
    "Sparse",
    "System",
    "baselines",
    "benchmark",
    "benchmarks",
    "check",
    "convolutional",
    "from_relax",
    "load_mappings",
    "load_network",
    "load_system",
    "lognormal_activity",
    "measure_activity",
    "mesh_system",
    "operators",
    "partition_relax",
    "reservoir",
    "save_activity",
    "save_mappings",
    "save_network",
    "search",
    "sparse_mlp",
    "transformer",
    "varied_mappings",
    "with_activity",
    "with_best_cuts",
    "with_cuts",
    "with_orders",
    "with_shared_sources",
]
