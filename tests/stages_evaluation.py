"""An opened evaluation on the leaky codec, scored exactly by its patches."""

from typing import Any

from schemas.codec import CustomCodec, Preprocess
from stages.evaluation.design import Design
from stages.evaluation.effects import Evaluation
from stages.evaluation.models import CodecSource


def leaky_stage(
    design: Design, *, dislikes: float | None = None, leak: float = 0.0, back: float = 0.0, **options: Any
) -> Evaluation:
    spec = CustomCodec(entry="tests.leaky_codec:LeakyCodec", options=options, preprocess=Preprocess(size=16))
    names = {"names": list(design.attributes), "dislikes": dislikes, "leak": leak, "back": back}
    source = CodecSource(spec, lambda: None, allow_code=True)
    stage = Evaluation(design, source, scorer="tests.leaky_codec:Patches", scorer_options=names)
    stage.open("cpu")
    return stage
