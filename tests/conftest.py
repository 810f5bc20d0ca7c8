"""Shared by all tests: kept kernels, hypothesis profiles, generators of small random networks and mappings."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def sources_of_kernels():
    """Digest of every module with kernels: numba does not see that a kernel of one calls a changed one of another."""
    texts = (path.read_bytes() for path in sorted((ROOT / "neuromap_moo").rglob("*.py")))
    return hashlib.sha256(b"".join(text for text in texts if b"njit" in text)).hexdigest()[:12]


CACHE = ROOT / ".pytest_cache" / "d" / f"numba-{sys.implementation.cache_tag}-{sources_of_kernels()}"
#: Kernels are compiled once and kept beside the package, for later runs and for the programs that tests start;
#: `pytest --cache-clear` forgets them. numba reads this when it is imported.
os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE))

import networkx as nx  # noqa: E402 - after the place of numba's cache is set
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import settings  # noqa: E402
from numba.core.compiler_lock import global_compiler_lock  # noqa: E402
from numba.core.dispatcher import Dispatcher  # noqa: E402

import neuromap_moo as nm  # noqa: E402
from neuromap_moo.partition.fixed import partitioner_for  # noqa: E402

repeatable = settings(derandomize=True, deadline=None, database=None)
settings.register_profile("quick", repeatable, max_examples=10)
settings.register_profile("thorough", repeatable, max_examples=40)
settings.load_profile("quick")  # the other by --hypothesis-profile=thorough


def compile_once():
    """Let a process that wants a kernel wait for another that compiles it, and take it from the cache then."""
    compiled = Dispatcher.compile

    @functools.cache  # one for each kernel: a thread that holds it may take it again
    def lock_of(kernel):
        return FileLock(Path(os.environ["NUMBA_CACHE_DIR"]) / f"{kernel}.lock")

    def compile_or_wait(self, signature):
        module, name = self.py_func.__module__, self.py_func.__name__
        if not module.startswith("neuromap_moo."):
            return compiled(self, signature)
        # numba's own lock first, or two threads could each hold what the other waits for; kernels call each other
        # without circles, so two processes cannot.
        with global_compiler_lock, lock_of(f"{module}.{name}"):
            return compiled(self, signature)

    Dispatcher.compile = compile_or_wait


if "PYTEST_XDIST_WORKER" in os.environ:
    Path(os.environ["NUMBA_CACHE_DIR"]).mkdir(parents=True, exist_ok=True)
    compile_once()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave all but the first cases of a test to the thorough run, where it asks for that (`default_cases`)."""
    seen = {}
    for item in items:
        marker = item.get_closest_marker("default_cases")
        if marker is not None:
            test = (item.path, item.originalname)
            seen[test] = seen.get(test, 0) + 1
            if seen[test] > marker.args[0]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def networks_folder():
    """Trained networks beside the checkout, where there are any."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "networks"
    if not folder.is_dir():
        pytest.skip("no folder with trained networks beside the checkout")
    return folder


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder, the working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def chain():
    """Three layers of 2, 3 and 2 neurons: sparse, then dense.

    input 0 -> hidden 0, 2; input 1 -> hidden 1; every hidden -> every output.
    """
    return nm.Network(
        "chain",
        (
            nm.Layer("input", 2, "input", [0.5, 0.25]),
            nm.Layer("hidden", 3, "lif", [0.125, 0.0, 1.0]),
            nm.Layer("output", 2, "lif", [0.0, 0.0]),
        ),
        (
            nm.Projection("input", "hidden", nm.Sparse(2, 3, [0, 2, 3], [0, 2, 1]), weight_bits=8),
            nm.Projection("hidden", "output", nm.Dense(3, 2), weight_bits=4),
        ),
        steps_per_inference=2,
    )


@pytest.fixture(scope="session", params=["torus", "binary_tree", "random_regular"])
def graph_system(request):
    """Return systems that are no mesh: a 4x4 torus, a binary tree with cores at its leaves, a random regular graph."""
    if request.param == "torus":
        return nm.load_system("torus", {"topology": {"width": 4, "height": 4, "cores_per_router": 2}})
    if request.param == "binary_tree":
        return nm.load_system("tree", {"topology": {"branching": 2, "depth": 3, "cores_per_router": 4}})
    return nm.System.from_networkx(nx.random_regular_graph(3, 16, seed=7), 2, masked_cores=[3], combine="max")


@pytest.fixture(scope="session")
def random_network():
    """Return a function: generator -> small network, often with skips, self loops, cycles and silent neurons."""

    def make(rng, max_layers=4, max_size=12):
        sizes = rng.integers(1, max_size + 1, rng.integers(1, max_layers + 1)).tolist()
        layers = []
        for i, n in enumerate(sizes):
            activity = rng.random(n) * rng.choice([0.1, 1.0, 5.0])
            activity[rng.random(n) < 0.2] = 0.0
            layers.append(nm.Layer(f"layer_{i}", n, "lif", activity))
        projections = []
        for a, b in itertools.product(range(len(sizes)), repeat=2):
            if rng.random() > (0.9 if b == a + 1 else 0.15):
                continue
            if rng.random() < 0.3:
                connectivity = nm.Dense(sizes[a], sizes[b])
            else:
                matrix = rng.random((sizes[a], sizes[b])) < rng.choice([0.05, 0.4, 1.0])
                indptr = np.concatenate([[0], np.cumsum(matrix.sum(axis=1))])
                connectivity = nm.Sparse(sizes[a], sizes[b], indptr, np.nonzero(matrix)[1])
            projections.append(nm.Projection(f"layer_{a}", f"layer_{b}", connectivity, int(rng.integers(1, 17))))
        return nm.Network("random", tuple(layers), tuple(projections), int(rng.integers(1, 4)))

    return make


@pytest.fixture(scope="session")
def random_system():
    """Return a function: generator -> small mesh with random shape, masks, combine mode and costs."""

    def make(rng):
        width, height, cores, chips_x, chips_y = (int(rng.integers(1, n)) for n in (4, 4, 4, 3, 3))
        n_cores = width * height * cores * chips_x * chips_y
        masked = np.flatnonzero(rng.random(n_cores) < 0.15) if rng.random() < 0.5 else []
        return nm.mesh_system(
            width,
            height,
            cores,
            chips_x=chips_x,
            chips_y=chips_y,
            masked_cores=masked if len(masked) < n_cores else [],
            combine=str(rng.choice(["max", "max_plus_barrier"])),
            **_random_costs(rng),
        )

    return make


@pytest.fixture(scope="session")
def random_graph_system():
    """Return a function: generator -> small system on a random graph with chips, link classes and missing cores."""

    def make(rng):
        n, cores = int(rng.integers(1, 10)), int(rng.integers(1, 4))
        G = nx.gnp_random_graph(
            n, rng.choice([0.1, 0.3, 0.8]), seed=int(rng.integers(1000)), directed=rng.random() < 0.5
        )
        if n > 1:
            nx.add_cycle(G, rng.permutation(n).tolist())  # connects all, one way round at least
        chips = np.unique(rng.integers(0, 3, n), return_inverse=True)[1]
        for router, attributes in G.nodes(data=True):
            attributes.update(chip=chips[router], cores=rng.integers(0 if router else 1, cores + 1))
        for _, _, attributes in G.edges(data=True):
            if rng.random() < 0.5:
                attributes["link_class"] = str(rng.choice(["mesh_x", "mesh_y", "chip"]))
        combine = str(rng.choice(["max", "max_plus_barrier"]))
        return nm.System.from_networkx(G, cores, combine=combine, **_random_costs(rng))

    return make


def _random_costs(rng):
    """Return costs over several orders of magnitude."""
    costs = {}
    for key in ("t_dendop_s", "t_synop_s", "t_synmem_s"):
        costs[key] = float(10 ** rng.uniform(-10, -7))
    for key in ("e_dendop_j", "e_synop_j", "e_synmem_j", "e_message_j"):
        costs[key] = float(10 ** rng.uniform(-13, -10))
    classes = ("mesh_x", "mesh_y", "chip", "inject", "eject")
    costs["bandwidth_bit_per_s"] = {c: float(10 ** rng.uniform(8, 11)) for c in classes}
    costs["t_hop_s"] = {c: float(10 ** rng.uniform(-10, -8)) for c in classes}
    costs["e_link_j"] = {c: float(10 ** rng.uniform(-13, -10)) for c in classes}
    costs["t_barrier_s"] = {"chips_1": float(rng.choice([0.0, 1e-8])), "chips_2": 5e-8, "chips_8": 2e-7}
    return costs


@pytest.fixture(scope="session")
def random_mapping():
    """Return a function: generator, network, system -> mapping that fits, on random cores."""

    def make(rng, network, system):
        partitioner = partitioner_for(network, system)
        counts = partitioner.minimum.copy()
        free = int(rng.integers(0, partitioner.n_cores - counts.sum() + 1))
        for layer in rng.permutation(len(counts)):
            allowed = np.flatnonzero(partitioner.fits[layer, : counts[layer] + free + 1])
            free += counts[layer]
            counts[layer] = rng.choice(allowed)
            free -= counts[layer]
        return nm.Mapping(counts, rng.permutation(system.usable_cores)[: counts.sum()])

    return make
