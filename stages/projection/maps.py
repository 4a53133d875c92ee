"""Two-dimensional maps of a sample, and how far each can be trusted.

UMAP (McInnes et al. 2018) by umap-learn, t-SNE by openTSNE, both on the leading principal scores, seeded and on one thread,
so a map is the same on every run. Trustworthiness (Venna and Kaski 2001) is 1 when every neighbour on the map is a neighbour
in the latent space; maps invent neighbours, and this number says how much.
"""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.manifold import trustworthiness

Floats = npt.NDArray[np.float64]
Method = Literal["pca", "umap", "tsne"]

PACKAGES = {"umap": ("umap", "umap-learn"), "tsne": ("openTSNE", "openTSNE")}
MIN_ROWS = 10
TRUST_ROWS = 4000
"""Trustworthiness compares all pairs: 4,000 rows are 128 MB of distances."""
_EXACT_NEIGHBOURS = 10_000


@dataclass(frozen=True, slots=True)
class MapSettings:
    """`neighbours` of UMAP and of trustworthiness, `perplexity` of t-SNE; both are lowered where there are too few rows."""

    neighbours: int
    perplexity: float
    seed: int


def missing_package(method: str) -> str | None:
    """The package that has to be installed for a method, or None."""
    module, package = PACKAGES.get(method, ("", ""))
    return package if module and find_spec(module) is None else None


def mapped(method: Method, scores: Floats, settings: MapSettings) -> Floats:
    """Scores (n, k), n ≥ MIN_ROWS → positions (n, 2)."""
    if method == "pca":
        return scores[:, :2]
    if method == "umap":
        return _umap(scores, settings)
    return _tsne(scores, settings)


def trust(latents: Floats, positions: Floats, settings: MapSettings) -> float:
    """Trustworthiness of positions (n, 2) for latents (n, d), over the first TRUST_ROWS rows, which a hash has ordered."""
    x, y = latents[:TRUST_ROWS], positions[:TRUST_ROWS]
    return float(trustworthiness(x, y, n_neighbors=min(settings.neighbours, (len(x) - 1) // 2)))


def _umap(scores: Floats, settings: MapSettings) -> Floats:
    with warnings.catch_warnings():
        # About optional TensorFlow on import, and about its own defaults.
        warnings.simplefilter("ignore")
        from umap import UMAP

        model = UMAP(
            n_components=2,
            n_neighbors=min(settings.neighbours, len(scores) - 1),
            random_state=settings.seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(scores.astype(np.float32)), np.float64)


def _tsne(scores: Floats, settings: MapSettings) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openTSNE import TSNE

        model = TSNE(
            n_components=2,
            perplexity=min(settings.perplexity, (len(scores) - 1) / 3),
            neighbors="exact" if len(scores) <= _EXACT_NEIGHBOURS else "approx",
            random_state=settings.seed,
            n_jobs=1,
        )
        return np.asarray(model.fit(scores), np.float64)
