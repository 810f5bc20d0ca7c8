"""What a user installs: the wheel holds its data and runs without the checkout; README's code runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_wheel_holds_its_data_and_runs_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("neuromap_moo-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    packaged = {p.relative_to(installed / "neuromap_moo") for p in installed.glob("neuromap_moo/conf/**/*.yaml")}
    assert packaged == {p.relative_to(ROOT) for p in ROOT.glob("conf/**/*.yaml")}
    fronts = installed / "neuromap_moo" / "best_known_fronts"
    shipped = {p.relative_to(ROOT / "instances"): p.read_bytes() for p in (ROOT / "instances").glob("*/*")}
    assert {p.relative_to(fronts): p.read_bytes() for p in fronts.glob("*/*")} == shipped
    for name in ("py.typed", "__init__.pyi"):
        assert (installed / "neuromap_moo" / name).exists()
    command = [sys.executable, "-m", "neuromap_moo", "+experiment=mlp_a", "budget.evaluations=200", "output=run"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    code = "import neuromap_moo as nm; print(len(nm.benchmark('mlp_b').mappings))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1


ROOMS = sorted(p.parent.name for p in (ROOT / "neuromap_moo").glob("*/__init__.py"))


def test_dotted_imports_of_sub_packages_name_modules_and_the_api_stays_what_it_is():
    code = f"""
import importlib, types
import neuromap_moo as nm
import neuromap_moo.annealing.space as s
assert isinstance(s, types.ModuleType) and s.__name__ == "neuromap_moo.annealing.space"
for room in {ROOMS}:
    module = importlib.import_module(f"neuromap_moo.{{room}}")
    assert isinstance(module, types.ModuleType) and module.__name__ == f"neuromap_moo.{{room}}"
for name in ("search", "operators", "baselines", "benchmark"):
    assert isinstance(getattr(nm, name), types.FunctionType), name
for name in nm.__all__:
    assert not isinstance(getattr(nm, name), types.ModuleType) or name in {ROOMS}, name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))])
@pytest.mark.slow
def test_python_examples_in_the_documents_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    blocks = python_blocks(path)
    assert blocks or page != "README.md"
    namespace = {}
    for block in blocks:
        exec(compile(block, f"{page} example", "exec"), namespace)


def test_documents_link_to_files_that_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_constant_of_the_presets_is_in_the_documents():
    from neuromap_moo.system.costs import COST_UNITS

    text = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    for key in {name.partition(".")[0] for name in COST_UNITS} | {"t_barrier_s", "synapse_words", "neurons"}:
        assert f"`{key}" in text


def test_constants_in_the_documents_are_those_of_the_presets(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import constants

    assert constants.table() in constants.PAGE.read_text(encoding="utf-8")
