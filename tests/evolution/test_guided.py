"""Guided search: what it learns, when it believes its model, and that it needs few measurements."""

import pickle

import cloudpickle
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor

import neuromap_moo as nm
from neuromap_moo.boards.virtual_board import Options, planted, truth
from neuromap_moo.calibration.fit import fitted_system
from neuromap_moo.calibration.measurements import Measurement
from neuromap_moo.evolution.algorithms import make_algorithm
from neuromap_moo.evolution.generation import new_state, search_generation
from neuromap_moo.evolution.guided import FEATURES, SHARES, Correction, _features, _gains
from neuromap_moo.mapping.mapping import stack
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.metrics import minimised

QUICK = {"initial": 20, "batch": 10, "model_evaluations": 100}


class Judged:
    """Any function of the analytic model's metrics as an evaluator."""

    name = "judged"

    def __init__(self, network, system, change):
        self.exact, self.change = nm.MappingProblem(network, system).evaluator, change

    def evaluate(self, mappings):
        return self.change(dict(self.exact.evaluate(mappings)))


@pytest.fixture(scope="module")
def network():
    return nm.sparse_mlp([64, 96, 64], 0.3, seed=1)


@pytest.fixture(scope="module")
def system():
    return nm.mesh_system(6, 5)


def metrics(rng, n):
    return {name: rng.lognormal(size=n) for name in {*SHARES, *FEATURES}}


def test_a_correction_is_that_of_a_gaussian_process_and_belief_that_of_one_more_point():
    rng = np.random.default_rng(0)
    known, new = metrics(rng, 40), metrics(rng, 8)
    residual = 0.3 * np.sin(_features(known)[:, 3]) + 0.01 * rng.standard_normal(40) + 0.5
    made = Correction(known, new, residual)
    assert np.abs(made.mean - 0.5 - 0.3 * np.sin(_features(new)[:, 3])).mean() < 0.15
    before = made.error
    made.believe(3)
    # The same by fitting anew, with the features as they were scaled.
    A, B = _features(known), _features(new)
    A, B = (np.clip((x - A.mean(axis=0)) / A.std(axis=0), -5.0, 5.0) for x in (A, B))
    offset = np.median(residual)
    process = GaussianProcessRegressor(made.kernel, alpha=1e-10, optimizer=None)
    process.fit(np.vstack([A, B[3:4]]), np.append(residual, made.mean[3]) - offset)
    mean, error = process.predict(B, return_std=True)
    np.testing.assert_allclose(made.mean, mean + offset, rtol=1e-6)
    np.testing.assert_allclose(made.error**2, error**2 - made.kernel.k2.noise_level, atol=1e-7)
    assert made.error[3] < before[3]
    assert (made.error <= before + 1e-12).all()


def test_gains_are_what_points_add_to_the_hypervolume():
    front = np.array([[0.2, 0.8], [0.6, 0.4]])
    points = np.array([[0.4, 0.6], [0.7, 0.9], [0.2, 0.8], [0.1, 1.1], [0.1, 0.9]])
    # Between the two: (0.6 - 0.4) * (0.8 - 0.6); outside: (0.2 - 0.1) * (1 - 0.9).
    np.testing.assert_allclose(_gains(points, front), [0.04, 0.0, 0.0, 0.0, 0.01], atol=1e-12)


def test_constants_are_fitted_to_what_was_measured(network, system):
    problem = nm.MappingProblem(network, system)
    other = system.with_costs({"t_synop_s": 3.0 * system.cost("t_synop_s"), "p_core_w": 2.0 * system.cost("p_core_w")})
    mappings = tuple(nm.varied_mappings(problem, 40, np.random.default_rng(0)).values())
    exact = AnalyticEvaluator(problem.partitioner, other).evaluate(stack(mappings))
    measured = [
        Measurement(str(i), *pair, 1)
        for i, pair in enumerate(zip(exact["latency_s"].tolist(), exact["energy_j"].tolist(), strict=True))
    ]
    fitted = fitted_system(problem.partitioner, system, mappings, measured, np.random.default_rng(0))
    again = AnalyticEvaluator(problem.partitioner, fitted).evaluate(stack(mappings))
    np.testing.assert_allclose(again["latency_s"], exact["latency_s"], rtol=0.01)
    np.testing.assert_allclose(again["energy_j"], exact["energy_j"], rtol=0.02)
    assert fitted_system(problem.partitioner, system, mappings[:3], measured[:3], np.random.default_rng(0)) == system


@pytest.mark.slow
def test_a_model_that_misleads_is_left_aside_and_measuring_goes_on(network, system):
    def upside_down(values):
        values["latency_s"] = 1e-12 / values["latency_s"]
        values["energy_j"] = 1e-13 / values["energy_j"]
        return values

    problem = nm.MappingProblem(network, system, evaluator=Judged(network, system, upside_down))
    run = nm.search(problem, "guided", evaluations=120, options=QUICK, robustness_samples=0)
    trusted = run.history_of("model_trusted")
    assert trusted[0] == 1.0
    assert trusted[-1] == 0.0
    assert run.history_of("model_rank_correlation")[-1] < 0.4
    assert run.history_of("hypervolume")[-1] > run.history_of("hypervolume")[0]


@pytest.mark.slow
def test_a_model_that_is_right_is_believed(network, system):
    problem = nm.MappingProblem(network, system, evaluator=Judged(network, system, lambda values: values))
    run = nm.search(problem, "guided", evaluations=60, options=QUICK, robustness_samples=0)
    assert run.history_of("model_rank_correlation")[-1] > 0.5
    assert run.history_of("model_trusted").all()
    best = nm.search(nm.MappingProblem(network, system), evaluations=1000).hypervolume
    assert run.hypervolume > 0.995 * best


@pytest.mark.slow
def test_few_measurements_do_for_what_takes_evolution_many():
    network, system = nm.sparse_mlp([256, 512, 256], 0.1, seed=0), nm.mesh_system(8, 4)
    reached = {}
    for algorithm, n, options in (("guided", 60, QUICK), ("nsga2", 240, {"local_share": 0.0, "population": 40})):
        exact = truth(network, system, Options(seed=1, steps=2))
        other = nm.MappingProblem(network, system, evaluator=Hidden(exact))
        reached[algorithm] = nm.search(other, algorithm, evaluations=n, options=options, seed=3).hypervolume
    assert reached["guided"] >= reached["nsga2"]


class Hidden:
    """An evaluator of which nothing is known, not even that a model stands for it."""

    name = "hidden"

    def __init__(self, base):
        self.base = base

    def evaluate(self, mappings):
        return self.base.evaluate(mappings)


@pytest.mark.slow
def test_a_state_is_pickled_without_models(network, system):
    problem = nm.MappingProblem(network, system, evaluator=Hidden(nm.MappingProblem(network, system).evaluator))
    state = new_state(problem, make_algorithm("guided", problem, QUICK), 0)
    for _ in range(3):
        search_generation(problem, state)
    algorithm = state.algorithm
    problem_of, algorithm.problem = algorithm.problem, None
    size = len(cloudpickle.dumps(state))
    assert size < 3_000_000
    again = pickle.loads(cloudpickle.dumps(state))
    again.algorithm.problem = algorithm.problem = problem_of
    for other in (state, again):
        search_generation(problem, other)
    np.testing.assert_array_equal(state.archive_F, again.archive_F)


@pytest.mark.slow
def test_objectives_that_are_no_measurement_are_exact(network, system):
    problem = nm.MappingProblem(network, system, ("latency_s", "cores_used"), evaluator="packet")
    run = nm.search(problem, "guided", evaluations=40, options=QUICK, robustness_samples=0)
    again = minimised(problem.evaluate_mappings(run.front.mappings), problem.objectives)
    np.testing.assert_array_equal(again, run.front.objectives)
    assert planted(system, 0, 1.0).cost("t_synop_s") == pytest.approx(system.cost("t_synop_s"))
