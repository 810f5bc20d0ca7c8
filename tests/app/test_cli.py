"""The command line as its users meet it: exit codes, one helpful line, resume after a kill, sweeps."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import operator
import re
import sys
import warnings
from dataclasses import asdict

import h5py
import numpy as np
import onnx
import pytest
import yaml
from helpers import SMALL, call, cuba, dense, write_net
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import neuromap_moo as nm
from neuromap_moo.app import tasks
from neuromap_moo.app.settings import Settings, build_system
from neuromap_moo.evolution.algorithms import ALGORITHMS
from neuromap_moo.files import config_folder
from neuromap_moo.lava.placement import read_placement
from neuromap_moo.problem.evaluators import EVALUATORS
from neuromap_moo.problem.networks import NETWORKS
from neuromap_moo.results.front import load_table
from neuromap_moo.system.composition import presets

EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))


def composed(*overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)


@pytest.fixture(scope="module")
def base_config():
    """The configuration where nothing is given."""
    return composed()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment):
    assert Settings.from_config(composed(f"+experiment={experiment}")).name == experiment


@pytest.mark.parametrize(
    "experiment", [pytest.param(x, marks=() if x == "mlp_a" else pytest.mark.slow) for x in EXPERIMENTS]
)
def test_every_experiment_runs(experiment, here, monkeypatch, capsys):
    small = ["budget.evaluations=300", "algorithm.population=20", "output=run"]
    code, out, err = call(monkeypatch, capsys, f"+experiment={experiment}", *small, draw=experiment != "mlp_a")
    assert (code, err.count("Traceback")) == (0, 0), err
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert (summary["name"], summary["evaluations"]) == (experiment, 300)
    assert "vendor_default" in out
    assert "m000" in out


def test_a_sweep_runs_each_of_its_jobs(here, monkeypatch, capsys):
    code, _, err = call(monkeypatch, capsys, "-m", *SMALL, "seed=0,1", "budget.evaluations=100")
    assert code == 0, err
    summaries = [json.loads(p.read_text()) for p in (here / "outputs" / "small").glob("*/summary.json")]
    assert sorted(s["seed"] for s in summaries) == [0, 1]


@pytest.mark.parametrize("group", ["network", "system", "evaluator", "algorithm"])
@pytest.mark.default_cases(2)
def test_every_option_of_every_group_composes(group):
    for path in (config_folder() / group).glob("*.yaml"):
        assert group in composed_with_gaps(f"{group}={path.stem}")


def composed_with_gaps(*overrides):
    """Compose, with `???` where a user must give a value."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("name", presets())
def test_presets_read_the_same_by_hydra_and_by_load_system(name):
    assert build_system(composed(f"system={name}")["system"]) == nm.load_system(name)


def test_every_algorithm_has_a_file_with_its_defaults():
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (config_folder() / "algorithm").glob("*.yaml")}
    assert files == {name: {"name": name, **asdict(options())} for name, (options, _) in ALGORITHMS.items()}


def defaults_of(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_evaluator_has_a_file_with_its_defaults(name):
    given = yaml.safe_load((config_folder() / "evaluator" / f"{name}.yaml").read_text())
    assert given.pop("name") == name
    assert given == {key: value for key, value in defaults_of(EVALUATORS[name]).items() if key != "folder"}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_has_a_file_with_its_defaults(name):
    make, known = NETWORKS[name]
    given = yaml.safe_load((config_folder() / "network" / f"{name}.yaml").read_text())
    assert given.pop("type") == name
    assert given.keys() - {"name", "cut", "order"} == set(known) - {"name"}
    for key, default in defaults_of(make).items():
        if key in given and key != "name":
            assert given[key] == json.loads(json.dumps(default)), key  # tuples are lists in YAML


# The conformance suite of the algorithms runs them all; here it is their way through the command line.
@pytest.mark.parametrize(
    "algorithm", [pytest.param(x, marks=() if x == "es" else pytest.mark.slow) for x in ALGORITHMS]
)
def test_every_algorithm_runs_by_name(algorithm, here, monkeypatch, capsys):
    quick = ["algorithm.batch=100", "algorithm.model_evaluations=50"] if algorithm == "guided" else []
    arguments = [*SMALL, f"algorithm={algorithm}", *quick, "budget.evaluations=250", "output=run"]
    code, _, err = call(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert json.loads((here / "run" / "summary.json").read_text())["algorithm"] == algorithm


def small_graph(folder):
    """An ONNX graph of two convolutions with a residual, a softmax at its end."""
    rng = np.random.default_rng(0)
    w, v = (rng.normal(size=(4, 2, 3, 3)).astype(np.float32), rng.normal(size=(4, 4, 1, 1)).astype(np.float32))
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["a"], ["b"], name="relu"),
        onnx.helper.make_node("Conv", ["b", "v"], ["c"], name="second"),
        onnx.helper.make_node("Add", ["c", "b"], ["d"], name="add"),
        onnx.helper.make_node("Softmax", ["d"], ["y"], name="softmax"),
    ]
    x, y = (
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [1, 2, 6, 5]), ("y", None))
    )
    constants = [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(v, "v")]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, folder / "net.onnx")


def bad_files(folder):
    (folder / "empty.net").touch()
    (folder / "garbage.net").write_bytes(b"\x00garbage" * 50)
    (folder / "garbage.npz").write_bytes(b"PK\x03\x04garbage")
    for ending in ("onnx", "nir"):
        (folder / f"garbage.{ending}").write_bytes(b"\x00garbage" * 50)
    small_graph(folder)
    (folder / "text.txt").write_text("hello")
    system = (config_folder() / "system" / "loihi2.yaml").read_text()
    (folder / "missing.yaml").write_text(re.sub(r"  p_core_w:\n.*\n", "", system))
    (folder / "negative.yaml").write_text(system.replace("value: 0.66e-9", "value: -0.66e-9"))
    (folder / "text.yaml").write_text(system.replace("value: 0.66e-9", "value: quick"))
    (folder / "broken.yaml").write_text("a: [1, 2")
    (folder / "loihi2.yaml").write_text(system)
    (folder / "folder.net").mkdir()
    nm.save_network(nm.sparse_mlp([40, 30], 0.2), folder / "mine.npz")
    with h5py.File(folder / "nan.net", "w") as file:
        layer = file.create_group("layer/0")
        layer["type"] = np.array([b"dense"])
        layer["weight"] = np.full((3, 4), np.nan, dtype=np.float32)


#: What Settings refuse, without Hydra; a few of them go the whole way below.
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["figures=no thanks"], ["figures: expected true or false"]),
        (["objectives=[bottleneck]"], ["'bottleneck' is no numeric"]),
        (["objectives=[]"], ["at least one metric column"]),
        (["objectives=3"], ["objectives: expected a list"]),
        (["objectives=[latency_s,latency_s]"], ["different columns"]),
        (["++budget.evaluatons=5"], ["unknown key 'budget.evaluatons'", "did you mean 'evaluations'?"]),
        (["budget.evaluations=-3"], [">= 1", "got -3"]),
        (["budget.evaluations=lots"], ["got 'lots'"]),
        (["budget.evaluations=1.5"], ["got 1.5"]),
        (["budget.evaluations=null"], ["got null for both"]),
        (["budget.seconds=0"], ["budget.seconds", "> 0", "got 0"]),
        (["budget.seconds=soon"], ["got 'soon'"]),
        (["budget=7"], ["budget: expected a group of keys"]),
        (["seed=-1"], ["got -1"]),
        (["overwrite=maybe"], ["overwrite: expected true or false"]),
        (["name=a/b"], ["name: expected up to 100 letters"]),
        (["run=somewhere"], ["task=evaluate"]),
        (["measurements=m.csv"], ["measurements", "task=calibrate"]),
        (["task=sample", "mappings=0"], ["mappings", "got 0"]),
        (["samples=s.npy"], ["samples: got 's.npy' with task=optimize", "task=profile"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_wrong_settings_are_refused(changes, words, base_config):
    config = copy.deepcopy(base_config)
    for change in changes:
        key, value = change.removeprefix("++").split("=", 1)
        *path, last = key.split(".")
        functools.reduce(operator.getitem, path, config)[last] = yaml.safe_load(value)
    with pytest.raises(nm.InputError, match=r".") as caught:
        Settings.from_config(config)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["algorithm=nsga4"], ["algorithm: expected one of", "nsga2, nsga3", "got 'nsga4'; did you mean 'nsga"]),
        (["++algorithm.name=nsga4"], ["no 'nsga4'", "did you mean"]),
        (["+experiment=mlp_c"], ["experiment: expected one of", "mlp_a, mlp_b", "got 'mlp_c'"]),
        (["network=net.onnx"], ["network=file network.path=net.onnx"]),
        (["system=missing.yaml"], ["system=file system.path=missing.yaml"]),
        (["objectives=[latency]"], ["'latency' is no numeric metric column", "did you mean 'latency_s'?"]),
        (["budgte.evaluations=5"], ["unknown key 'budgte.evaluations'", "did you mean 'budget.evaluations'?"]),
        (["++sede=5"], ["unknown key 'sede'", "did you mean 'seed'?"]),
        (["++network.sizs=5"], ["unknown key 'network.sizs'", "did you mean 'sizes'?"]),
        (["++system.topologyy.width=5"], ["unknown key 'topologyy'", "did you mean 'topology'?"]),
        (["++algorithm.pop=5"], ["unknown option 'pop'", "population"]),
        (["++evaluator.name=magic"], ["no 'magic'", "analytic"]),
        (["evaluator=packet", "evaluator.steps=none"], ["evaluator.steps", "'none'"]),
        (["evaluator=packet", "evaluator.spikes=nowhere.npz"], ["evaluator.spikes", "nowhere.npz"]),
        (["evaluator=packet", "+evaluator.depth=2"], ["evaluator.depth", "unknown key", "buffer_messages"]),
        (["budget.evaluations=0"], ["budget.evaluations", ">= 1", "got 0"]),
        (["seed=one"], ["seed: expected a whole number >= 0, got 'one'"]),
        (["task=fly"], ["task: no 'fly'", "optimize"]),
        (["task=evaluate"], ["run=outputs/..."]),
        (["task=evaluate", "run=nowhere"], ["nowhere", "folder of a finished run"]),
        (["algorithm.population=1"], ["population", ">= 2", "got 1"]),
        (["system=mesh", "system.topology.width=2", "system.topology.height=1"], ["at least", "cores", "has 2 usable"]),
        (["system=mesh", "system.topology.width=wide"], ["topology.width", "got 'wide'"]),
        (["system=mesh", "system.topology.type=torus"], ["topology.chips_x: expected a key of type torus", "null"]),
        (["system=tree", "system.topology.width=3"], ["topology.width: expected a key of type tree", "branching"]),
        (["system=mesh", "system.topology.type=donut"], ["topology.type: no 'donut'", "graph, mesh, torus, tree"]),
        (["system.masked_cores=[500]"], ["masked_cores", "0..127", "[500]"]),
        (["system.masked_cores=5"], ["masked_cores: expected a list"]),
        (["system.masked_cores=" + str(list(range(126))).replace(" ", "")], ["at least", "has 2 usable"]),
        (["system.costs.t_synop_s.value=-1"], ["t_synop_s", ">= 0", "got -1"]),
        (["system.combine=min"], ["combine", "got 'min'", "max_plus_barrier"]),
        (["system=file"], ["system.path: expected a value", "give system.path="]),
        (["system=file", "system.path=none.yaml"], ["none.yaml", "no such file"]),
        (["system=file", "system.path=missing.yaml"], ["costs.p_core_w: missing", "in W"]),
        (["system=file", "system.path=negative.yaml"], ["t_synop_s", "got -6.6e-10"]),
        (["system=file", "system.path=text.yaml"], ["t_synop_s", "got 'quick'"]),
        (["system=file", "system.path=broken.yaml"], ["broken.yaml", "expected YAML"]),
        (["network=file"], ["network.path: expected a value", "give network.path="]),
        (["network=file", "network.path=none.net"], ["none.net", "no such file"]),
        (["network=file", "network.path=text.txt"], ["text.txt", ".onnx or .py"]),
        (["network=file", "network.path=empty.net"], ["empty.net", "empty"]),
        (["network=file", "network.path=garbage.net"], ["garbage.net", "HDF5"]),
        (["network=file", "network.path=garbage.npz"], ["garbage.npz", "save_network"]),
        (["network=file", "network.path=nan.net"], ["nan.net", "layer 0", "NaN"]),
        (["network=file", "network.density=2"], ["'network.density' does not belong to the network chosen"]),
        (["network.density=2"], ["density", "(0, 1]", "got 2"]),
        (["network.density=thin"], ["density", "got 'thin'"]),
        (["network.sizes=[64]"], ["sizes", "at least two layers"]),
        (["network.sizes=[64,0]"], ["sizes, layer 1", ">= 1", "got 0"]),
        (["network.activity=-1"], ["activity", "got -1"]),
        (["output=text.txt"], ["text.txt", "it is a file"]),
        (["key==value"], ["in quotes of their own"]),
        (["output=/tmp/ü/x"], ["in quotes of their own"]),
        (["experiment=mlp_b"], ["+experiment=NAME"]),
        (["algoritm=nsga2"], ["did you mean 'algorithm'?"]),
        (["~seed"], ["seed: missing"]),
        (["~system"], ["system: missing"]),
        (["task=calibrate", "run=somewhere"], ["measurements", "CSV"]),
        (["task=calibrate", "measurements=m.csv"], ["run=outputs/..."]),
        (["network=file", "network.path=garbage.onnx"], ["garbage.onnx", "expected an ONNX file"]),
        (["network=file", "network.path=garbage.nir"], ["garbage.nir", "expected a NIR file"]),
        (["network=file", "network.path=net.onnx", "network.input_shape=[1,0]"], ["network.input_shape", "got 0"]),
        (["network=file", "network.path=net.onnx", "network.input_shape=3"], ["network.input_shape: expected a list"]),
        (["network=file", "network.path=net.onnx", "network.input_shape=[2,3]"], ["net.onnx", "node 'conv'", "Conv"]),
        (["network=file", "network.path=net.onnx", "network.cut=diagonal"], ["network.cut: no 'diagonal'"]),
        (["network=file", "network.path=net.onnx", "network.cut={nowhere: rows}"], ["cut: no layer 'nowhere'"]),
        (["network.order=random"], ["network.order: expected null or shared_sources, got 'random'"]),
        (["network=file", "network.path=net.onnx", "network.weight_bits=0"], ["network.weight_bits", "got 0"]),
        (
            ["network=file", "network.path=net.onnx", "network.activity=mine.npz"],
            ["activity 'mine.npz'", "task=profile"],
        ),
        (["network=file", "network.path=mine.npz", "network.input_shape=[1,3]"], ["input_shape is for .onnx files"]),
        (["task=profile", "samples=s.npy"], ["samples: activity is measured on .net, .nir, .onnx, .py files"]),
        (["network=file", "network.path=null"], ["network.path: expected the path"]),
        (["network=file", "network.path=mine.npz", "network.activity=0.1"], ["holds its own"]),
        (["network=file", "network.path=folder.net"], ["folder.net", "or it is a folder"]),
        (["system=file", "system.path=null"], ["system.path: expected the path"]),
        (["system=file", "system.path=loihi2.yaml", "system.topology.chips_x=2"], ["+system.topology.chips_x"]),
        (["system=file", "system.path=loihi2.yaml", "+system.topology.chipx_x=2"], ["did you mean 'chips_x'?"]),
        (["network.sizes=[100000000000000000000,10]"], ["at most", "neurons in a layer"]),
        (["network.sizes=[1000000,1000000]"], ["synapses, expected at most"]),
        (["algorithm.population=100000000000"], ["population", "at most 100000"]),
        (["name=" + "x" * 300], ["up to 100 letters"]),
        (["output=text.txt/run"], ["text.txt", "choose another path"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
@pytest.mark.default_cases(14)
def test_wrong_input_ends_with_code_2_and_one_helpful_line(arguments, words, here, monkeypatch, capsys):
    bad_files(here)
    given = [] if "network=file" in arguments else SMALL[:2]
    before = sorted(path.name for path in here.iterdir())
    code, out, err = call(monkeypatch, capsys, *given, *arguments)
    steps = ("preparing ", "compiling, ", "activity: ", "note: ", "small: ", "searching ")
    lines = [line for line in err.splitlines() if not line.startswith(steps)]
    assert code == 2, err
    assert len(lines) == 1, err
    assert lines[0].startswith("neuromap_moo: ")
    assert out == ""
    for word in words:
        assert word in lines[0]
    assert sorted(path.name for path in here.iterdir()) == before  # nothing half-written


def test_a_finished_run_is_refused_and_can_be_replaced(here, monkeypatch, capsys):
    arguments = [*SMALL, "budget.evaluations=200", "output=run"]
    assert call(monkeypatch, capsys, *arguments)[0] == 0
    first = (here / "run" / "front.csv").read_bytes()
    code, _, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "holds a finished run" in err
    assert call(monkeypatch, capsys, *arguments, "overwrite=true")[0] == 0
    assert (here / "run" / "front.csv").read_bytes() == first


def test_no_board_is_asked_for_a_folder_that_is_refused(here, monkeypatch, capsys):
    (here / "worker.py").write_text("open('started', 'w').close()")
    (here / "run").mkdir()
    (here / "run" / "summary.json").write_text("{}")
    command = f"evaluator.command='{sys.executable} worker.py'"
    code, _, err = call(monkeypatch, capsys, *SMALL, "evaluator=device", command, "output=run")
    assert code == 2
    assert "holds a finished run" in err
    assert not (here / "started").exists()


def test_default_folder_is_named_by_time_and_seed(here, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, *SMALL, "seed=7", "budget.evaluations=100")
    assert code == 0
    (folder,) = (here / "outputs" / "small").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_s7", folder.name)
    assert str(folder.relative_to(here)) in out
    assert {p.name for p in here.iterdir()} == {"outputs"}  # and nothing of Hydra's


@pytest.mark.parametrize("ending", ["onnx", "net"])
def test_one_file_is_one_problem_on_the_command_line_and_in_python(ending, here, monkeypatch, capsys):
    small_graph(here)
    with h5py.File(here / "net.net", "w") as file:
        for i, (kind, datasets) in enumerate(
            [
                ("input", {"shape": [2, 40, 40]}),
                ("conv", {"shape": [4, 38, 38], "weight": np.ones((4, 2, 3, 3)), "stride": 1}),
            ]
        ):
            group = file.create_group(f"layer/{i}")
            group["type"] = np.array([kind.encode()])
            for key, value in datasets.items():
                group[key] = np.array(value)
    keys = ["task=sample", "mappings=2", "network=file", f"network.path=net.{ending}", "network.activity=0.3"]
    memory = "system.capacities.synapse_words.value=60"
    code, _, err = call(monkeypatch, capsys, *keys, memory, "output=sample")
    assert (code, "note: Softmax is taken as a function" in err) == (0, ending == "onnx"), err
    system = nm.load_system("loihi2", {"capacities": {"synapse_words": {"value": 60}}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        network = nm.load_network(f"net.{ending}", activity=0.3)
    problem = nm.MappingProblem(network, system)
    written = json.loads((here / "sample" / "mappings.json").read_text())
    assert written["network"] == problem.network.digest
    assert written["network"] != nm.MappingProblem(network, system, cut="rows").network.digest


@pytest.mark.slow
def test_a_network_from_a_file_goes_by_its_name(here, monkeypatch, capsys):
    nm.save_network(nm.sparse_mlp([40, 30], 0.2), here / "mine.npz")
    code, _, err = call(monkeypatch, capsys, "network=file", "network.path=mine.npz", "budget.evaluations=100")
    assert code == 0, err
    assert (here / "outputs" / "mine").is_dir()


@pytest.mark.slow
def test_a_graph_is_measured_and_searched_with_its_activity(here, monkeypatch, capsys):
    small_graph(here)
    np.save(here / "s.npy", np.random.default_rng(0).normal(size=(5, 2, 6, 5)))
    network = ["network=file", "network.path=net.onnx", "network.cut={conv: rows}"]
    code, out, err = call(monkeypatch, capsys, "task=profile", *network, "samples=s.npy", "output=profile")
    assert (code, "note" in err) == (0, True)  # of the softmax
    assert "at least 3 of 128 cores of loihi2" in out
    table = load_table(here / "profile" / "layers.csv")
    assert table["layer"] == ["x", "conv", "second"]
    assert table["cut"] == ["channels", "rows", "channels"]
    assert [int(n) for n in table["multiplications"]] == [0, 4 * 2 * 9 * 30, 4 * 4 * 30]
    assert 0.3 < float(table["activity"][1]) < 0.7
    assert json.loads((here / "profile" / "summary.json").read_text())["samples"] == 5
    measured = "network.activity=profile/activity.npz"
    code, out, err = call(monkeypatch, capsys, *network, measured, "budget.evaluations=150", "output=run")
    assert code == 0
    assert "a mean of" not in err
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run", "evaluator=packet", "output=again")
    assert code == 0, err


@pytest.mark.slow
def test_a_spiking_network_is_simulated_and_searched_with_its_activity(here, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    first, second = (dense(rng.integers(-20, 60, shape), **cuba(vth=40, v_decay=400)) for shape in ((12, 20), (5, 12)))
    network = ["network=file", f"network.path={write_net(here / 'net.net', first, second)}"]
    code, _, err = call(monkeypatch, capsys, "task=profile", *network, "output=profile")
    assert (code, "note: no samples given, random ones taken" in err) == (0, True)
    table = load_table(here / "profile" / "layers.csv")
    assert table["layer"] == ["input", "dense_0", "dense_1"]
    assert all(0 < float(x) < 1 for x in table["activity"])
    measured = "network.activity=profile/activity.npz"
    assert call(monkeypatch, capsys, *network, measured, "budget.evaluations=150", "output=run")[0] == 0


@pytest.mark.slow
def test_neurons_with_common_sources_share_slices_in_the_run_folder(here, monkeypatch, capsys):
    code, _, err = call(
        monkeypatch, capsys, *SMALL, "network.order=shared_sources", "budget.evaluations=200", "output=run"
    )
    assert code == 0, err
    saved = json.loads((here / "run" / "mappings.json").read_text())
    assert saved["orders"]
    sizes = {"input": 64, "hidden_1": 96, "output": 64}
    assert all(sorted(order) == list(range(sizes[name])) for name, order in saved["orders"].items())
    assert call(monkeypatch, capsys, "task=evaluate", "run=run", "output=again")[0] == 0


@pytest.mark.parametrize(
    "name",
    ["mnist_mlp.net"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("oxford.net", "pilotnet_sdnn.net", "cnn_sinabs.nir", "lif_norse.nir", "mnist_cnn.onnx")
    ],
)
@pytest.mark.default_cases(1)
def test_public_trained_networks_run(name, networks_folder, here, monkeypatch, capsys):
    path = networks_folder / name
    code, out, err = call(monkeypatch, capsys, "network=file", f"network.path={path}", "budget.evaluations=300")
    assert code == 0, err
    assert "non-dominated mappings from 300 evaluations" in out


def test_progress_goes_to_stderr_as_plain_lines_and_the_table_to_stdout(here, monkeypatch, capsys):
    _, out, err = call(monkeypatch, capsys, *SMALL, "budget.evaluations=200")
    assert re.search(r"200 evaluations, [\d.]+ s: front \d+, hypervolume 0\.\d+, latency_s ", err)
    assert "\r" not in err
    assert out.splitlines()[0].endswith(".")
    assert "evaluations, " not in out


def test_evaluate_scores_a_run_again(here, monkeypatch, capsys):
    call(monkeypatch, capsys, *SMALL, "budget.evaluations=400", "output=run", "keep_evaluations=true")
    code, out, err = call(monkeypatch, capsys, "task=evaluate", "run=run", "output=same")
    assert code == 0, err
    assert (here / "same" / "front.csv").read_bytes() == (here / "run" / "front.csv").read_bytes()
    code, out, err = call(
        monkeypatch,
        capsys,
        "task=evaluate",
        "run=run",
        "output=slow",
        "system.costs.bandwidth_bit_per_s.mesh_x.value=1e9",
    )
    assert code == 0, err
    assert "stay non-dominated" in out
    evaluated = load_table(here / "slow" / "evaluated.csv")
    assert evaluated["mapping_id"] == load_table(here / "run" / "front.csv")["mapping_id"]
    assert set(evaluated["non_dominated"]) <= {"True", "False"}
    assert (here / "slow" / "pareto.png").exists()
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run", "output=run")
    assert code == 2
    assert "is the run itself" in err


@pytest.mark.slow
def test_a_front_gets_a_second_opinion_from_the_packet_model(here, monkeypatch, capsys):
    assert call(monkeypatch, capsys, *SMALL, "budget.evaluations=300", "output=run")[0] == 0
    code, _, err = call(
        monkeypatch, capsys, "task=evaluate", "run=run", "evaluator=packet", "evaluator.steps=3", "output=again"
    )
    assert code == 0, err
    first, second = (load_table(here / name / "front.csv") for name in ("run", "again"))
    assert {"latency_ci95_s", "energy_ci95_j"} == set(second) - set(first) - {"non_dominated", "rank", "share"}
    assert config_of(here / "again")["evaluator"]["steps"] == 3


def test_bugs_end_with_code_1_and_a_traceback(here, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(tasks, "search", broken)
    code, _, err = call(monkeypatch, capsys, *SMALL)
    assert code == 1
    assert "ZeroDivisionError: a bug" in err


def test_help_shows_examples_and_groups(here, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "--help")
    assert code == 0
    for text in (
        "+experiment=mlp_b",
        "network=file network.path=",
        "algorithm   agemoea2, annealing, es, guided, moead, nsga2, nsga3, random",
        "optimize      search the Pareto front",
        "budget.evaluations=20000          null: no limit",
    ):
        assert text in out


def config_of(folder):
    return json.loads((folder / "provenance.json").read_text())["config"]


@pytest.mark.slow
def test_evaluate_keeps_what_it_does_not_name(here, monkeypatch, capsys):
    mesh = ["system=mesh", "system.topology.width=5", "system.topology.height=3", "system.costs.e_synop_j.value=1e-12"]
    code, _, err = call(monkeypatch, capsys, *SMALL, *mesh, "budget.evaluations=200", "output=run", "network.seed=4")
    assert code == 0, err
    new = "system.costs.t_synop_s.value=1e-7"
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run", "output=again", new)
    assert code == 0, err
    before, after = config_of(here / "run"), config_of(here / "again")
    assert after["system"]["topology"] == before["system"]["topology"]
    assert after["network"] == before["network"]
    costs = after["system"]["costs"]
    assert costs["e_synop_j"]["value"] == 1e-12
    assert costs["t_synop_s"]["value"] == 1e-7
    summary = json.loads((here / "again" / "summary.json").read_text())
    assert set(summary["best"]) == {"latency_s", "energy_j"}
    # a whole group by name
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run", "output=loihi", "system=loihi2")
    assert code == 0, err
    assert config_of(here / "loihi")["system"]["topology"]["width"] == 8


@pytest.mark.slow
def test_numbers_given_on_the_command_line_lose_their_published_source(here, monkeypatch, capsys):
    key = "system.costs.t_synop_s"
    call(monkeypatch, capsys, *SMALL, f"{key}.value=1e-9", "budget.evaluations=100", "output=run")
    given = config_of(here / "run")["system"]["costs"]["t_synop_s"]
    assert (given["kind"], given["source"]) == ("assumed", "given by the user")
    assert "low" not in given  # nor has it the preset's bracket
    call(monkeypatch, capsys, *SMALL, f"{key}.value=1e-9", f"{key}.source=mine", "budget.evaluations=100", "output=own")
    assert config_of(here / "own")["system"]["costs"]["t_synop_s"]["source"] == "mine"


@pytest.mark.slow
def test_evaluate_refuses_a_folder_with_an_unfinished_run(here, monkeypatch, capsys):
    call(monkeypatch, capsys, *SMALL, "budget.evaluations=200", "output=run")
    (here / "unfinished").mkdir()
    (here / "unfinished" / "checkpoint.pkl").touch()
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run", "output=unfinished")
    assert code == 2
    assert "holds an unfinished run" in err
    assert [p.name for p in (here / "unfinished").iterdir()] == ["checkpoint.pkl"]


@pytest.mark.slow
def test_a_system_from_a_file_can_be_changed_with_a_plus(here, monkeypatch, capsys):
    (here / "mine.yaml").write_text("defaults: [loihi2, _self_]\nname: mine\n")
    arguments = [*SMALL, "system=file", "system.path=mine.yaml", "+system.topology.chips_x=2", "output=run"]
    code, _, err = call(monkeypatch, capsys, *arguments, "budget.evaluations=100")
    assert code == 0, err
    assert "of 256 cores of mine" in err


GRAPH = """
defaults: [loihi2, _self_]
name: two_rings
topology:
  type: graph
  routers: 8
  cores_per_router: 4
  links: [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [3, 4], [0, 5, mesh_y]]
  chips: [0, 0, 0, 0, 1, 1, 1, 1]
"""


@pytest.mark.parametrize(
    ("arguments", "cores"),
    [
        (["system=torus", "system.topology.width=4", "system.topology.height=4"], "of 16 cores of torus"),
        (["system=tree", "system.topology.depth=3"], "of 32 cores of tree"),
        (["system=file", "system.path=graph.yaml"], "of 32 cores of two_rings"),
    ],
)
@pytest.mark.default_cases(1)
def test_systems_that_are_no_mesh_run_and_are_scored_again(arguments, cores, here, monkeypatch, capsys):
    (here / "graph.yaml").write_text(GRAPH)
    code, _, err = call(monkeypatch, capsys, *SMALL, *arguments, "budget.evaluations=200", "output=run")
    assert code == 0, err
    assert cores in err
    assert (here / "run" / "mesh_knee.png").exists()
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run", "output=again")
    assert code == 0, err
    assert load_table(here / "again" / "front.csv")


@pytest.mark.slow
def test_a_sample_is_measured_and_the_system_calibrated(here, monkeypatch, capsys):
    small = [*SMALL, "system.topology.width=4", "system.topology.height=2"]
    code, out, err = call(monkeypatch, capsys, "task=sample", *small, "mappings=24", "output=sample")
    assert code == 0, err
    assert "24 mappings of small" in out
    table = load_table(here / "sample" / "sample.csv")
    slower = [str(1.5 * float(value)) for value in table["latency_s"]]
    lines = ["mapping_id,latency_s", *map(",".join, zip(table["mapping_id"], slower, strict=True))]
    (here / "measured.csv").write_text("\n".join(lines))
    arguments = ["task=calibrate", "run=sample", "measurements=measured.csv", "output=fit"]
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert "latency_s of held-out mappings is off by 0.0% (median) and at most 0.0%; before by 33.3% and 33.3%" in out
    for name in ("constants.csv", "predictions.csv", "predicted.pdf", "predicted.png", "summary.json"):
        assert (here / "fit" / name).exists()
    constants = load_table(here / "fit" / "constants.csv")
    rows = list(zip(*(constants[key] for key in ("name", "preset", "value", "status")), strict=True))
    fitted = [(name, float(value) / float(preset)) for name, preset, value, status in rows if status == "fitted"]
    assert fitted
    for name, ratio in fitted:
        assert ratio == pytest.approx(1 / 1.5 if name.startswith("bandwidth") else 1.5, rel=1e-3), name
    # The system that comes out is one to search on.
    again = ["system=file", "system.path=fit/calibrated.yaml", *SMALL, "budget.evaluations=100", "output=run"]
    assert call(monkeypatch, capsys, *again)[0] == 0
    code, _, err = call(monkeypatch, capsys, *arguments)
    assert (code, "overwrite=true" in err) == (2, True)
    (here / "measured.csv").write_text("mapping_id,latency_s\nnone,1e-6\n")
    code, _, err = call(monkeypatch, capsys, *arguments[:-1], "output=other")
    assert (code, "line 2: no mapping 'none'" in err, (here / "other").exists()) == (2, True, False)


@pytest.mark.parametrize("content", ["[]", '{"config": null}', '{"config": {}}', "{"])
def test_evaluate_refuses_a_broken_run_folder(content, here, monkeypatch, capsys):
    (here / "run").mkdir()
    (here / "run" / "provenance.json").write_text(content)
    code, _, err = call(monkeypatch, capsys, "task=evaluate", "run=run")
    assert code == 2
    assert "provenance.json" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_net_file_says_what_activity_is_assumed(here, monkeypatch, capsys):
    with h5py.File(here / "mine.net", "w") as file:
        layer = file.create_group("layer/0")
        layer["type"] = np.array([b"dense"])
        layer["weight"] = np.ones((30, 40), dtype=np.float32)
        layer["neuron/type"] = b"LIF"
    arguments = ["network=file", "network.path=mine.net", "budget.evaluations=100"]
    assert "a mean of 0.2 per neuron is assumed" in call(monkeypatch, capsys, *arguments, "output=a")[2]
    assert "is assumed" not in call(monkeypatch, capsys, *arguments, "network.activity=0.1", "output=b")[2]


@pytest.mark.slow
def test_placements_are_exported_for_lava(here, monkeypatch, capsys):
    code, _, err = call(monkeypatch, capsys, *SMALL, "budget.evaluations=200", "output=run")
    assert code == 0, err
    code, out, err = call(monkeypatch, capsys, "task=export", "run=run", "output=placements")
    assert code == 0, err
    mappings = {m["id"]: m for m in json.loads((here / "run" / "mappings.json").read_text())["mappings"]}
    assert f"{len(mappings)} placement files" in out
    written = json.loads((here / "placements" / "placement_m000.json").read_text())
    assert [x["kind"] for x in written["layers"]] == ["input", "lif", "lif"]
    assert [core for x in written["layers"] for _, core in x["cores"]] == mappings["m000"]["core_of_slice"]
    assert written["layers"][-1]["neurons"][-1][1] == 64
    assert nm.load_mappings(here / "placements" / "mappings.json")[0]["m000"].core_of_slice == tuple(
        mappings["m000"]["core_of_slice"]
    )
    network, system = (
        nm.load_network(here / "placements" / "network.npz"),
        nm.load_system(here / "placements/system.yaml"),
    )
    assert (network.digest, system.digest) == (written["network"], written["system"])
    read = read_placement(here / "placements" / "placement_m000.json")
    assert list(read) == [x["process"] for x in written["layers"][1:]]
    code, _, err = call(monkeypatch, capsys, "task=export", "run=run", "output=placements")
    assert (code, "holds a finished run" in err) == (2, True)
