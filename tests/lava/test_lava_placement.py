"""Placements in Lava's own Mapper, with builders that stand in for those of the closed extension."""

import contextlib
import json
import re

import numpy as np
import pytest
from helpers import needs_lava

from neuromap_moo.lava.placement import PlacementError, placed, read_placement

with contextlib.suppress(ImportError):
    # Sets how processes start, which fails once a test has started one: hence before the first test.
    import lava.magma.core.process.process  # noqa: F401


def executable(cores, rng, repeats=3):
    """An executable whose processes take so many logical cores, by name; resources, ports and variables on them."""
    from types import SimpleNamespace

    from lava.magma.compiler.compiler_utils import NcProcessBuilder
    from lava.magma.compiler.subcompilers.address import NcLogicalAddress
    from lava.magma.compiler.utils import LoihiPortInitializer
    from lava.magma.compiler.var_model import LoihiAddress, LoihiVarModel

    class Builder(NcProcessBuilder):
        def __init__(self, ids):
            def drawn():
                return rng.permutation(np.concatenate([ids, rng.choice(ids, repeats)])).tolist()

            def variable():
                return LoihiVarModel(address=[LoihiAddress(-1, -1, 0, i, 0, 1, 1) for i in drawn()])

            def port(model):
                return LoihiPortInitializer("p", (1,), int, "in", 1, var_model=model)

            self.compiled_resources = [
                SimpleNamespace(l_address=NcLogicalAddress(0, i)) for i in [*ids, *rng.choice(ids, repeats).tolist()]
            ]
            self.logical = [r.l_address.core_id for r in self.compiled_resources]
            self.io_ports = {"a": port(variable()), "b": port(None)}
            self.var_id_to_var_model_map = {0: variable(), 1: variable()}
            self.var_ports = {"c": port(variable())}
            self.virtual = None

        def map_to_virtual(self, addresses):
            self.virtual = addresses

        def build(self):
            return None

        @property
        def proc_params(self):
            return None

    builders = {Process(name): Builder(rng.permutation(n).tolist()) for name, n in cores.items()}
    return SimpleNamespace(proc_builders=builders)


class Process:
    def __init__(self, name):
        self.name = name


def table(made):
    """Virtual id of every resource, port and variable, by process."""
    found = {}
    for process, builder in made.proc_builders.items():
        models = [builder.io_ports["a"].var_model, *builder.var_id_to_var_model_map.values()]
        models.append(builder.var_ports["c"].var_model)
        found[process.name] = (
            [(a.chip_id, a.core_id) for a in builder.virtual],
            [[(a.logical_core_id, a.physical_chip_id, a.physical_core_id) for a in m.address] for m in models],
        )
    return found


def mapped(made):
    from lava.magma.compiler import compiler

    compiler.Mapper().map_cores(made, {})
    return table(made)


CORES = {"input": 3, "hidden": 7, "glue": 2, "output": 4}


def plan_of(order, names=("input", "hidden", "output"), cores_per_chip=128):
    places = iter(divmod(int(i), cores_per_chip) for i in order)
    return {name: [next(places) for _ in range(CORES[name])] for name in names}


@needs_lava
@pytest.mark.parametrize("exact", [False, True])
def test_the_placement_in_order_is_the_vendors(exact):
    vendor = mapped(executable(CORES, np.random.default_rng(0)))
    names = tuple(CORES) if exact else ("input", "hidden", "output")
    # Slices of a process in the order in which the Mapper meets its logical cores.
    with placed(plan_of(range(16), names), exact) as made:
        ours = mapped(executable(CORES, np.random.default_rng(0)))
    assert ours == vendor
    assert made[0].table == {
        "input": [0, 1, 2],
        "hidden": [*range(3, 10)],
        "glue": [10, 11],
        "output": [*range(12, 16)],
    }


@needs_lava
@pytest.mark.parametrize("seed", range(20))
def test_any_placement_is_consistent_over_resources_ports_and_variables(seed):
    rng = np.random.default_rng(seed)
    exact = bool(seed % 2)
    order = rng.permutation(300)[:14]
    with placed(plan_of(order), exact) as made:
        built = executable(CORES, rng)
        found = mapped(built)
    used = set()
    for process, builder in built.proc_builders.items():
        resources, models = found[process.name]
        virtual_of = {}
        for logical, virtual in zip(builder.logical, resources, strict=True):
            assert virtual_of.setdefault(logical, virtual) == virtual
        for model in models:
            assert all(virtual_of[logical] == (chip, core) for logical, chip, core in model)
        ids = [chip * 128 + core for chip, core in dict.fromkeys(virtual_of.values())]
        assert ids == made[0].table[process.name]
        assert used.isdisjoint(ids)
        used.update(ids)
    if exact:
        places = iter(order.tolist())
        assert [made[0].table[n] for n in ("input", "hidden", "output")] == [
            [next(places) for _ in range(CORES[n])] for n in ("input", "hidden", "output")
        ]
    else:
        assert used == set(range(16))
        ids = np.concatenate([made[0].table[n] for n in ("input", "hidden", "output")])
        assert np.argsort(np.argsort(order)).tolist() == np.argsort(np.argsort(ids)).tolist()


@needs_lava
def test_the_vendors_mapper_is_back_after_the_block():
    from lava.magma.compiler import compiler

    before = compiler.Mapper
    with (
        pytest.raises(PlacementError, match=r"expected 2 cores.*Lava cut it into 3"),
        placed({"input": [(0, 1), (0, 2)]}),
    ):
        mapped(executable(CORES, np.random.default_rng(0)))
    assert compiler.Mapper is before
    with pytest.raises(PlacementError, match="no process 'nobody' was compiled"), placed({"nobody": [(0, 1)]}):
        mapped(executable(CORES, np.random.default_rng(0)))
    with (
        pytest.raises(PlacementError, match="core 200 of chip 0; a chip has 128"),
        placed({"glue": [(0, 200), (0, 2)]}, exact=True),
    ):
        mapped(executable(CORES, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a file that task=export wrote"),
        ('{"schema": 2}', "expected schema 1, got 2"),
        ('{"schema": 1, "layers": [{"process": "a", "cores": [[0]]}]}', "expected a file that task=export wrote"),
        ('{"schema": 1, "layers": [{"process": "a", "cores": [[0, 1], [0, 1]]}]}', "two slices sit on the same core"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    path = tmp_path / "placement.json"
    path.write_text(text)
    with pytest.raises(PlacementError, match=re.escape(said)):
        read_placement(path)


def test_a_placement_is_read(tmp_path):
    path = tmp_path / "placement.json"
    layers = [{"process": "in", "kind": "input", "cores": [[0, 1]]}, {"process": "a", "cores": [[0, 5], [1, 2]]}]
    path.write_text(json.dumps({"schema": 1, "layers": layers}))
    assert read_placement(path) == {"a": [(0, 5), (1, 2)]}
    with pytest.raises(PlacementError, match="cannot be read"):
        read_placement(tmp_path / "none.json")
