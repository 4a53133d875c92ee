"""The models of an evaluation, made where they run: pictures of codes, latents of pictures, scores and features of pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from schemas.codec import CodecSpec
from stages.attributes import Floats
from stages.codecs.base import Codec
from stages.codecs.weights import Weights
from stages.evaluation.scorer import Scorer
from stages.guarded import Guarded, Outcome
from stages.scores.extractors import FeatureExtractor, features_of


@dataclass(frozen=True)
class CodecSource:
    """How a worker gets the codec: `weights` fetches them there."""

    spec: CodecSpec
    weights: Callable[[], Weights | None]
    allow_code: bool = False


class Models:
    """Codec, scorer and extractor on one device; the last two only where they are asked for."""

    def __init__(self, codec: Codec, scorer: Scorer | None, extractor: FeatureExtractor | None, device: str) -> None:
        self.codec, self.scorer, self.extractor, self._device = codec, scorer, extractor, device
        self._decode = Guarded(lambda latents: (codec.decode(latents),))

    @torch.inference_mode()
    def decode(self, codes: npt.NDArray[np.float32], count: int) -> tuple[torch.Tensor, npt.NDArray[np.bool_]]:
        """codes (n, count, d) → pictures of the rows of which all could be made, and which rows those are."""
        usable = np.asarray(np.isfinite(codes).all(axis=(1, 2)))
        flat = torch.from_numpy(codes[usable].reshape(-1, *self.codec.latent.shape)).to(self._device)
        outcome: Outcome = self._decode(flat)
        whole = np.ones(int(usable.sum()), bool)
        for at in outcome.errors:
            whole[at // count] = False
        good = usable.copy()
        good[usable] = whole
        if not good.any():
            return torch.zeros((0, count, *self.codec.picture, 3), dtype=torch.uint8), good
        pictures = outcome.outputs[0]
        if outcome.errors:
            kept = torch.from_numpy(np.repeat(whole, count)[outcome.rows])
            pictures = pictures[kept.to(pictures.device)]
        return pictures.reshape(-1, count, *self.codec.picture, 3), good

    @torch.inference_mode()
    def encode(self, pictures: torch.Tensor) -> Floats:
        """(n, height, width, 3) uint8 → (n, d) float64."""
        return np.asarray(self.codec.encode(pictures).mean.flatten(1).cpu().numpy(), np.float64)

    @torch.inference_mode()
    def features(self, pictures: torch.Tensor) -> Floats:
        """(n, count, height, width, 3) uint8 → (n, count, F) float64."""
        assert self.extractor is not None
        found = features_of(self.extractor, pictures.flatten(0, 1)).numpy()
        return np.asarray(found.reshape(*pictures.shape[:2], -1), np.float64)
