"""Loihi 2 behind the device protocol; what needs lava-nc runs on Python 3.10 alone, and no chip is there."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import BROKEN_PROCESS, ROOT, commands_with, examples, needs_lava
from hypothesis import example, given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.boards import lava_board
from neuromap_moo.boards.lava_board import NEURONS, generated_arrays, synapses_of
from neuromap_moo.fixed_point.simulator import Lif, Synapses, simulate
from neuromap_moo.mapping.files import entry_of
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.network.connectivity import natural_of_number
from neuromap_moo.system.system import save_system

SYSTEM = nm.mesh_system(4, 4, chips_x=2)  # cores 0..15 and 16..31 are chips


def recurrent():
    """Three layers, the second with synapses to itself; some neurons never fire, some at every timestep."""
    rng = np.random.default_rng(5)
    activity = rng.random(24)
    activity[:3], activity[3] = 0.0, 1.0
    layers = (
        nm.Layer("in", 24, "input", activity),
        nm.Layer("hidden", 15, "lif", rng.random(15) * 0.3),
        nm.Layer("out", 6, "lif", np.full(6, 0.02)),
    )
    pairs = (("in", "hidden", 24, 15), ("hidden", "hidden", 15, 15), ("hidden", "out", 15, 6))
    projections = tuple(
        nm.Projection(a, b, nm.Sparse.from_matrix(rng.random((m, n)) < 0.4), weight_bits=bits)
        for (a, b, m, n), bits in zip(pairs, (8, 4, 1), strict=True)
    )
    return nm.Network("recurrent", layers, projections, steps_per_inference=3)


def simulated(network, steps, seed=0):
    """What the made network sends (size, steps) by layer, by the simulator in numpy."""
    arrays = lava_board.generated_arrays(network, seed)
    exponents = [exponent for _, _, exponent in json.loads(str(arrays["meta"]))["projections"]]
    first, numbers = 1, {}
    for layer in network.layers:
        numbers[layer.name] = np.arange(first, first + layer.size)
        first += layer.size
    layers = [
        (
            numbers[layer.name],
            Lif(
                NEURONS["vth"],
                NEURONS["du"],
                NEURONS["dv"],
                bias=arrays[f"bias_mant_{i}"] << NEURONS["bias_exp"],
                v=arrays[f"v_{i}"],
            ),
        )
        for i, layer in enumerate(network.layers)
    ]
    synapses = []
    for i, projection in enumerate(network.projections):
        matrix = synapses_of(projection.connectivity).astype(np.int64)
        matrix.data = arrays[f"data_{i}"]
        source, target = numbers[projection.source], numbers[projection.target]
        synapses.append(Synapses(source, target, matrix.toarray(), None, exponents[i], graded=False))
    nothing = {0: np.zeros((1, steps, network.layers[0].size), dtype=np.int64)}
    sent = np.stack([s[:, 0] for s in simulate(layers, synapses, nothing)], axis=1)
    return {layer.name: sent[numbers[layer.name]] for layer in network.layers}


WORKER = (sys.executable, "-m", "neuromap_moo.workers.lava_board")


def tried(folder, *options):
    """What the worker says of one mapping of a folder, in a dry run."""
    command = [*WORKER, "--dry-run", "--try", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)


def given_to_worker(folder, network=None, system=SYSTEM):
    """Write a network and a system, and return the hello of them."""
    network = recurrent() if network is None else network
    nm.save_network(network, folder / "network.npz")
    save_system(system, folder / "system.yaml")
    files = {"network": str(folder / "network.npz"), "system": str(folder / "system.yaml")}
    return {"type": "hello", "protocol": 1, **files}


def measure(mapping, network, repeats=1, number=1):
    return {"type": "measure", "id": number, "mapping": entry_of("x", mapping, network), "repeats": repeats}


def talk(messages, *options, environment=None, timeout=120):
    """Answers of the worker to messages, and what it said on stderr."""
    done = subprocess.run(
        [*WORKER, *options],
        input="".join(json.dumps(message) + "\n" for message in messages),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | (environment or {}),
        cwd=ROOT,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


#: Slices of 12, 12 | 5, 5, 5 | 6 neurons on two chips.
MAPPING = Mapping((2, 3, 1), (19, 2, 30, 0, 7, 17))
PROCESSES = ("in[0]", "in[1]", "hidden[0]", "hidden[1]", "hidden[2]", "out[0]")
RANKS = {
    name: str(sorted(MAPPING.core_of_slice).index(core))
    for name, core in zip(PROCESSES, MAPPING.core_of_slice, strict=True)
}


@pytest.mark.parametrize("cut", ["channels", "rows", "columns"])
@pytest.mark.parametrize("chunk", [7, 50_000])
def test_synapses_of_a_convolution_are_those_of_its_definition(monkeypatch, cut, chunk):
    monkeypatch.setattr(lava_board, "CHUNK", chunk)
    shape_in, shape_out = (4, 5, 6), (6, 3, 5)
    c = nm.Convolution(shape_in, shape_out, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, cut=cut)
    expected = np.zeros((c.n_target, c.n_source), dtype=int)
    number = np.argsort(natural_of_number(shape_out, cut)).reshape(shape_out)
    place = np.arange(c.n_source).reshape(shape_in)
    for d, v, u in np.ndindex(shape_out):
        for ci, j, i in np.ndindex(2, 3, 2):
            y, x = 2 * v + j - 1, u + i
            if 0 <= y < 5 and 0 <= x < 6:
                expected[number[d, v, u], place[d // 3 * 2 + ci, y, x]] = 1
    assert (synapses_of(c).toarray() == expected).all()
    assert expected.sum() == c.n_synapses


@pytest.mark.parametrize("chunk", [7, 50_000])
def test_synapses_of_matrices(monkeypatch, chunk):
    monkeypatch.setattr(lava_board, "CHUNK", chunk)
    matrix = np.random.default_rng(0).random((12, 30)) < 0.3
    assert (synapses_of(nm.Sparse.from_matrix(matrix)).toarray() == matrix.T).all()
    assert (synapses_of(nm.Dense(12, 30)).toarray() == np.ones((30, 12))).all()


@examples(40)
@given(activity=st.floats(0.0, 1.2), seed=st.integers(0, 5))
@example(activity=0.0014, seed=0)
@example(activity=0.0003, seed=1)
@example(activity=0.75, seed=0)
@example(activity=1.0, seed=0)
def test_made_neurons_fire_as_often_as_the_network_says(activity, seed):
    network = nm.Network("one", (nm.Layer("a", 300, "input", np.full(300, activity)),), ())
    arrays = generated_arrays(network, seed)
    bias, v = arrays["bias_mant_0"].astype(float), arrays["v_0"]
    assert (bias < 2**12).all()  # of 13 bits with a sign
    assert (v <= NEURONS["vth"] << 6).all()
    rate = np.zeros(300)
    rate[bias > 0] = 1.0 / (np.floor(lava_board.LEVEL / bias[bias > 0]) + 1.0)
    wanted = min(activity, 1.0)
    assert rate.mean() == pytest.approx(wanted, rel=0.03, abs=1.0 / 2049 / 300)
    steps = 400
    sent = simulated(network, steps, seed)["a"]
    assert np.abs(sent.sum(axis=1) - rate * steps).max() <= 1.0
    if 0.05 < wanted < 0.5:  # phases are spread: no timestep in which all fire
        assert sent.mean(axis=0).max() < 1.5 * wanted + 0.1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.default_cases(1)
def test_synapses_do_not_change_how_often_neurons_fire(bits):
    rng = np.random.default_rng(bits)
    activity = np.exp(0.5 * rng.standard_normal(1000)) * 0.2
    layers = (
        nm.Layer("a", 1000, "input", activity),
        nm.Layer("b", 60, "lif", np.full(60, 0.01)),
        nm.Layer("c", 60, "lif", np.full(60, 0.15)),
    )
    projections = [
        nm.Projection("a", target, nm.Sparse.from_matrix(rng.random((1000, 60)) < 0.7), weight_bits=bits)
        for target in ("b", "c")
    ]
    sent = simulated(nm.Network("wide", layers, tuple(projections)), 2000)
    assert sent["b"].mean() == pytest.approx(0.01, rel=0.05)
    assert sent["c"].mean() == pytest.approx(0.15, rel=0.02)


@needs_lava
def test_a_dry_run_sends_what_the_simulator_in_numpy_sends(tmp_path):
    network = recurrent()
    given_to_worker(tmp_path, network)
    nm.save_mappings(tmp_path / "mappings.json", {"mine": MAPPING}, network, SYSTEM)
    done = tried(tmp_path, "--steps", "60", "--spikes", str(tmp_path / "spikes.npz"))
    assert done.returncode == 0, done.stderr
    expected = simulated(network, 60)
    with np.load(tmp_path / "spikes.npz") as spikes:
        assert set(spikes.files) == set(expected)
        for name, sent in expected.items():
            assert np.count_nonzero(sent)
            assert (spikes[name] == sent).all()
    assert dict(line.split() for line in done.stdout.splitlines() if "[" in line) == RANKS


def board_of(tmp_path, *options):
    """A board at work on a dry run of the recurrent network."""
    given_to_worker(tmp_path)
    board = lava_board.LavaBoard(lava_board.options_of(["--dry-run", *options]))
    board.start({"network": str(tmp_path / "network.npz"), "system": str(tmp_path / "system.yaml")})
    return board


@needs_lava
def test_slices_are_joined_as_layers_are(tmp_path, monkeypatch):
    """A process for each slice, as on the chip: all of them send what the simulator says, with synapses that matter."""

    def stronger(network, seed):
        arrays = generated_arrays(network, seed)
        for i in range(len(network.projections)):
            arrays[f"data_{i}"] = (
                20 * arrays[f"data_{i}"] if np.abs(arrays[f"data_{i}"]).max() < 10 else arrays[f"data_{i}"]
            )
            arrays[f"data_{i}"] = np.roll(arrays[f"data_{i}"], 3)  # no longer balanced
        return arrays

    monkeypatch.setattr(lava_board, "generated_arrays", stronger)
    network = recurrent()
    board = board_of(tmp_path, "--steps", "50")
    sliced = board.run("spikes", MAPPING, whole=False)
    expected = simulated(network, 50)
    for layer, sent in expected.items():
        parts = [sliced[name] for name in PROCESSES if name.startswith(layer)]
        assert (np.concatenate(parts) == sent).all()
    monkeypatch.undo()
    assert any((simulated(network, 50)[layer] != sent).any() for layer, sent in expected.items())


@needs_lava
def test_exact_cores_are_those_of_the_mapping(tmp_path):
    cores = board_of(tmp_path, "--exact").run("place", MAPPING)
    per_chip = 128  # virtual cores in Lava's Mapper
    wanted = [core // 16 * per_chip + core % 16 for core in MAPPING.core_of_slice]
    assert {name: ids.tolist() for name, ids in cores.items()} == {
        name: [core] for name, core in zip(PROCESSES, wanted, strict=True)
    }


@needs_lava
@pytest.mark.slow
def test_a_network_of_more_than_a_thousand_processes_is_compiled(tmp_path):
    layers = tuple(nm.Layer(name, 36, kind, np.full(36, 0.2)) for name, kind in (("a", "input"), ("b", "lif")))
    network = nm.Network("wide", layers, (nm.Projection("a", "b", nm.Dense(36, 36)),))
    system = nm.mesh_system(9, 8)
    mapping = Mapping((36, 36), tuple(np.random.default_rng(0).permutation(72).tolist()))
    messages = [given_to_worker(tmp_path, network, system), measure(mapping, network), {"type": "bye"}]
    answers, said = talk(messages, "--dry-run", "--steps", "10")
    assert answers[1]["type"] == "result", (answers[1], said)


@needs_lava
def test_a_dry_run_speaks_the_protocol_and_measures_no_time(tmp_path):
    network = recurrent()
    messages = [given_to_worker(tmp_path, network), measure(MAPPING, network, repeats=2), {"type": "bye"}]
    answers, said = talk(messages, "--dry-run", "--steps", "40")
    assert answers[0] == {"type": "ready", "name": "lava dry run", "metrics": ["spikes"]}, said
    total = float(sum(sent.sum() for sent in simulated(network, 40).values()))
    assert answers[1] == {"type": "result", "id": 1, "metrics": {"spikes": [total, total]}}


@pytest.mark.slow
def test_without_intels_extension_nothing_is_measured(tmp_path):
    answers, _ = talk([given_to_worker(tmp_path)])
    expected = "Intel's extension of Lava for Loihi 2 cannot be imported"
    if importlib.util.find_spec("lava.magma") is None:
        expected = "cannot be imported"
    assert (answers[0]["type"], answers[0]["kind"]) == ("error", "fatal")
    assert expected in answers[0]["message"]


#: Run at the start of every Python process: Intel's extension, as far as a run needs it. No time is measured: the
#: probes give what the test wants, and the network is compiled by Lava itself.
EXTENSION = """
import json, os, sys, types
if len(sys.orig_argv) > 1 and sys.orig_argv[1].endswith("lava/run.py"):
    from neuromap_moo.lava import stand_in as lava_stand_in
    lava_stand_in.install()
    import numpy as np
    from lava.magma.core.run_configs import Loihi2HwCfg
    from lava.proc.dense.process import Dense
    from lava.proc.lif.process import LIF
    from lava.proc.sparse.process import Sparse

    log = open(os.environ["LAVA_LOG"], "a")
    def cut(self, processes, compile_config):
        self.processes, self.cores = processes, {p.name: 1 for p in processes if type(p) is LIF}

    lava_stand_in.NcProcCompiler.__init__ = cut

    def say(*what):
        print(*what, file=log, flush=True)

    class Loihi2HWProfiler:
        def __init__(self, run_cfg):
            run_cfg.exception_proc_model_map = lava_stand_in.models([LIF, Sparse, Dense])
            say("init")

        def execution_time_probe(self, num_steps):
            say("time", num_steps)
            self.execution_time = np.array(json.loads(os.environ["LAVA_TIMES"]))

        def energy_probe(self, num_steps):
            say("energy", num_steps)
            self.energy, self.static_energy = json.loads(os.environ["LAVA_ENERGY"])

    profiler = types.ModuleType("lava.utils.loihi2_profiler_api")
    profiler.Loihi2HWProfiler = Loihi2HWProfiler
    sys.modules["lava.utils.loihi2_profiler_api"] = profiler

    from lava.magma.core.process.process import AbstractProcess

    def create_runtime(self, executable):
        say("cores", json.dumps({p.name: [(a.chip_id, a.core_id) for a in b.virtual]
                                 for p, b in executable.proc_builders.items()}))
        say("slurm", os.environ.get("SLURM"), os.environ.get("BOARD"), os.environ.get("PARTITION"))

    def run(self, condition):
        say("run", condition.num_steps)
        if os.environ.get("LAVA_HANGS"):
            import time
            time.sleep(1000)

    AbstractProcess.create_runtime = create_runtime
    AbstractProcess.run = run
    AbstractProcess.stop = lambda self: say("stop")
"""


@pytest.fixture
def extension(tmp_path):
    """An environment in which Intel's extension seems to be there; also the file of what was asked of it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(EXTENSION)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)]),
        "LAVA_LOG": str(tmp_path / "log.txt"),
        "LAVA_TIMES": "[1e-6, 2e-6, 3e-6]",
        "LAVA_ENERGY": "[5e-3, 3e-3]",
    }
    return environment, tmp_path / "log.txt"


@needs_lava
def test_a_run_on_the_chip(tmp_path, extension):
    environment, log = extension
    network = recurrent()
    messages = [given_to_worker(tmp_path, network), measure(MAPPING, network, repeats=2), {"type": "bye"}]
    answers, said = talk(messages, "--steps", "50", "--board", "og05", environment=environment)
    assert answers[0] == {"type": "ready", "name": "loihi2 og05", "metrics": ["latency_s"]}, said
    # Mean step of 2 us; 3 timesteps of input and a depth of 3 make 5 steps.
    assert answers[1]["metrics"] == {"latency_s": pytest.approx([10e-6, 10e-6])}
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == 2 * ["init", "time", "cores", "slurm", "run", "stop"]
    assert (lines[1], lines[3], lines[4]) == ("time 50", "slurm 1 og05 None", "run 50")
    cores = json.loads(lines[2].removeprefix("cores "))
    assert {name: str(core) for name, [[chip, core]] in cores.items() if chip == 0} == RANKS


@needs_lava
@pytest.mark.parametrize("options", [[], ["--dynamic"]], ids=["total", "dynamic"])
def test_energy_takes_a_run_of_its_own(tmp_path, extension, options):
    environment, log = extension
    network = recurrent()
    messages = [given_to_worker(tmp_path, network), measure(MAPPING, network), {"type": "bye"}]
    answers, said = talk(messages, "--steps", "50", "--energy-steps", "1000", *options, environment=environment)
    assert answers[0]["metrics"] == ["latency_s", "energy_j"], said
    # That of 1000 steps, for 3 of them; all but 3 mJ of 5 is static.
    assert answers[1]["metrics"]["energy_j"] == pytest.approx([6e-6 if options else 15e-6])
    said = [line for line in log.read_text().splitlines() if line.split()[0] in ("time", "energy", "run")]
    assert said == ["time 50", "run 50", "energy 1000", "run 1000"]


@needs_lava
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LAVA_ENERGY": "[2e-3, 3e-3]"}, "small networks need more --energy-steps"),
        ({"LAVA_TIMES": "[]"}, "gave no time"),
    ],
)
def test_probes_that_give_nothing_are_no_measurement(tmp_path, extension, changes, message):
    environment, _ = extension
    network = recurrent()
    messages = [given_to_worker(tmp_path, network), measure(MAPPING, network), {"type": "bye"}]
    answers, _ = talk(messages, "--energy-steps", "1000", "--dynamic", environment=environment | changes)
    assert (answers[1]["kind"], message in answers[1]["message"]) == ("transient", True)


@pytest.fixture
def own_folder():
    """A folder for temporary files that tells our processes from others; a short path, as Lava has sockets there."""
    folder = Path(tempfile.mkdtemp(prefix="nm"))
    yield folder
    shutil.rmtree(folder)


def wait_until(condition, limit_s=60.0):
    until = time.monotonic() + limit_s
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def hanging(folder, what):
    """The keeper of a run and the prefix of its shared memory, once it is under way."""

    def running():
        for pid, command in commands_with(str(folder)).items():
            if "--clean" in command and what in command:
                return pid, command[command.index("--clean") + 1]
        return None

    return wait_until(running)


def nothing_is_left(folder, prefix):
    assert wait_until(lambda: not commands_with(str(folder)), 30), commands_with(str(folder))
    assert [name for name in os.listdir("/dev/shm") if name.startswith(prefix)] == []
    assert wait_until(lambda: not list(folder.iterdir()), 30), list(folder.iterdir())


@needs_lava
@pytest.mark.process
def test_a_run_that_hangs_is_stopped_and_its_jobs_are_cancelled(tmp_path, extension, own_folder):
    environment, log = extension
    cancel = tmp_path / "bin" / "scancel"
    cancel.parent.mkdir()
    cancel.write_text(f"#!/bin/sh\necho scancel $@ >> {log}\n")
    cancel.chmod(0o755)
    environment |= {"LAVA_HANGS": "1", "PATH": f"{cancel.parent}{os.pathsep}{os.environ['PATH']}"}
    environment["TMPDIR"] = str(own_folder)
    network = recurrent()
    messages = [given_to_worker(tmp_path, network), measure(MAPPING, network), {"type": "bye"}]
    answers, said = talk(messages, "--time-limit-s", "25", "--partition", "oheogulch", environment=environment)
    assert (answers[1]["kind"], "did not end within 25 s" in answers[1]["message"]) == ("transient", True), said
    last = log.read_text().splitlines()[-1]
    assert last.startswith("scancel --name=nm")
    nothing_is_left(own_folder, last.partition("=")[2])


def slurm_answers():
    return shutil.which("sinfo") is not None and subprocess.run(["sinfo"], capture_output=True).returncode == 0


@pytest.mark.skipif(not slurm_answers(), reason="there is no SLURM here")
@pytest.mark.parametrize("killed", [False, True])
def test_jobs_of_a_real_slurm_end_with_the_run(tmp_path, killed):
    """Whether the run hits its limit or its caller is killed."""
    worker, caller = tmp_path / "worker.py", tmp_path / "caller.py"
    worker.write_text('import subprocess\nsubprocess.run(["srun", "sleep", "1000"])\n')
    limit_s = 600 if killed else 6
    caller.write_text(
        "from pathlib import Path\nfrom neuromap_moo.readers.lava import run_lava\n"
        f'print(run_lava(Path({str(worker)!r}), "what", "model", limit_s={limit_s})[0])\n'
    )
    running = subprocess.Popen(
        [sys.executable, str(caller)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"SLURM": "1", "PYTHONPATH": str(ROOT)},
    )

    def jobs():
        command = ["squeue", "-h", "-o", "%j %T"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in lines if line.startswith("nm") and not line.endswith("COMPLETING")]

    assert wait_until(jobs, 30)
    if killed:
        running.kill()
    assert (running.communicate(timeout=60)[0] == b"None\n") != killed
    assert wait_until(lambda: not jobs(), 30), jobs()


BROKEN = f"""
{BROKEN_PROCESS}
from lava.proc.dense.process import Dense
from lava.proc.lif.process import LIF
import numpy as np

def build():
    first = LIF(shape=(24,), name="in", bias_mant=5)
    hidden = LIF(shape=(15,), name="hidden")
    out = LIF(shape=(6,), name="out")
    for a, b in ((first, hidden), (hidden, out)):
        weights = Dense(weights=np.ones((b.v.shape[0], a.v.shape[0])))
        a.s_out.connect(weights.s_in)
        weights.a_out.connect(b.a_in)
    broken = Broken((6,))
    out.s_out.connect(broken.a_in)
    return first
"""


@needs_lava
@pytest.mark.process
@pytest.mark.parametrize("killed", ["", "worker", "keeper"])
def test_nothing_is_left_of_a_model_that_hangs(tmp_path, killed, own_folder):
    """However it ends: by the worker's own limit, or with the worker or its keeper killed while Lava hangs."""
    path = tmp_path / "model.py"
    path.write_text(BROKEN)
    network = recurrent()
    worker = subprocess.Popen(
        [*WORKER, "--dry-run", "--model", str(path), "--time-limit-s", "600" if killed else "20"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(own_folder)},
    )
    for message in (given_to_worker(tmp_path, network), measure(MAPPING, network)):
        worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()
    assert json.loads(worker.stdout.readline())["type"] == "ready"
    keeper, prefix = hanging(own_folder, "spikes")
    assert wait_until(lambda: any(name.startswith(prefix) for name in os.listdir("/dev/shm")))
    if killed:
        os.kill({"worker": worker.pid, "keeper": keeper}[killed], signal.SIGKILL)
    if killed != "worker":
        answer = json.loads(worker.stdout.readline())
        assert (answer["type"], answer["kind"]) == ("error", "transient")
        expected = "it ended with code -9" if killed else "did not end within 20 s"
        assert expected in answer["message"] or "broken on purpose" in answer["message"]
        worker.stdin.close()
    worker.wait(60)
    nothing_is_left(own_folder, prefix)


@needs_lava
def test_a_model_of_ones_own_is_cut_as_it_likes(tmp_path):
    """build(slices) makes a process for each slice of a layer; a missing layer is named."""
    path = tmp_path / "model.py"
    body = """
        import numpy as np
        from lava.proc.dense.process import Dense
        from lava.proc.lif.process import LIF

        def build(slices=None):
            slices = slices or {"in": [24], "hidden": [15], "out": [6]}
            def made(layer):
                sizes = enumerate(slices[layer])
                return [LIF(shape=(n,), name=f"{layer}[{i}]", bias_mant=4, bias_exp=6) for i, n in sizes]
            layers = [made(layer) for layer in LAYERS]
            for before, after in zip(layers, layers[1:]):
                for a in before:
                    for b in after:
                        weights = Dense(weights=np.ones((b.v.shape[0], a.v.shape[0])))
                        a.s_out.connect(weights.s_in)
                        weights.a_out.connect(b.a_in)
            return layers[0][0]
        """
    path.write_text(textwrap.dedent(body).replace("LAYERS", '("in", "hidden", "out")'))
    network = recurrent()
    hello = given_to_worker(tmp_path, network)
    messages = [hello, measure(MAPPING, network), {"type": "bye"}]
    answers, said = talk(messages, "--dry-run", "--steps", "20", "--model", str(path))
    assert answers[1]["type"] == "result", said
    assert answers[1]["metrics"]["spikes"][0] > 0
    path.write_text(textwrap.dedent(body).replace("LAYERS", '("in", "hidden")'))
    answers, _ = talk([hello], "--dry-run", "--model", str(path))
    assert (answers[0]["kind"], "there is none for 'out'" in answers[0]["message"]) == ("fatal", True)


@needs_lava
def test_processes_that_are_not_what_the_mapping_says_cannot_take_it(tmp_path, extension):
    environment, _ = extension
    path = tmp_path / "model.py"
    network = recurrent()
    messages = [given_to_worker(tmp_path, network), measure(MAPPING, network), {"type": "bye"}]

    def refusal(model):
        path.write_text(model)
        answers, said = talk(messages, "--model", str(path), environment=environment)
        assert answers[1]["kind"] == "mapping", said
        return answers[1]["message"]

    fine = BROKEN.replace("    out.s_out.connect(broken.a_in)\n", "")
    assert "Lava cut it into 1" in refusal(fine)
    assert "layer 'hidden': expected neurons {'hidden': 15}" in refusal(fine.replace("(15,)", "(16,)"))
    assert "layer 'hidden': expected neurons {'hidden[0]': 5, 'hidden[1]': 5, 'hidden[2]': 5}" in refusal(
        fine.replace('name="hidden"', 'name="hidden[0]"')
    )
    cannot = fine.replace(
        "def build():", "def build(slices):\n    if slices['hidden'] != [15]:\n        raise ValueError('no')"
    )
    assert "build() raises ValueError: no" in refusal(cannot)


@needs_lava
def test_what_lava_compiled_is_kept_by_what_it_was_compiled_from(tmp_path, monkeypatch):
    board = board_of(tmp_path, "--cache", str(tmp_path / "cache"))
    asked = []
    monkeypatch.setattr(
        lava_board, "run_lava", lambda worker, what, job, limit_s: (asked.append(job["cache"]), (0, {}, ""))[1]
    )
    board.run("measure", MAPPING)
    board.run("measure", Mapping((2, 3, 1), (0, 1, 2, 3, 4, 5)))
    board.run("measure", Mapping((2, 2, 1), (0, 1, 2, 3, 4)))
    assert asked[0] == asked[1] != asked[2]
    assert Path(asked[0]).parent == tmp_path / "cache"


@pytest.mark.slow
def test_a_folder_that_was_not_exported_is_refused(tmp_path):
    done = tried(tmp_path)
    assert done.returncode == 1
    assert "expected a folder that task=export wrote, with network.npz; there is none" in done.stderr
    network = recurrent()
    given_to_worker(tmp_path, network)
    nm.save_mappings(tmp_path / "mappings.json", {"mine": MAPPING}, network, SYSTEM)
    done = tried(tmp_path, "--id", "m1")
    assert (done.returncode, "expected --id to be one of mine, got 'm1'" in done.stderr) == (1, True)
    nm.save_network(nm.Network("other", network.layers, ()), tmp_path / "network.npz")
    with pytest.raises(nm.InputError, match=r"mappings\.json belongs to another network"):
        lava_board.try_once(None, tmp_path, "mine")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "0"], "expected a whole number from 1 on, got '0'"),
        (["--time-limit-s", "inf"], "expected a number above 0, got 'inf'"),
        (["--spikes", "/nowhere/at/all.npz"], "expected a file in a folder that exists"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        lava_board.options_of(options)
    assert said in capsys.readouterr().err


def test_a_board_that_only_had_bad_luck_at_the_start_is_tried_again():
    command = (
        "from neuromap_moo.workers.serving import *\ndef start(m): raise {}('later')\nraise SystemExit(serve(start))"
    )
    hello = json.dumps({"type": "hello", "protocol": 1})
    for error, kind in (("TransientError", "transient"), ("ValueError", "fatal")):
        done = subprocess.run(
            [sys.executable, "-c", command.format(error)], input=hello + "\n", capture_output=True, text=True
        )
        assert json.loads(done.stdout) == {"type": "error", "kind": kind, "message": "later"}
