"""SANA-FE as an outside opinion; needs a Python that has the package sanafe, named by SANAFE_PYTHON."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import neuromap_moo as nm
from neuromap_moo.models.sanafe import SanafeEvaluator


@pytest.fixture(scope="module")
def sanafe_python():
    python = os.environ.get("SANAFE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import sanafe"], capture_output=True).returncode:
        pytest.skip("sanafe is not installed; name a Python that has it by SANAFE_PYTHON")
    return python


def case(**costs):
    network = nm.sparse_mlp([120, 200, 80], 0.2, activity=0.3, seed=2)
    problem = nm.MappingProblem(network, nm.mesh_system(4, 3, 2, synapse_words=1500, **costs))
    return problem, list(nm.varied_mappings(problem, 8, np.random.default_rng(0)).values())


def metrics(problem, mappings, **evaluator):
    return nm.MappingProblem(problem.network, problem.system, evaluator=evaluator).evaluate_mappings(mappings)


@pytest.mark.slow
def test_counts_and_energies_are_those_of_our_own_events(sanafe_python):
    problem, mappings = case(e_link_j={"mesh_x": 1e-12, "mesh_y": 3e-12})
    theirs = metrics(problem, mappings, name="sanafe", python=sanafe_python, timing="simple", steps=3, seed=5)
    ours = metrics(problem, mappings, name="packet", steps=3, seed=5)
    for column in ("messages", "message_hops", "e_dendops_j", "e_synops_j", "e_messages_j", "e_links_j"):
        np.testing.assert_allclose(theirs[column], ours[column], rtol=1e-12, err_msg=column)


@pytest.mark.slow
def test_simple_timing_is_the_slowest_core(sanafe_python):
    # Updates and barrier take no time, so the slowest core is the one of the most synaptic operations, step by step.
    problem, mappings = case(t_dendop_s=1e-15, t_barrier_s=0.0)
    theirs = metrics(problem, mappings, name="sanafe", python=sanafe_python, timing="simple", steps=3)
    ours = metrics(problem, mappings, name="packet", steps=3)
    np.testing.assert_allclose(theirs["step_time_s"], ours["t_synops_s"], rtol=1e-12)


@pytest.mark.slow
def test_detailed_timing_agrees_with_the_packet_simulator_where_links_are_quick(sanafe_python):
    problem, mappings = case(t_barrier_s=0.0)
    theirs = metrics(problem, mappings, name="sanafe", python=sanafe_python, steps=3)
    ours = metrics(problem, mappings, name="packet", steps=3)
    np.testing.assert_allclose(theirs["step_time_s"], ours["step_time_s"], rtol=0.05)


@pytest.mark.slow
def test_a_run_is_scored_again_from_the_command_line(sanafe_python, tmp_path):
    command = [sys.executable, "-m", "neuromap_moo"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    how = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    small = ["network.sizes=[40,60,20]", "network.density=0.3", "budget.evaluations=120", "name=small"]
    mesh = ["system=mesh", "system.topology.width=4", "system.topology.height=3"]
    subprocess.run([*command, *small, *mesh, "output=run"], check=True, **how)
    again = ["task=evaluate", "run=run", "output=again", "evaluator=sanafe", f"evaluator.python={sanafe_python}"]
    done = subprocess.run([*command, *again], **how)
    assert done.returncode == 0, done.stderr
    assert "stay non-dominated" in done.stdout


def evaluator(network, system, **options):
    partitioner = nm.MappingProblem(network, system).partitioner
    return SanafeEvaluator(partitioner, system, **options)


def test_what_it_has_no_model_of_is_refused_before_anything_runs():
    network = nm.sparse_mlp([20, 30], 0.5, activity=0.3)
    layers = tuple(replace(layer, activity=np.full(layer.size, 3.0)) for layer in network.layers)
    busy, mesh = replace(network, layers=layers), nm.mesh_system(4, 4)
    for net, system, options, message in (
        (network, nm.mesh_system(4, 4, chips_x=2), {}, "expected a mesh of one chip"),
        (network, nm.load_system("torus"), {}, "expected a mesh of one chip"),
        (network, nm.mesh_system(4, 4, copies="per_route"), {}, "expected copies: per_core"),
        (busy, mesh, {}, "activity of at most 1 spike per timestep, got 3"),
        (network, mesh, {"timing": "cycle"}, "no 'cycle'"),
        (network, mesh, {"steps": 0}, r"evaluator\.steps"),
        (network, mesh, {"python": "no/such/python"}, "no/such/python.*sanafe==2.2.9"),
    ):
        with pytest.raises(nm.InputError, match=message):
            evaluator(net, system, **options)


def test_a_python_without_the_package_is_refused(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(nm.InputError, match="has no package sanafe; install it apart"):
        evaluator(nm.sparse_mlp([20, 30], 0.5), nm.mesh_system(4, 4), python=str(fake))


def test_a_simulator_that_fails_or_hangs_is_reported(tmp_path):
    network, system = nm.sparse_mlp([20, 30], 0.5), nm.mesh_system(4, 4)
    mapping = nm.Mapping((1, 1), (0, 1))
    for script, limit, message in (
        ('[ "$1" = -c ] && exit 0; echo broken >&2; exit 3', 60, "ended with code 3 and said: broken"),
        ('[ "$1" = -c ] && exit 0; exec sleep 60', 0.2, "took more than 0.2 s; raise evaluator.time_limit_s"),
    ):
        fake = tmp_path / "python"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        made = evaluator(network, system, python=str(fake), time_limit_s=limit)
        with pytest.raises(RuntimeError, match=message):
            nm.MappingProblem(network, system, evaluator=made).evaluate_mappings([mapping])


def test_more_neurons_than_a_core_holds_there_are_refused(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 0\n")
    fake.chmod(0o755)
    network = nm.sparse_mlp([1200, 10], 0.01)
    made = evaluator(network, nm.mesh_system(4, 4, synapse_words=20_000), python=str(fake))
    problem = nm.MappingProblem(network, made.system, evaluator=made)
    with pytest.raises(nm.InputError, match="expected at most 1024 neurons on a core, got 1200"):
        problem.evaluate_mappings([nm.Mapping((1, 1), (0, 1))])
