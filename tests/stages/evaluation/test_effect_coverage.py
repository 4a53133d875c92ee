"""The interval of an effect covers the truth as often as it says, by simulation, where images come in groups too."""

import numpy as np
import pytest

from stages.bootstrap import poisson_weights
from stages.evaluation.design import Design, Edit
from stages.evaluation.effects import Effects
from stages.evaluation.features import Layout, no_features, score_features
from stages.evaluation.questions import matrix
from stages.evaluation.replicates import Results

GRID = np.array([-2.0, -1.0, 1.0, 2.0])


def covered(*, groups: int, size: int, told: bool, runs: int = 20, problems: int = 200) -> tuple[float, float]:
    """Share of problems whose effect lies in its interval of 95 %, and that share's standard error, from how runs differ.

    Problems are scores of the same images that share no noise. Images of a group have nearly the same score and answer an edit
    nearly alike. In truth a score has deviation √(1 + .1) and moves by β_j a unit of strength, with deviation √(.25 + .02) by image.
    """
    rng, shares, names = np.random.default_rng(11), [], tuple(f"s{j}" for j in range(problems))
    edit = Edit("e", "s0", "ols", np.eye(4)[0], np.zeros(4), 1.0)
    design = Design((edit,), tuple(GRID), "latent", names, identity=False, replicates=200)
    n, layout = groups * size, Layout.of(design)

    def by_group(spread: float, within: float) -> np.ndarray:
        shared = np.repeat(rng.standard_normal((groups, problems)), size, axis=0)
        return spread * shared + within * rng.standard_normal((n, problems))

    for run in range(runs):
        beta = rng.uniform(-1, 1, problems)
        base, answer = by_group(1.0, np.sqrt(0.1)), beta + by_group(0.5, np.sqrt(0.02))
        moved = base[:, None] + GRID[:, None] * answer[:, None] + 0.1 * rng.standard_normal((n, len(GRID), problems))
        scores = np.concatenate([base[:, None], moved], axis=1)
        features = score_features(design, scores, scores[:, 0].mean(axis=0), np.zeros((n, 0)))
        of_pictures = [name for name, _ in layout.shapes if name not in features]
        packed = layout.pack(features | no_features(design, of_pictures, n), n)
        hashes = rng.integers(0, 2**63, groups if told else n, dtype=np.uint64)
        weights = poisson_weights(np.repeat(hashes, n // len(hashes)), 200, seed=run).astype(float)
        state = Effects(np.column_stack([np.ones(n), weights]).T @ packed, scores[:, 0].mean(axis=0), n)
        found = [m for m in matrix(Results(design, state, 0.95), false_discoveries=0.05) if m.metric == "effect"]
        truth = beta / np.sqrt(1.1)
        assert [m.target for m in found] == list(names)
        shares.append(np.mean([m.low <= t <= m.high for m, t in zip(found, truth, strict=True)]))
    return float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(runs))


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(400, 1), (200, 4)])
def test_the_interval_of_an_effect_covers(groups: int, size: int) -> None:
    """93 to 97 %, over 4,000 problems: two standard errors of the simulation are below 1 %."""
    share, error = covered(groups=groups, size=size, told=True)
    assert 2 * error < 0.01
    assert 0.93 <= share <= 0.97


@pytest.mark.parametrize("images", [12, 20])
def test_it_covers_with_few_images_too(images: int) -> None:
    """Percentiles of twelve held .89: they take the images for all there are."""
    share, error = covered(groups=images, size=1, told=True, runs=8, problems=150)
    assert 0.92 - 2 * error <= share <= 0.97 + 2 * error


def test_without_groups_it_is_far_too_narrow() -> None:
    assert covered(groups=200, size=4, told=False, runs=2)[0] < 0.8
