"""Values that scatter and drift: estimates by hand, drift found and taken out, undecided pairs, the front confirmed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuromap_moo as nm
from neuromap_moo.boards.noise import ASSUMED_SCATTER, estimates
from neuromap_moo.boards.store import Attempt
from neuromap_moo.evolution.resampling import MOST_ATTEMPTS, confirm, resolve_ties, undecided


def attempt(number, mapping, values, board="a", at_s=None, status="done"):
    at_s = float(number) if at_s is None else at_s
    metrics = {"latency_s": list(values)} if status == "done" else {}
    return Attempt(number, mapping, board, "chip", "mapping", len(values), status, metrics, "", at_s, at_s + 1.0)


def test_the_value_is_the_median_of_all_repeats_and_failures_say_nothing():
    rows = [attempt(1, "m", [1.0, 9.0, 2.0]), attempt(2, "m", [3.0, 4.0]), attempt(3, "m", [], status="crashed")]
    found = estimates(rows, ["latency_s", "energy_j"], None)
    assert found.of["latency_s"]["m"].value == pytest.approx(3.0)
    assert found.of["latency_s"]["m"].attempts == 2
    assert found.of["energy_j"] == {}


def test_scatter_is_pooled_over_mappings_and_errors_shrink_with_repeats():
    rows = [attempt(1, "m", [1.0, math.exp(0.2)]), attempt(2, "n", [5.0, 5.0 * math.exp(0.2)]), attempt(3, "o", [7.0])]
    found = estimates(rows, ["latency_s"], None)
    # Each pair lies 0.1 from its mean: variance 0.02 with one degree of freedom.
    assert found.within["latency_s"] == pytest.approx(math.sqrt(0.02))
    assert found.between["latency_s"] == 0.0
    of = found.of["latency_s"]
    assert of["o"].relative_error == pytest.approx(math.sqrt(0.02))
    assert of["m"].relative_error == pytest.approx(0.1)


def test_without_repeats_scatter_is_assumed():
    found = estimates([attempt(1, "m", [2.0])], ["latency_s"], None)
    assert found.of["latency_s"]["m"].relative_error == ASSUMED_SCATTER


def test_attempts_that_differ_more_than_repeats_do_count_for_less():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        level = math.exp(0.1 * rng.standard_normal())
        rows.append(attempt(i, f"m{i // 3}", level * np.exp(0.01 * rng.standard_normal(5))))
    found = estimates(rows, ["latency_s"], None)
    assert found.within["latency_s"] == pytest.approx(0.01, rel=0.3)
    assert found.between["latency_s"] == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_drift_is_taken_out_where_it_is_more_than_scatter(drift):
    rng = np.random.default_rng(1)
    rows = []
    for i in range(200):
        level = (1.0 + drift) ** (i / 100) * (1.0 if i % 10 else 2.0)
        rows.append(attempt(i, "control" if i % 10 == 0 else f"m{i}", level * np.exp(0.01 * rng.standard_normal(3))))
    found = estimates(rows, ["latency_s"], "control")
    (seen,) = found.drifts
    assert seen.corrected == (drift > 0)
    assert seen.last == pytest.approx((1.0 + drift) ** 0.95, rel=0.03)  # of the mean over the run
    values = np.log([found.of["latency_s"][f"m{i}"].value for i in range(200) if i % 10])
    assert np.abs(np.polyfit(np.arange(180), values, 1)[0] * 180) < 0.02
    assert np.abs(values - values.mean()).max() < 0.06


def test_scatter_alone_is_hardly_ever_taken_for_drift():
    rng = np.random.default_rng(4)
    seen = 0
    for _ in range(200):
        rows = [attempt(i, "control", np.exp(0.03 * rng.standard_normal(3)), "ab"[i % 2]) for i in range(40)]
        seen += any(d.corrected for d in estimates(rows, ["latency_s"], "control").drifts)
    assert seen <= 4


def test_intervals_of_what_is_corrected_hold_what_is_true():
    rng = np.random.default_rng(5)
    off = []
    for _ in range(100):
        rows = []
        for i in range(60):
            offset = 1.3 if i % 2 else 1.0
            key = "control" if i % 12 < 2 else f"m{i // 4}"
            rows.append(attempt(i, key, offset * np.exp(0.03 * rng.standard_normal(3)), "ab"[i % 2]))
        of = estimates(rows, ["latency_s"], "control").of["latency_s"]
        # All are alike, so each must be like the control within the two errors.
        for key, e in of.items():
            if key != "control":
                error = np.hypot(e.relative_error, of["control"].relative_error)
                off.append(np.log(e.value / of["control"].value) / error)
    assert np.mean(np.abs(off) < 1.96) > 0.92
    assert np.std(off) > 0.5  # and the errors are not much larger than they need be


def test_a_board_with_an_offset_is_brought_to_the_others():
    rng = np.random.default_rng(2)
    rows = []
    for i in range(90):
        board = "abc"[i % 3]
        level = (1.2 if board == "c" else 1.0) * np.exp(0.01 * rng.standard_normal(3))
        rows.append(attempt(i, "control" if i % 15 < 3 else f"m{i}", level, board))
    found = estimates(rows, ["latency_s"], "control")
    assert {d.board: d.corrected for d in found.drifts}["c (chip)"]
    values = np.array([e.value for e in found.of["latency_s"].values()])
    assert np.abs(values / np.median(values) - 1.0).max() < 0.06


def plain_undecided(F, errors, attempts):
    """Return the same by words, pair by pair."""
    n = len(F)
    dominates = [[all(F[i] <= F[j]) and any(F[i] < F[j]) for j in range(n)] for i in range(n)]
    front = [j for j in range(n) if not any(dominates[i][j] for i in range(n))]
    named = set()
    for i in front:
        for j in range(n):
            if i == j:
                continue
            signs = []
            for a, b, s, t in zip(F[i], F[j], errors[i], errors[j], strict=True):
                slack = 1.96 * math.hypot(s, t)
                signs.append("better" if a - b < -slack else "worse" if a - b > slack else "?" if slack else "equal")
            if {"better", "worse"} <= set(signs) or "?" not in signs:
                continue
            named.add(i if attempts[i] <= attempts[j] else j)
    named = {i for i in named if attempts[i] < MOST_ATTEMPTS}
    return sorted(named, key=lambda i: (i not in front, attempts[i], i))


@given(st.integers(0, 2**32 - 1))
def test_undecided_mappings_are_those_of_the_words(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 12), rng.integers(1, 4)
    F = rng.random((n, m))
    errors = rng.choice([0.0, 0.01, 0.2], size=m) * rng.random((n, m))
    F = np.round(F, rng.integers(1, 4))  # with ties
    attempts = rng.integers(1, MOST_ATTEMPTS + 2, n)
    assert undecided(F, errors, attempts).tolist() == plain_undecided(F, errors, attempts)


def test_what_is_certain_is_not_measured_again():
    F = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.5]])
    assert undecided(F, np.full_like(F, 0.01), np.ones(3, dtype=int)).size == 0
    assert undecided(F, np.full_like(F, 0.01) * [[1], [1], [100]], np.ones(3, dtype=int)).size


class Scattering:
    """A measuring evaluator in memory: the analytic model with scatter, and mappings that cannot be measured."""

    name = "scattering"
    confirm = 3

    def __init__(self, exact, scatter, fails=lambda mapping: False):
        self.exact, self.scatter, self.fails = exact, scatter, fails
        self.values, self.rng = {}, np.random.default_rng(0)
        self.should_stop = lambda: False

    def evaluate(self, mappings):
        for mapping in mappings.unstack():
            self.values.setdefault(mapping, self._draw(1))
        return self.estimated_metrics(mappings)

    def request_attempts(self, mappings, attempts):
        for mapping in mappings:
            self.values[mapping] = np.concatenate(
                [self.values[mapping], self._draw(attempts - len(self.values[mapping]))]
            )

    def _draw(self, n):
        return np.exp(self.scatter * self.rng.standard_normal((n, 2)))

    def estimated_metrics(self, mappings):
        metrics = dict(self.exact.evaluate(mappings))
        each = mappings.unstack()
        n = np.array([len(self.values[m]) for m in each])
        failed = np.where([self.fails(m) for m in each], np.nan, 1.0)
        for i, (name, interval) in enumerate((("latency_s", "latency_ci95_s"), ("energy_j", "energy_ci95_j"))):
            off = np.array([self.values[m][:, i].mean() for m in each])
            metrics[name] = metrics[name] * off * failed
            metrics[interval] = metrics[name] * 1.96 * self.scatter / np.sqrt(n)
        return {**metrics, "attempts": n}

    def summary(self):
        return {"mappings": len(self.values)}

    def close(self):
        pass


@pytest.fixture
def scattering():
    """Return a function: scatter and which mappings fail -> a problem that is measured so."""

    def make(scatter, fails=lambda mapping: False):
        network, system = nm.sparse_mlp([24, 40, 16], 0.3, seed=1), nm.mesh_system(4, 3)
        exact = nm.MappingProblem(network, system).evaluator
        return nm.MappingProblem(network, system, evaluator=Scattering(exact, scatter, fails))

    return make


def test_settling_measures_what_is_undecided_and_no_more_than_allowed(scattering):
    problem = scattering(0.2)
    X = problem.encoding.random(30, np.random.default_rng(0))
    problem.evaluator.evaluate(problem.encoding.decode(X))
    assert resolve_ties(problem, X, 4) == 4
    assert sum(len(v) for v in problem.evaluator.values.values()) == len(problem.evaluator.values) + 4
    exact = scattering(0.0)
    exact.evaluator.evaluate(exact.encoding.decode(X))
    assert resolve_ties(exact, X, 4) == 0


def test_the_front_is_confirmed(scattering):
    problem = scattering(0.1)
    X = problem.encoding.random(40, np.random.default_rng(0))
    problem.evaluator.evaluate(problem.encoding.decode(X))
    confirm(problem, X)
    F = problem.evaluator.estimated_metrics(problem.encoding.decode(X))
    from neuromap_moo.evolution.generation import non_dominated_rows

    front = non_dominated_rows(np.stack([F["latency_s"], F["energy_j"]], axis=1))
    assert (F["attempts"][front] >= 3).all()
    assert (F["attempts"] == 1).any()


@pytest.mark.parametrize(
    "algorithm", ["nsga2", "guided", "es", *(pytest.param(x, marks=pytest.mark.slow) for x in ("nsga3", "random"))]
)
@pytest.mark.default_cases(1)
def test_a_search_goes_round_mappings_that_cannot_be_measured(scattering, algorithm):
    problem = scattering(0.03, lambda mapping: mapping.cores_per_layer[1] == 5)
    run = nm.search(problem, algorithm, evaluations=60, options=FEW.get(algorithm), seed=1)
    assert run.evaluations == 60
    assert len(run.front)
    assert all(m.cores_per_layer[1] != 5 for m in run.front.mappings)
    assert (run.front.table["attempts"] >= 3).all()
    assert run.summary()["measurements"]["mappings"] == len(problem.evaluator.values)
    assert "robustness" not in run.front.table


FEW = {
    "nsga2": {"population": 20},
    "nsga3": {"population": 20},
    "random": {"population": 20},
    "guided": {"initial": 20, "batch": 10, "model_evaluations": 100},
}


def test_where_the_yardstick_cannot_be_measured_it_says_so(scattering):
    problem = scattering(0.0, lambda mapping: True)
    with pytest.raises(nm.InputError, match="vendor_default could not be measured"):
        nm.search(problem, "random", evaluations=20, options={"population": 10})


@pytest.mark.parametrize("algorithm", ["nsga2", "guided"])
@pytest.mark.default_cases(1)
def test_a_search_that_writes_checkpoints_and_is_stopped_goes_on(scattering, algorithm, tmp_path):
    problem = scattering(0.03)
    how = {"algorithm": algorithm, "evaluations": 90, "options": FEW[algorithm], "checkpoint": tmp_path / "c.pkl"}
    calls = []

    def should_stop():
        calls.append(problem.evaluator.values and len(problem.evaluator.values) > 50)
        return bool(calls[-1])

    part = nm.search(problem, **how, should_stop=should_stop)
    assert part.ended == ""
    assert part.evaluations < 90
    problem.evaluator.should_stop = lambda: False
    whole = nm.search(problem, **how)
    assert (whole.ended, whole.evaluations) == ("evaluations", 90)
    assert (whole.front.table["attempts"] >= 3).all()


def test_a_front_that_was_not_confirmed_is_not_called_finished(scattering, tmp_path):
    problem = scattering(0.1)
    how = {"evaluations": 40, "options": {"population": 20}, "checkpoint": tmp_path / "c.pkl"}
    ended = []
    part = nm.search(
        problem,
        **how,
        on_generation=lambda state: ended.append(state.ended),
        should_stop=lambda: bool(ended and ended[-1]),
    )
    assert part.ended == ""
    problem.evaluator.should_stop = lambda: False
    whole = nm.search(problem, **how)
    assert whole.ended == "evaluations"
    assert (whole.front.table["attempts"] >= 3).all()
