"""Directions of the example faces, judged on decoded pixels: each moves its own factor and leaves the others.

The faces' factors are known, and the ruler reads smile and glasses off any picture. The codec is the exact linear one with the
faces' own principal components, so nothing is trained and the whole chain is real: draw, encode, fit, edit, decode, measure.
With smiling and glasses drawn together (ρ = .8), the plain difference of means takes glasses along with a smile, as much as
ρ predicts; the balanced one and forward least squares do not.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from face_drawing import Factors, render_face
from face_measures import measure_glasses, measure_smile
from faces import Correlation, factors_of
from schemas.codec import LinearCodec
from stages.codecs.linear import Linear
from stages.codecs.weights import Weights
from stages.directions.compose import project_out
from stages.directions.direction import Direction
from tests.labelled import batch_of, coefficients, directions, step

FACES, COMPONENTS, RHO = 1200, 96, 0.8
TYPES: dict[str, Any] = {"smiling": "bool", "glasses": "bool"}

pytestmark = pytest.mark.slow


def measure_light(picture: np.ndarray) -> float:
    """How much brighter the right half of the middle is than the left, in shades of grey."""
    face = picture[24:44, 12:52].astype(float).mean(axis=2)
    return float(face[:, 20:].mean() - face[:, :20].mean())


RULERS = {"smiling": measure_smile, "glasses": measure_glasses, "light": measure_light}


@dataclass(frozen=True)
class World:
    """Faces, their latents and a codec."""

    factors: list[Factors]
    latents: np.ndarray
    codec: Linear

    def fitted(self, *names: str, **fields: Any) -> dict[str, Direction]:
        known = {
            "smiling": np.array([f.smile > 0 for f in self.factors]),
            "glasses": np.array([f.glasses for f in self.factors]),
            "light": np.array([f.light for f in self.factors]),
        }
        types = {name: "float" if name == "light" else "bool" for name in names}
        return directions(step(**fields), types, batch_of(self.latents, {name: known[name] for name in names}))

    def effects(self, found: dict[str, Direction]) -> np.ndarray:
        """R (directions, rulers): the mean change of every ruler when a face moves by one difference of the classes."""
        rows = self.latents[:: len(self.latents) // 60].astype(np.float64)
        rulers = [RULERS[name] for name in found]
        changes = []
        for direction in found.values():
            low, high = (self._decoded(rows + side * coefficients(direction)) for side in (-0.5, 0.5))
            changes.append([np.mean([r(b) - r(a) for a, b in zip(low, high, strict=True)]) for r in rulers])
        return np.array(changes)

    def _decoded(self, codes: np.ndarray) -> np.ndarray:
        return self.codec.decode(torch.from_numpy(codes.astype(np.float32))).numpy()


def world(rho: float) -> World:
    correlation = Correlation("smiling", "glasses", rho) if rho else None
    factors = [factors_of(i, correlation=correlation) for i in range(FACES)]
    pictures = np.array([render_face(f) for f in factors])
    pixels = pictures.reshape(FACES, -1).astype(np.float32) / 255
    centred = pixels - pixels.mean(0)
    _, left = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    basis, _ = np.linalg.qr(centred.T.astype(np.float64) @ left[:, -COMPONENTS:])
    tensors = {"basis": torch.from_numpy(basis.T.copy()), "mean": torch.from_numpy(pixels.mean(0, dtype=np.float64))}
    spec = LinearCodec(dim=COMPONENTS, preprocess={"size": 64})
    codec = Linear(spec, Weights.from_files(None, save(tensors)))
    latents = codec.encode(torch.from_numpy(pictures)).mean.numpy()
    return World(factors, latents, codec)


@pytest.fixture(scope="module")
def independent() -> World:
    return world(0)


@pytest.fixture(scope="module")
def correlated() -> World:
    return world(RHO)


def leaks(effects: np.ndarray) -> np.ndarray:
    """Off the diagonal, each effect as a share of what the ruler's own direction does to it."""
    return np.asarray(effects / np.diagonal(effects))[~np.eye(len(effects), dtype=bool)]


@pytest.mark.parametrize("estimator", ["mean_difference", "balanced_mean_difference", "ols"])
def test_a_direction_moves_its_own_factor_and_leaves_the_other(independent: World, estimator: str) -> None:
    effects = independent.effects(independent.fitted("smiling", "glasses", estimator=estimator))
    assert effects[0, 0] > 0.5 and effects[1, 1] > 0.2, effects
    assert np.abs(leaks(effects)).max() < 0.08, effects


def test_numbers_have_directions_too(independent: World) -> None:
    effects = independent.effects(independent.fitted("smiling", "glasses", "light", estimator="ols"))
    assert effects[2, 2] > 5, effects  # shades of grey for half the range of light
    assert np.abs(leaks(effects)).max() < 0.15, effects


def test_correlated_factors_confound_plain_means_as_predicted(correlated: World) -> None:
    plain = leaks(correlated.effects(correlated.fitted("smiling", "glasses", estimator="mean_difference")))
    assert np.abs(plain - RHO).max() < 0.15, plain


@pytest.mark.parametrize("estimator", ["balanced_mean_difference", "ols"])
def test_balanced_directions_stay_apart_where_plain_means_do_not(correlated: World, estimator: str) -> None:
    effects = correlated.effects(correlated.fitted("smiling", "glasses", estimator=estimator))
    assert effects[0, 0] > 0.4 and effects[1, 1] > 0.2, effects
    assert np.abs(leaks(effects)).max() < 0.15, effects


def test_composing_does_not_undo_confounding(correlated: World) -> None:
    # Glasses that are orthogonal to a confounded smile over-correct: they bring a frown (latent-science §3).
    found = correlated.fitted("smiling", "glasses", estimator="mean_difference")
    left = project_out(coefficients(found["glasses"])[None], coefficients(found["smiling"])[None])[0]
    norm = float(np.linalg.norm(left))
    found["glasses"] = replace(found["glasses"], vector=left / norm, raw_norm=norm)
    effects = correlated.effects(found)
    assert effects[1, 0] < -0.2 * effects[0, 0], effects
