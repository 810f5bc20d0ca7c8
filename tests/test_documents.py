"""The documents and the facts about the project agree with the package: names, modules, versions, extras, pictures."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import neuromap_moo as nm
from neuromap_moo.results.folder import save_tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture
def house(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("house")


@pytest.fixture
def public_names(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("public_names")


def test_the_table_of_rooms_is_that_of_the_import_contracts(house):
    assert house.BEGIN + house.table() + house.END in text_of(house.PAGE)


def test_every_room_says_what_it_holds(house):
    for rooms in house.floors():
        for room in rooms:
            assert house.purpose(room).endswith("."), room


def test_the_reference_describes_every_public_name(public_names):
    described = [name for names in public_names.public_names().values() for name in names]
    assert sorted(described) == sorted(set(nm.__all__) - {"__version__"})
    page = public_names.directives()
    for name in described:
        kind = "class" if inspect.isclass(getattr(nm, name)) else "function"
        assert f".. auto{kind}:: neuromap_moo.{name}\n" in page
        assert inspect.getdoc(getattr(nm, name)), name
    assert public_names.MARKER in text_of(ROOT / "docs" / "api.md")


def test_the_version_stands_in_one_place(house):
    project = house.project()["project"]
    assert "version" in project["dynamic"]
    (cited,) = re.findall(r"^version: (\S+)$", text_of(ROOT / "CITATION.cff"), re.MULTILINE)
    assert cited == nm.__version__
    assert f"\n## {nm.__version__}\n" in text_of(ROOT / "CHANGELOG.md")


def test_extras_that_are_named_exist(house):
    extras = house.project()["project"]["optional-dependencies"]
    sources = [*PAGES, ROOT / ".ci" / "run", *(ROOT / ".github").rglob("*.yml"), *ROOT.glob("neuromap_moo/**/*.py")]
    named = {
        name
        for source in sources
        for group in re.findall(r"(?:neuromap[-_]moo|[\"'. ])\[([a-z,]+)\]['\"]", text_of(source))
        for name in group.split(",")
    }
    assert {"onnx", "nir", "net", "guided", "test", "docs"} <= named <= set(extras)


def test_all_has_every_extra_that_any_environment_can_install(house):
    extras = house.project()["project"]["optional-dependencies"]
    (everything,) = re.findall(r"\[([a-z,]+)\]", extras["all"][0])
    apart = {"all", "tvm", "lava", "sanafe", "docs", "test", "dev"}
    assert set(everything.split(",")) == set(extras) - apart


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_the_documents_name_exist(page):
    for name in re.findall(r"`([\w./]+/[\w.]+\.(?:py|yaml|md))`", text_of(page)):
        if "NAME" not in name:
            assert (ROOT / name).exists() or (ROOT / "neuromap_moo" / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_of_the_documents_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page)):
        assert (page.parent / target).exists(), target


def test_modules_that_the_documents_name_exist():
    changes = text_of(ROOT / "CHANGELOG.md")
    moved = [line.split("|")[2] for line in changes.splitlines() if line.startswith("  | `neuromap_moo")]
    assert len(moved) > 20
    for name in re.findall(r"`((?:neuromap_moo)?(?:\.\w+)+)`", "".join(moved)):
        importlib.import_module(name if name.startswith("neuromap_moo") else f"neuromap_moo{name}")
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            for name in re.findall(r"\b(neuromap_moo(?:\.[a-z_]+)+)\b", text_of(page)):
                assert resolves(name), f"{page.name}: {name}"


def resolves(name):
    """Tell whether a dotted name is a module, or something in one."""
    module, found = importlib.import_module("neuromap_moo"), name.split(".")[1:]
    for i, part in enumerate(found):
        try:
            module = importlib.import_module(".".join(["neuromap_moo", *found[: i + 1]]))
        except ModuleNotFoundError:
            return i == len(found) - 1 and hasattr(module, part)
    return True


def test_two_columns_are_enough_for_a_search_and_its_tables(tmp_path):
    class Two:
        name = "two"

        def evaluate(self, mappings):
            cores = mappings.cores_per_layer.sum(axis=1)
            return {"latency_s": 1.0 / cores, "energy_j": 1.0 * cores}

    network, system = nm.sparse_mlp([8, 8], 0.5), nm.mesh_system(2, 2)
    run = nm.search(nm.MappingProblem(network, system, evaluator=Two()), evaluations=60, robustness_samples=0)
    save_tables(run, tmp_path)
    assert (tmp_path / "front.csv").read_text().splitlines()[0] == "mapping_id,latency_s,energy_j"
    assert sorted(run.front.table["energy_j"]) == [2.0, 3.0, 4.0]
