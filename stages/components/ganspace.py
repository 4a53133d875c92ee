"""GANSpace: PCA of a decoder layer's activations, carried back to latents by least squares (Härkönen et al. 2020).

Two statistics: the moments of the activations a give components V; the moments of the scores x = Vᵀ(a−ā) with the latents z
give U of the regression z ≈ z̄ + Ux with intercept. Column k of U is the direction that moves activations along component k.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from schemas.errors import JobError
from schemas.measurements import Measurement
from schemas.problems import did_you_mean
from schemas.steps import ComponentsStep
from stages.codecs.base import LayeredCodec
from stages.components.along import Along
from stages.components.eigen import Floats, signed
from stages.components.found import Found, Rows, beyond_rank, direction, failed, measured, words
from stages.components.over_decoder import OverDecoder
from stages.components.over_latents import Fold, Matrix, OverLatents
from stages.components.principal import Limits, Principal, principal
from stages.components.pullback import OpenCodec
from stages.directions.direction import FitStatus
from stages.moments import Moments
from stages.row_hash import Hashes, salted
from stages.stage import Passes

_AT_ONCE = 2**22


@dataclass(frozen=True)
class Activations:
    """What is folded of a row: the activations (a,) of one layer while its latent, or a draw of the prior, is decoded."""

    codec: LayeredCodec
    module: torch.nn.Module
    prior: str | None

    @property
    def at_once(self) -> int:
        return max(1, _AT_ONCE // (self.codec.picture[0] * self.codec.picture[1] * 3))

    def __call__(self, latents: Matrix, hashes: Hashes) -> tuple[Matrix, Matrix]:
        given = torch.from_numpy(np.array(latents))  # a copy: Arrow's memory is read-only
        if self.prior is not None:
            drawn = self.codec.sample_prior(salted(hashes, self.prior))
            assert drawn is not None
            given = drawn.cpu()
        found = self.watch(given.reshape(-1, *self.codec.latent.shape))
        return found, given.flatten(1).numpy()

    def watch(self, latents: torch.Tensor) -> Matrix:
        """(n, a) float32, flattened a row."""
        seen: list[torch.Tensor] = []
        mine = threading.get_ident()

        def keep(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            if threading.get_ident() == mine:  # other threads decode with the same module
                seen.append(output)

        handle = self.module.register_forward_hook(keep)
        try:
            with torch.no_grad():
                self.codec.decode_float(latents)
        finally:
            handle.remove()
        return seen[0].flatten(1).to(torch.float32).cpu().numpy()


@dataclass(frozen=True)
class Source:
    """Opens the codec in a worker and finds the layer. `prior`: the salt of one draw a row; None takes stored latents."""

    open_codec: OpenCodec
    layer: str | None
    prior: str | None
    at: str

    def __call__(self, device: str) -> Activations:
        """Raises JobError when the codec shows no layers, has none of that name, or has no prior that is asked for."""
        codec = self.open_codec(device)
        if "layers" not in codec.can or "gradient" not in codec.can:
            reason = "this codec shows no layers (`layers` is not in its `can`)."
            raise JobError.one(f"{self.at}.estimator", "ganspace", reason, "use estimator: pca or jacobian")
        if self.prior is not None and "sample" not in codec.can:
            raise JobError.one(f"{self.at}.latents", "prior", "this codec has no prior.", "use latents: encoded")
        layered = cast(LayeredCodec, codec)
        modules = dict(layered.layers.named_modules())
        name = self.layer or layered.default_layer
        if name not in modules or not name:
            raise JobError.one(
                f"{self.at}.layer", name, "the decoder has no such layer.", did_you_mean(name, filter(None, modules))
            )
        return Activations(layered, modules[name], self.prior)

    def width(self) -> int:
        """Activations a row, found by decoding one latent of zeros here."""
        rows = self("cpu")
        try:
            return int(rows.watch(torch.zeros((1, *rows.codec.latent.shape))).shape[1])
        except IndexError:
            fix = "name a layer of the decoder"
            raise JobError.one(f"{self.at}.layer", self.layer, "decoding does not go through it.", fix) from None


@dataclass(frozen=True)
class Regression:
    """A fold: moments of latents with the scores of the activations along `components` (k, a)."""

    dim: int
    mean: Floats
    components: Floats

    def start(self) -> Moments:
        return Moments.empty(self.dim, labels=len(self.components), full=False)

    def add(self, state: Moments, x: Matrix, z: Matrix) -> Moments:
        state.absorb(Moments.of(z, y=(x - self.mean) @ self.components.T, full=False))
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        return a.merged(b)


def ganspace(
    step: ComponentsStep, names: Sequence[str], source: Source, *, dim: int, limits: Limits
) -> Passes[Any, Found]:
    """The activations' passes (`principal.py`), one for the regression, one for the latents' mean and spread."""
    width = source.width()

    def over(fold: Fold[Any]) -> OverDecoder[Any]:
        return OverDecoder(fold, source)

    found: Principal = yield from principal(
        over, dim=width, count=min(len(names) + 1, width), limits=limits, seed=step.seed, passes=step.passes
    )
    eigen, rank = found.eigen, min(found.eigen.rank, dim)
    none = Rows(found.n, found.non_finite, np.zeros(dim), np.zeros(0))
    if found.n < 2 or not rank:
        few = FitStatus.TOO_FEW if found.n else FitStatus.NO_ROWS
        return failed(step.estimator, names, none, few if found.n < 2 else FitStatus.CONSTANT)
    regressed = yield over(Regression(dim, found.mean, eigen.vectors[:rank]))
    moments: Moments = regressed.state
    coefficients = np.linalg.solve(moments.yy, moments.zy.T)
    lengths = np.linalg.norm(coefficients, axis=1)
    vectors = signed(coefficients / np.where(lengths > 0, lengths, 1.0)[:, None])
    along = yield OverLatents(Along(vectors))
    rows = Rows(found.n, found.non_finite, along.state.latents.z_mean, np.sqrt(along.state.scores.z_variance))
    directions = tuple(
        direction(
            name, step.estimator, vectors[i], rows, i,
            raw_norm=float(lengths[i]), message=words(eigen, i, n=found.n)[1],
        )
        if i < rank and lengths[i] > 0
        else beyond_rank(name, step.estimator, rows)
        for i, name in enumerate(names)
    )  # fmt: skip
    told = measured(
        eigen, names, rows, metric="activation_variance", total=found.total, unit="activation²", estimated=True
    )
    explained = float(np.einsum("kd,dk->", coefficients, moments.zy)) / max(float(moments.zz.sum()), 1e-300)
    message = "share of the latents' variance that follows from the scores of these components"
    return Found(directions, (*told, Measurement("latent_r2", explained, n=moments.n, message=message)))


def source_of(step: ComponentsStep, open_codec: OpenCodec) -> Source:
    """Where the step's activations come from."""
    prior = f"{step.name}:{step.seed}" if step.latents == "prior" else None
    return Source(open_codec, step.layer, prior, str(step.name))
