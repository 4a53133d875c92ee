"""Where the time of an evaluation goes: 8 edits × 4 strengths of conv_vae pictures (64×64), 200 bootstrap replicates.

Decoding must take 80 % of it where the scorer costs nothing much. With `reencode` every picture is also encoded, which is a
model's work too and stands beside it. The answer is held against a plain loop over images: same effects to rounding.
"""

import argparse
import resource
import time

import numpy as np
import pyarrow as pa
import torch

from benchmarks.results import Result, report
from schemas.codec import ConvVAECodec, Preprocess
from stages.codecs.factory import open_codec
from stages.codecs.weights import Weights
from stages.evaluation.design import Design, Edit
from stages.evaluation.effects import Evaluation
from stages.evaluation.models import CodecSource
from stages.evaluation.readout import Readout
from stages.evaluation.replicates import Results
from tests.codec_cases import weights_of
from tests.labelled import batch_of

DIM, EDITS, STRENGTHS = 32, 8, (-2.0, -1.0, 1.0, 2.0)
ROUNDS = 3
SPEC = ConvVAECodec(weights="here", preprocess=Preprocess(size=64))
DECODING = 0.8
AGREES = 1e-4
"""Of a standard deviation: pictures are 8-bit, and a batch's last bits may turn one number of one pixel."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    asked = parser.parse_args()
    weights = weights_of(size=64, channels=(16, 32, 64, 128), latent_dim=DIM)
    batch = batch_of(
        np.random.default_rng(0).standard_normal((2 * asked.rows, DIM)).astype(np.float32),
        {"label": [None] * 2 * asked.rows},
    )
    half = batch.slice(0, asked.rows)
    # Rounds one after another, medians of their ratios: other work on the machine comes and goes.
    rounds = [
        (
            evaluated(weights, half, scorer="tests.brightness:Brightness")[0],
            evaluated(weights, half)[0],
            evaluated(weights, batch)[0],
        )
        for _ in range(ROUNDS)
    ]
    _, found, stage = evaluated(weights, half.slice(0, 50))
    wrong = distance(weights, found, half.slice(0, 50), stage)
    assert wrong < AGREES, f"effects differ by {wrong} σ from a plain loop's"
    share = {kind: float(np.median([r[1][kind] / r[1]["all"] for r in rounds])) for kind in rounds[0][1]}
    decoding = float(np.median([r[0]["decode"] / r[0]["all"] for r in rounds]))
    growth = float(np.median([r[2]["all"] / r[1]["all"] for r in rounds]))
    seconds = [float(np.median([r[i]["all"] for r in rounds])) for i in range(2)]
    results = [
        Result("decoding, own scorer", decoding, ">=", DECODING, f"{seconds[0]:.1f} s"),
        Result(
            "decoding and encoding, reencode", share["decode"] + share["score"], ">=", DECODING, f"{seconds[1]:.1f} s"
        ),
        Result("decoding alone, reencode", share["decode"], None, None, "the scorer encodes every picture again"),
        Result("statistics, reencode", share["statistics"], None, None, "features, pixels, bootstrap"),
        Result("twice the rows, times the time", growth, "<=", 2.1),
        Result("peak memory, GB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "<=", 2.0),
        Result("difference from a plain loop, σ", wrong, "<=", AGREES),
    ]
    report("evaluate", f"An evaluation of {asked.rows:,} images", results)


def evaluated(
    weights: Weights, batch: pa.RecordBatch, *, scorer: str | None = None
) -> tuple[dict[str, float], Results, Evaluation]:
    """Seconds by kind, the results and the stage."""
    names = ("bright", "corner") if scorer else tuple(f"a{i}" for i in range(EDITS))
    axes = np.eye(DIM)
    edits = tuple(Edit(f"a{i}", f"a{i}", "ols", axes[i], np.zeros(DIM), 1.0) for i in range(EDITS))
    readout = None if scorer else Readout(names, axes[:EDITS], np.zeros(EDITS), {})
    design = Design(edits, STRENGTHS, "latent", names, readout, identity=scorer is None)
    stage = Evaluation(design, CodecSource(SPEC, lambda: weights, allow_code=True), scorer=scorer)
    stage.open("cpu")
    stage.add(stage.start(), batch.slice(0, 8))  # the first batch pays for what is made once
    started = time.perf_counter()
    state = stage.add(stage.start(), batch)
    seconds = {**state.seconds, "all": time.perf_counter() - started}
    return seconds, Results(design, state, 0.95), stage


def distance(weights: Weights, whole: Results, batch: pa.RecordBatch, stage: Evaluation) -> float:
    """Largest difference of effects on a few images: the stage's, and those of a loop over images and strengths."""
    found = Results(whole.design, stage.add(stage.start(), batch), 0.95)
    codec = open_codec(SPEC, weights)
    latents = batch.column("latent").flatten().to_numpy().reshape(-1, DIM)

    def scores(codes: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pictures = codec.decode(torch.from_numpy(codes.astype(np.float32)))
            return codec.encode(pictures).mean.numpy()[:, :EDITS].astype(np.float64)

    base = scores(latents)
    alphas = np.array(STRENGTHS)
    worst = 0.0
    for i in range(EDITS):
        moved = [scores(latents + alpha * np.eye(DIM)[i]) - base for alpha in STRENGTHS]
        slope = np.mean(sum(a * d for a, d in zip(alphas, moved, strict=True)) / (alphas @ alphas), axis=0)
        worst = max(worst, float(np.abs(slope / base.std(axis=0) - found.effect[0, i]).max()))
    return worst


if __name__ == "__main__":
    main()
