"""The ruler for faces with a fault of its own: it takes a smile for a little of a pair of glasses."""

import numpy as np
import torch

from face_measures import FaceRuler

LEAK = 0.02
"""Of the glasses' log units a pixel of smile."""


class BiasedRuler(FaceRuler):
    """`scorer: tests.biased_ruler:BiasedRuler`."""

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        scores = super().__call__(images)
        return np.asarray(scores + LEAK * scores[:, [0]] * [0.0, 1.0], np.float64)
