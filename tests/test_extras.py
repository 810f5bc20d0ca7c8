"""A bare install does the main job; what is missing from it is asked for by the extra that brings it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import neuromap_moo as nm
from neuromap_moo import readers
from neuromap_moo.errors import requires_extra
from neuromap_moo.evolution.algorithms import check_algorithm

ROOT = Path(__file__).resolve().parents[1]

#: What only extras bring, by the name under which it is imported.
OPTIONAL = ("h5py", "nir", "onnx", "onnxruntime", "pyarrow", "sklearn", "tvm", "lava", "sanafe")

#: Runs a module as `python -m` does, where none of OPTIONAL can be imported.
WITHOUT_EXTRAS = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))
sys.argv[0] = "neuromap_moo"
runpy.run_module("neuromap_moo", run_name="__main__")
"""


def asks_for(extra: str) -> str:
    return rf"which is not installed; pip install 'neuromap-moo\[{extra}\]'$"


@pytest.fixture
def bare(monkeypatch):
    """Simulate an install without extras: their packages cannot be imported, and no reader has imported them before."""
    for name in [n for n in sys.modules if re.match(r"neuromap_moo\.readers\.(onnx|nir|relax)", n)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("onnx", "nir", "relax"):  # else `from neuromap_moo.readers import` still finds what was imported
        monkeypatch.delattr(readers, name, raising=False)
    for name in [n for n in sys.modules if n.partition(".")[0] in OPTIONAL]:
        monkeypatch.delitem(sys.modules, name)
    for name in OPTIONAL:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def network_file(tmp_path):
    """Return a function: ending -> a file that no reader needs to understand."""

    def make(ending):
        path = tmp_path / f"model{ending}"
        path.write_bytes(b"something")
        return path

    return make


@pytest.mark.parametrize(("ending", "extra"), [(".onnx", "onnx"), (".nir", "nir"), (".net", "net")])
def test_readers_name_the_extra_that_they_need(bare, network_file, ending, extra):
    path = network_file(ending)
    with pytest.raises(nm.InputError, match=rf"^network file '{path}': needs the package '\w+', {asks_for(extra)}"):
        nm.load_network(path)
    with pytest.raises(nm.InputError, match=rf"^network file '{path}': needs the package '\w+', {asks_for(extra)}"):
        nm.measure_activity(path)


def test_relax_modules_name_the_extra_that_they_need(bare):
    with pytest.raises(nm.InputError, match=f"^from_relax: needs the package 'onnx', {asks_for('tvm')}"):
        nm.from_relax(object())
    with pytest.raises(nm.InputError, match=f"^partition_relax: needs the package 'onnx', {asks_for('tvm')}"):
        nm.partition_relax(object())


def test_guided_search_names_the_extra_that_it_needs(bare):
    with pytest.raises(nm.InputError, match=f"^algorithm 'guided': needs the package 'sklearn', {asks_for('guided')}"):
        check_algorithm("guided", {})
    check_algorithm("nsga2", {})


def test_a_missing_module_of_this_package_is_no_missing_extra():
    with pytest.raises(ModuleNotFoundError, match=r"neuromap_moo\.nowhere"), requires_extra("here", "onnx"):
        import neuromap_moo.nowhere  # noqa: F401


def run_without_extras(folder, *arguments):
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_main_job_needs_no_extra(tmp_path):
    done = run_without_extras(tmp_path, "+experiment=mlp_b", "budget.evaluations=200", "output=run")
    assert done.returncode == 0, done.stderr
    for name in ("front.csv", "report.html", "pareto.pdf"):
        assert (tmp_path / "run" / name).exists()


@pytest.mark.slow
def test_the_command_line_says_in_one_line_which_extra_is_missing(tmp_path, network_file):
    path = network_file(".onnx")
    done = run_without_extras(tmp_path, "network=file", f"network.path={path}", "network.activity=0.1")
    assert done.returncode == 2
    assert re.search(asks_for("onnx"), done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
