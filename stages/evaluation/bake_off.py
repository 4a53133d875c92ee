"""Several directions of one attribute, ranked by what they do: the share of their effect that lands on the attribute.

R_tt over Σ|R_tj|, so 1 is an edit that moves nothing else, and an edit that moves its target the wrong way has 0. AUC stands
beside it and does not count: it says how well a direction tells classes apart, not what it changes.
"""

from collections.abc import Iterator

import numpy as np

from schemas.measurements import Measurement
from stages.evaluation.replicates import Results


def bake_off(found: Results) -> Iterator[Measurement]:
    """For each attribute that several edits aim at."""
    targets = found.design.targets
    for target in sorted({t for t in targets if t is not None}):
        rivals = [i for i, t in enumerate(targets) if t == target]
        if len(rivals) < 2:
            continue
        effect = found.effect[:, rivals]
        own = np.maximum(effect[:, :, target], 0.0)
        leak = np.nansum(np.abs(effect), axis=2) - np.abs(effect[:, :, target])
        share = _share(own, leak)
        # Equals share a rank, and a first place among them: the order of the names decides nothing.
        known = np.where(np.isfinite(share), share, -np.inf)
        best = known[1:] == known[1:].max(axis=1, keepdims=True)
        first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
        rank = 1 + (known[0] > known[0][:, None]).sum(axis=1)
        for at, i in enumerate(rivals):
            edit = found.design.edits[i]
            over = float(own[0, at] / leak[0, at]) if leak[0, at] > 0 else None
            detail = {
                "rank": rank[at],
                "first": first[at],
                "estimator": edit.estimator,
                "auc": edit.auc,
                "effect": effect[0, at, target],
                "effect_over_leak": over,
            }
            yield found.measurement(
                "bake_off",
                share[:, at],
                subject=edit.name,
                target=found.design.attributes[target],
                detail=detail,
            )


def _share(own: np.ndarray, leak: np.ndarray) -> np.ndarray:
    total = own + leak
    # NaN stays NaN: a score that never varies has no effect to share.
    return np.asarray(np.where(total == 0, 0.0, own / np.where(total == 0, 1.0, total)))
