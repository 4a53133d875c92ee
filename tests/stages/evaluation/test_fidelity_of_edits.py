"""Fidelity as a question of an evaluation: features of the decoded pictures, any split, bounded, typed where it cannot be."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import JobError
from schemas.measurements import Measurement
from schemas.steps import EvaluateStep
from stages.evaluation import kept_features
from stages.evaluation.design import Design, Edit, Fidelity
from stages.evaluation.effects import Effects, Evaluation
from stages.evaluation.fidelity import fidelity
from stages.evaluation.kept_features import features_problem
from stages.evaluation.replicates import Results
from stages.moments import Moments
from stages.scores.frechet import frechet_distance
from tests.labelled import batch_of, reduced, uneven
from tests.stages_evaluation import leaky_stage

GRID = (-2.0, 1.0, 2.0)


class Columns:
    """Features of a picture: what its first four columns show; NaN where the last one is bright."""

    def __init__(self, *, device: str, fails: bool = False) -> None:
        self._fails = fails

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        shown = (images.double().mean(dim=(1, 3)) - 128)[:, :4] / 20
        if self._fails:
            shown[shown[:, 3] > 2] = torch.nan
        return shown


def stage(images: int = 1000, **more: Any) -> Evaluation:
    edits = tuple(Edit(name, name, "ols", np.eye(4)[i], np.zeros(4), 1.0) for i, name in enumerate("ab"))
    asked = Fidelity(f"{Columns.__module__}:Columns", more.pop("options", {}), images, more.pop("share", 1.0))
    design = Design(edits, GRID, "latent", ("a", "b"), identity=False, replicates=20, fidelity=asked, **more)
    return leaky_stage(design, kappa=0.5)


def latents(n: int = 200) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)


def answers(evaluation: Evaluation, state: Effects) -> dict[tuple[str, str, str], Measurement]:
    found = fidelity(Results(evaluation.design, state, 0.95))
    return {(m.metric, m.subject, m.target): m for m in found}


def test_distances_are_those_of_the_shifted_pictures() -> None:
    """An edit along latent 0 moves what columns 0 and 1 show by α and κα and changes no covariance."""
    made = stage()
    found = answers(made, reduced(made, [[batch_of(latents(), {"label": [None] * 200})]]))
    assert len(found) == 2 * 2 * len(GRID)
    for strength in GRID:
        one = found["frechet_distance", "a", f"{strength:+g} latent"]
        assert one.value == pytest.approx(strength**2 * 1.25, rel=0.02)
        assert one.low is not None and one.low <= one.value <= one.high
        assert (one.n, one.status) == (200, "ok")
        assert json.loads(one.detail)["features"] == 4
        kernel = found["kernel_distance", "a", f"{strength:+g} latent"]
        assert kernel.low is not None and kernel.low > 0
    away = [found["kernel_distance", "a", f"{s:+g} latent"].value for s in (1.0, 2.0)]
    assert away[0] < away[1]


@pytest.mark.parametrize("images", [60, 1000])
def test_any_split_keeps_the_same_images(images: int) -> None:
    batch = batch_of(latents(), {"label": [None] * 200})
    made = stage(images)
    whole, parts = (answers(made, reduced(made, s)) for s in ([[batch]], list(uneven(batch, 1))))
    for key, one in whole.items():
        assert one.n == min(images, 200)
        assert parts[key].value == pytest.approx(one.value, rel=1e-6)
        assert parts[key].high == pytest.approx(one.high, rel=1e-6)


def test_a_share_is_looked_at_and_the_rest_costs_nothing() -> None:
    batch = batch_of(latents(), {"label": [None] * 200})
    made = stage(share=0.3)
    kept = answers(made, reduced(made, [[batch]]))["frechet_distance", "a", "+1 latent"].n
    assert kept is not None
    assert 30 < kept < 90


def test_images_without_features_leave_the_sample_only() -> None:
    rows = latents()
    rows[7, 3] = 3.0
    made = stage(options={"fails": True})
    state = reduced(made, [[batch_of(rows, {"label": [None] * 200})]])
    count = int((rows[:, 3] > 2).sum())
    assert (state.rows, state.not_featured) == (200, count)
    assert answers(made, state)["frechet_distance", "a", "+1 latent"].n == 200 - count


def test_few_images_are_a_status_and_the_kernel_stays() -> None:
    made = stage()
    found = answers(made, reduced(made, [[batch_of(latents(5), {"label": [None] * 5})]]))
    one = found["frechet_distance", "a", "+1 latent"]
    assert (one.value, one.status) == (None, "fewer_images_than_features")
    assert "5 images; a covariance of 4 features" in one.message
    assert found["kernel_distance", "a", "+1 latent"].value is not None
    none = answers(made, made.start())["kernel_distance", "a", "+1 latent"]
    assert (none.value, none.status) == (None, "too_few")


def test_features_that_would_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = EvaluateStep(name="e", directions=("a",), fidelity_images=50_000)
    problem = features_problem(asked, 161, at="steps.1 (evaluate)")
    assert problem is not None
    assert problem.field == "steps.1 (evaluate).fidelity_images"
    assert features_problem(replace_images(asked, 500), 161, at="steps.1") is None
    monkeypatch.setattr(kept_features, "MAX_VALUES", 1000)
    made = stage()
    with pytest.raises(JobError, match="fidelity_images"):
        reduced(made, [[batch_of(latents(), {"label": [None] * 200})]])


def replace_images(asked: EvaluateStep, images: int) -> EvaluateStep:
    return asked.model_copy(update={"fidelity_images": images})


def test_the_sample_is_of_real_pictures() -> None:
    """The distance equals that of features of pictures decoded by hand."""
    made = stage()
    rows = latents(80)
    found = answers(made, reduced(made, [[batch_of(rows, {"label": [None] * 80})]]))
    model = made._model
    assert model is not None
    features = []
    for move in (0.0, 2.0):
        pictures = model.codec.decode(torch.from_numpy(rows + np.float32(move) * np.eye(4, dtype=np.float32)[0]))
        features.append(Moments.of(Columns(device="cpu")(pictures).float().double().numpy(), full=True))
    assert found["frechet_distance", "a", "+2 latent"].value == pytest.approx(frechet_distance(*features), rel=1e-6)
