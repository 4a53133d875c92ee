"""The solver alone: several convex problems at once, with good, rough and wrong first curvatures."""

import numpy as np
import pytest

from stages.directions.newton import Minimum, Slope, Trial, minimise, run

D, P = 12, 4


def quadratics(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hessians (P, D, D) of condition about 100, and minima (D, P)."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((P, D, 3 * D)) * np.logspace(-1, 0, D)[None, :, None]
    return factors @ factors.transpose(0, 2, 1), rng.standard_normal((D, P))


def solved(hessians: np.ndarray, minima: np.ndarray, guess: np.ndarray, **options: int) -> tuple[Minimum, list[Trial]]:
    trials = []

    def answer(trial: Trial) -> Slope:
        trials.append(trial)
        i = trial.problems
        gradient = np.einsum("pij,jp->ip", hessians[i], trial.weights - minima[:, i])
        return Slope(gradient, np.zeros(len(i), bool))

    inverse = np.linalg.inv(guess)
    descent = minimise(
        np.zeros((D, P)),
        precondition=lambda g: np.einsum("pij,jp->ip", inverse, g),
        units=np.ones(D),
        tolerance=np.full(P, 1e-9),
        max_evaluations=options.get("max_evaluations", 60),
    )
    return run(descent, answer), trials


def rough(hessians: np.ndarray) -> np.ndarray:
    """What 64 rows a coefficient would tell of the Hessians."""
    noise, roots = np.random.default_rng(1).standard_normal((P, D, 64 * D)), np.linalg.cholesky(hessians)
    return roots @ (noise @ noise.transpose(0, 2, 1) / (64 * D)) @ roots.transpose(0, 2, 1)


def test_the_right_curvature_needs_one_step() -> None:
    hessians, minima = quadratics()
    found, trials = solved(hessians, minima, hessians)
    np.testing.assert_allclose(found.weights, minima, atol=1e-8)
    assert found.converged.all() and len(trials) <= 3


def test_a_rough_curvature_gains_a_digit_a_step() -> None:
    hessians, minima = quadratics()
    found, trials = solved(hessians, minima, rough(hessians))
    np.testing.assert_allclose(found.weights, minima, atol=1e-8)
    assert len(trials) <= 12


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_a_wrong_scale_is_mended_by_the_line_search(factor: float) -> None:
    hessians, minima = quadratics()
    found, _ = solved(hessians, minima, hessians * factor)
    np.testing.assert_allclose(found.weights, minima, atol=1e-7)
    assert found.converged.all()


def test_no_curvature_at_all_still_converges() -> None:
    hessians, minima = quadratics()
    found, _ = solved(hessians, minima, np.broadcast_to(np.eye(D), (P, D, D)), max_evaluations=300)
    np.testing.assert_allclose(found.weights, minima, atol=1e-6)


def test_a_finished_problem_is_not_asked_again_and_the_end_is_precise() -> None:
    hessians, minima = quadratics()
    guess = rough(hessians)
    guess[0] = hessians[0]
    found, trials = solved(hessians, minima, guess)
    assert found.converged.all()
    asked = [0 in trial.problems for trial in trials]
    assert asked.index(False) < len(asked) - 1
    assert trials[-1].precise and not trials[0].precise


def test_a_better_curvature_on_the_way_is_taken() -> None:
    hessians, minima = quadratics()
    inverse = np.linalg.inv(hessians)
    count = 0

    def answer(trial: Trial) -> Slope:
        nonlocal count
        count += 1
        i = trial.problems
        gradient = np.einsum("pij,jp->ip", hessians[i], trial.weights - minima[:, i])
        better = (lambda g: np.einsum("pij,jp->ip", inverse, g)) if count == 2 else None
        return Slope(gradient, np.zeros(len(i), bool), better)

    descent = minimise(
        np.zeros((D, P)),
        precondition=lambda g: g / 100,
        units=np.ones(D),
        tolerance=np.full(P, 1e-9),
        max_evaluations=60,
    )
    found = run(descent, answer)
    np.testing.assert_allclose(found.weights, minima, atol=1e-7)
    assert count <= 10


def test_out_of_evaluations_is_said() -> None:
    hessians, minima = quadratics()
    found, trials = solved(hessians, minima, np.broadcast_to(np.eye(D) * 100, (P, D, D)), max_evaluations=3)
    assert len(trials) == found.evaluations == 3
    assert not found.converged.any() and not found.parted.any()


def test_a_parted_problem_stops() -> None:
    descent = minimise(
        np.zeros((D, 2)), precondition=lambda g: g, units=np.ones(D), tolerance=np.full(2, 1e-9), max_evaluations=9
    )
    next(descent)
    trial = descent.send(Slope(np.ones((D, 2)), np.array([True, False])))
    assert trial.problems.tolist() == [1]
