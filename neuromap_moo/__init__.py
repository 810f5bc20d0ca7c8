"""Latency-energy Pareto fronts of neural networks mapped onto spatial accelerators such as Intel Loihi 2.

    import neuromap_moo as nm

    network = nm.sparse_mlp([256, 512, 128], density=0.1)      # or nm.load_network("model.net")
    system = nm.load_system("loihi2")                          # or nm.mesh_system(width=8, height=8)
    problem = nm.MappingProblem(network, system, objectives=("latency_s", "energy_j"))
    run = nm.search(problem, algorithm="nsga2", evaluations=20_000, seed=0)
    run.front.table["latency_s"], run.front.mappings           # the front, fastest first

A MappingProblem is a pymoo Problem; `operators(problem)` gives the keyword arguments for any pymoo algorithm.
"""

import lazy_loader

__version__ = "0.1.0"

# Names are imported when they are first used (__init__.pyi says from where), so that a start costs what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
