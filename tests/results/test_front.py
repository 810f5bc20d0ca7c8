import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.models.metrics import COLUMNS
from neuromap_moo.results.front import Front, load_table, reductions, save_table


def make_front(objectives=("latency_s", "energy_j"), ids=None, notes=(), **columns):
    """Return a front with the given columns; the others are 0."""
    n = len(next(iter(columns.values())))
    table = {}
    for name, unit in COLUMNS.items():
        if unit is None:
            table[name] = np.array(["link"] * n)
        elif name in ("cores_used", "chips_used"):
            table[name] = np.array(columns.get(name, [1] * n), dtype=np.int64)
        else:
            table[name] = np.array(columns.get(name, [0.0] * n), dtype=np.float64)
    mappings = tuple(nm.Mapping((1,), (i,)) for i in range(n))
    return Front(tuple(ids or (f"m{i:03d}" for i in range(n))), mappings, table, tuple(objectives), tuple(notes))


# ------------------------------------------------------------------------------------------------------------ class


def test_parts_of_a_front():
    front = make_front(latency_s=[1, 2], energy_j=[5, 4], cores_used=[3, 9])
    assert len(front) == 2
    assert front.objectives.tolist() == [[1.0, 5.0], [2.0, 4.0]]
    assert front.by_id == {"m000": front.mappings[0], "m001": front.mappings[1]}
    counts = make_front(("cores_used",), latency_s=[1, 2], cores_used=[3, 9])
    assert counts.objectives.tolist() == [[3.0], [9.0]]
    assert counts.objectives.dtype == np.float64


def test_objectives_stand_as_in_the_table():
    assert make_front(("throughput_hz",), throughput_hz=[5, 4]).objectives.tolist() == [[5.0], [4.0]]


def test_best_is_least_or_for_the_throughput_most():
    front = make_front(latency_s=[3, 1, 1], throughput_hz=[5, 9, 7], energy_j=[1, 2, 3])
    assert front.best("latency_s") == 1  # the first of equals
    assert front.best("throughput_hz") == 1
    assert front.best("energy_j") == 0


# ------------------------------------------------------------------------------------------------------------- knee


def test_knee_by_hand():
    # Scaled to [0, 1]: (0, 1), (0.25, 0.25), (0.5, 0.125), (1, 0); sums 1, 0.5, 0.625, 1. The least sum is farthest
    # from the line x + y = 1.
    front = make_front(latency_s=[10, 15, 20, 30], energy_j=[9, 3, 2, 1])
    assert front.knee == 1


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=3, max_size=8, unique=True))
def test_knee_is_farthest_from_the_line_through_the_ends(points):
    front = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
    if len(front) < 3:
        front = [(1.0, 3.0), (2.0, 1.5), (3.0, 1.0)]
    (x0, y0), *_, (x1, y1) = sorted(front)
    # signed distance of a scaled point to the line from (0, 1) to (1, 0), towards the origin
    distance = [1 - (x - x0) / (x1 - x0) - (y - y1) / (y0 - y1) for x, y in front]
    knee = make_front(latency_s=[x for x, _ in front], energy_j=[y for _, y in front]).knee
    assert distance[knee] == pytest.approx(max(distance), abs=1e-9)


def test_knee_does_not_depend_on_units():
    latency, energy = np.array([10, 15, 20, 30]), np.array([9, 3, 2, 1])
    knees = {
        make_front(latency_s=latency * a + c, energy_j=energy * b).knee
        for a in (1e-9, 1)
        for b in (1e6, 1)
        for c in (0, 5)
    }
    assert knees == {1}


def test_knee_of_a_maximised_objective():
    # latency (0, 0.1, 1), throughput from best to worst: 9, 8, 1, that is 0, 0.125, 1 to be minimised;
    # sums with energy (1, 0.2, 0): 1, 0.425, 2
    front = make_front(
        ("latency_s", "throughput_hz", "energy_j"), latency_s=[0, 1, 10], throughput_hz=[9, 8, 1], energy_j=[10, 2, 0]
    )
    assert front.knee == 1


def test_knee_of_two_objectives_with_throughput_first():
    # to be minimised: -9, -8, -1 -> 0, 0.125, 1; energy 1, 0.2, 0: sums 1, 0.325, 1
    assert make_front(("throughput_hz", "energy_j"), throughput_hz=[9, 8, 1], energy_j=[10, 2, 0]).knee == 1


def test_knee_where_there_is_none_is_the_best_in_the_first_objective():
    assert make_front(("energy_j",), energy_j=[3, 1, 2], latency_s=[0, 1, 2]).knee == 1
    assert make_front(latency_s=[2, 1], energy_j=[1, 2]).knee == 1
    assert make_front(latency_s=[7], energy_j=[7]).knee == 0


def test_knee_where_an_objective_is_the_same_for_all():
    assert make_front(latency_s=[3, 1, 2], energy_j=[5, 5, 5]).knee == 1


# ------------------------------------------------------------------------------------------------------- reductions


def test_reductions_by_hand():
    front = make_front(("latency_s", "throughput_hz"), latency_s=[6, 8], throughput_hz=[10, 15])
    baselines = make_front(
        front.objective_names,
        ids=["vendor_default", "strided", "serpentine"],
        latency_s=[12, 8, 10],
        throughput_hz=[5, 6, 12],
    )
    assert reductions(front, baselines) == {
        "latency_s": {
            "best": 6.0,
            "vendor_default": 12.0,
            "reduction_vs_vendor_default": pytest.approx(0.5),  # 1 - 6/12
            "best_baseline": "strided",
            "reduction_vs_best_baseline": pytest.approx(0.25),  # 1 - 6/8
        },
        "throughput_hz": {
            "best": 15.0,
            "vendor_default": 5.0,
            "reduction_vs_vendor_default": pytest.approx(2.0),  # 15/5 - 1
            "best_baseline": "serpentine",
            "reduction_vs_best_baseline": pytest.approx(0.25),  # 15/12 - 1
        },
    }


def test_vendor_default_may_stand_anywhere_among_the_baselines():
    front = make_front(("latency_s",), latency_s=[3])
    baselines = make_front(("latency_s",), ids=["strided", "vendor_default"], latency_s=[4, 6])
    gains = reductions(front, baselines)["latency_s"]
    assert gains["vendor_default"] == 6.0
    assert gains["reduction_vs_vendor_default"] == pytest.approx(0.5)
    assert gains["best_baseline"] == "strided"


def test_loss_is_a_negative_reduction():
    front, baselines = (make_front(("energy_j",), ids=["vendor_default"], energy_j=[e]) for e in (5, 4))
    assert reductions(front, baselines)["energy_j"]["reduction_vs_vendor_default"] == pytest.approx(-0.25)


def test_reduction_of_nothing_is_none():
    front = make_front(("inter_chip_messages",), inter_chip_messages=[0])
    baselines = make_front(("inter_chip_messages",), ids=["vendor_default", "strided"], inter_chip_messages=[2, 0])
    gains = reductions(front, baselines)["inter_chip_messages"]
    assert gains["reduction_vs_vendor_default"] == 1.0
    assert gains["best_baseline"] == "strided"
    assert gains["reduction_vs_best_baseline"] is None


# ----------------------------------------------------------------------------------------------------------- tables


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=6))
def test_floats_are_read_back_exactly(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("table") / "front.csv"
    save_table(path, make_front(latency_s=values, energy_j=values[::-1]))
    table = load_table(path)
    assert [float(v) for v in table["latency_s"]] == values
    assert [float(v) for v in table["energy_j"]] == values[::-1]


def test_table_has_the_documented_columns(tmp_path):
    front = make_front(latency_s=[0.1, 1e-9], cores_used=[3, 12])
    save_table(tmp_path / "front.csv", front)
    with open(tmp_path / "front.csv", newline="") as f:
        rows = list(csv.reader(f))
    assert rows[0] == ["mapping_id", *COLUMNS]
    assert [row[0] for row in rows[1:]] == ["m000", "m001"]
    table = load_table(tmp_path / "front.csv")
    assert list(table) == rows[0]
    assert table["latency_s"] == ["0.1", "1e-09"]
    assert table["cores_used"] == ["3", "12"]
    assert table["bottleneck"] == ["link", "link"]


def test_table_with_names_extras_and_notes(tmp_path):
    front = make_front(ids=["vendor_default", "strided"], latency_s=[1, 2], notes=["", 'bent, "so"\nand so'])
    extra = {"non_dominated": np.array([True, False]), "rank": [1, 2], "share": [0.1, 0.25]}
    save_table(tmp_path / "baselines.csv", front, id_column="name", extra=extra)
    table = load_table(tmp_path / "baselines.csv")
    assert list(table) == ["name", *COLUMNS, "non_dominated", "rank", "share", "note"]
    assert table["name"] == ["vendor_default", "strided"]
    assert table["non_dominated"] == ["True", "False"]
    assert table["rank"] == ["1", "2"]
    assert table["share"] == ["0.1", "0.25"]
    assert table["note"] == ["", 'bent, "so"\nand so']


def test_extra_columns_may_be_arrays(tmp_path):
    save_table(tmp_path / "t.csv", make_front(latency_s=[1, 2]), extra={"gap": np.array([0.1, 1e-300])})
    assert [float(v) for v in load_table(tmp_path / "t.csv")["gap"]] == [0.1, 1e-300]


def test_missing_table_is_named(tmp_path):
    with pytest.raises(nm.InputError, match=r"nowhere\.csv.*cannot be read.*expected a table of a run folder"):
        load_table(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"mapping_id,latency_s\nm000\n"])
def test_broken_table_is_named(tmp_path, content):
    (tmp_path / "broken.csv").write_bytes(content)
    with pytest.raises(nm.InputError, match=r"broken\.csv.*expected a table of a run folder"):
        load_table(tmp_path / "broken.csv")


def test_knee_of_three_objectives_is_the_farthest_below_the_plane_of_the_extremes():
    # The extremes (0, 1, 0.2), (0.2, 0, 1) and (1, 0.2, 0) span the plane x + y + z = 1.2, those below it are
    # (0.3, 0.3, 0.3) with 0.9 and (0.1, 0.4, 0.5) with 1.0.
    front = make_front(
        ("latency_s", "energy_j", "message_hops"),
        latency_s=[0.0, 0.2, 1.0, 0.1, 0.3],
        energy_j=[1.0, 0.0, 0.2, 0.4, 0.3],
        message_hops=[0.2, 1.0, 0.0, 0.5, 0.3],
    )
    assert front.knee == 4
    # An uneven plane: the extremes (0, 1, 0), (0.5, 0, 0.5), (1, 0.5, 0) ... their normal decides, not the sum.
    uneven = make_front(
        ("latency_s", "energy_j", "message_hops"),
        latency_s=[0.0, 1.0, 1.0, 0.2, 0.45],
        energy_j=[1.0, 0.0, 1.0, 0.9, 0.45],
        message_hops=[1.0, 1.0, 0.0, 0.45, 0.95],
    )
    # Extremes (0, 1, 1), (1, 0, 1), (1, 1, 0): plane x + y + z = 2; sums 1.55 and 1.85.
    assert uneven.knee == 3
