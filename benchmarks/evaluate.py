"""Where the time of an evaluation goes: 8 edits × 4 strengths of conv_vae pictures (64×64), 200 bootstrap replicates, fidelity.

All of it counts: decoding, scoring, statistics, features, and the numbers made of them at the end. Decoding must take 80 % where
the scorer costs little, and 80 % of all but the scorer's own model where the scorer is `reencode`, which encodes every picture
again. Fidelity looks at 500 images at most, and its numbers are made once: of a few hundred images they are a larger share (decoding
takes .74 of 400 images on 2 cores). The answer is held against a plain loop over images: same effects to rounding.
"""

import argparse
import resource
import time

import numpy as np
import pyarrow as pa
import torch

from benchmarks.results import Result, report
from pipeline.executors.threads import at_most
from schemas.codec import ConvVAECodec, Preprocess
from stages.codecs.factory import open_codec
from stages.codecs.weights import Weights
from stages.evaluation.design import Design, Edit, Fidelity
from stages.evaluation.effects import Evaluation
from stages.evaluation.fidelity import fidelity
from stages.evaluation.models import CodecSource
from stages.evaluation.questions import questions
from stages.evaluation.readout import Readout
from stages.evaluation.replicates import Results
from tests.codec_cases import weights_of
from tests.labelled import batch_of

DIM, EDITS, STRENGTHS = 32, 8, (-2.0, -1.0, 1.0, 2.0)
ROUNDS = 3
IMAGES = 500
"""What the step's `fidelity_images` is where nothing is said."""
SPEC = ConvVAECodec(weights="here", preprocess=Preprocess(size=64))
DECODING = 0.8
AGREES = 1e-4
"""Of a standard deviation: pictures are 8-bit, and a batch's last bits may turn one number of one pixel."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1500, help="images; as many as the demo has")
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
    _, found, stage = evaluated(weights, half)
    wrong = distance(weights, found, half.slice(0, 50), stage)
    assert wrong < AGREES, f"effects differ by {wrong} σ from a plain loop's"
    cheap, again = (
        {kind: float(np.median([r[i][kind] / r[i]["all"] for r in rounds])) for kind in rounds[0][i]} for i in range(2)
    )
    growth = float(np.median([r[2]["all"] / r[1]["all"] for r in rounds]))
    seconds = [float(np.median([r[i]["all"] for r in rounds])) for i in range(2)]
    rest = "statistics {statistics:.1%}, features {fidelity:.1%}, numbers at the end {numbers:.1%}"
    results = [
        Result("decoding, of all time, a cheap scorer", cheap["decode"], ">=", DECODING, f"{seconds[0]:.1f} s"),
        Result(
            "decoding and scorer, a cheap scorer", cheap["decode"] + cheap["score"], None, None, rest.format(**cheap)
        ),
        Result(
            "decoding, of all but the scorer's model, reencode",
            again["decode"] / (1 - again["score"]),
            ">=",
            DECODING,
            f"{seconds[1]:.1f} s",
        ),
        Result("decoding and scorer, reencode", again["decode"] + again["score"], ">=", DECODING, rest.format(**again)),
        Result(
            "decoding, of all time, reencode", again["decode"], None, None, "the scorer encodes every picture again"
        ),
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
    looked = Fidelity("pixel_moments", {}, IMAGES).over(len(batch))
    design = Design(edits, STRENGTHS, "latent", names, readout, identity=scorer is None, fidelity=looked)
    stage = Evaluation(design, CodecSource(SPEC, lambda: weights, allow_code=True), scorer=scorer)
    stage.open("cpu")
    with at_most(None, blas=1):  # as executors run it
        stage.add(stage.start(), batch.slice(0, 8))  # the first batch pays for what is made once
        started = time.perf_counter()
        state = stage.add(stage.start(), batch)
        passed = time.perf_counter()
    found = Results(design, state, 0.95)
    assert all(m.status == "ok" for m in (*questions(found, false_discoveries=0.05), *fidelity(found)) if m.target)
    ended = time.perf_counter()
    return {**state.seconds, "numbers": ended - passed, "all": ended - started}, found, stage


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
