"""The pass of a path length: pairs of latents of the dataset, decoded at two places a small step apart on the way between.

The way is what the codec's declared space asks for: a great circle in a centred shell, else a straight line.

The state is the lengths themselves, bounded by the number of pairs that was asked for. Codecs decode to floats here: rounding
to 256 levels would hide the step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from schemas.errors import JobError
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec
from stages.entry import import_entry
from stages.evaluation.models import CodecSource
from stages.moments import Floats
from stages.rows import finite_rows
from stages.scores.path_length import PictureDistance, path_lengths, path_space, squared_l2
from stages.scores.picture_features import PICTURE_BYTES, PICTURES

BUILT_IN = "squared_l2"


def open_distance(entry: str, options: Mapping[str, Any], *, device: str, allow_code: bool) -> PictureDistance:
    """`squared_l2` of pixels in units of 1 (black to white), or the user's `module:Class`, made as `Class(device=…, **options)`."""
    if entry == BUILT_IN:
        return squared_l2
    distance: PictureDistance = import_entry(entry, field="path_distance", allow_code=allow_code)(
        device=device, **options
    )
    return distance


class PathLengths:
    """A reduce stage over batches with `start`, `end` (latents) and `place` in [0, 1): the lengths, in no order.

    Pairs of which an end is null or not finite have none.
    """

    def __init__(self, codec: CodecSource, distance: str, options: Mapping[str, Any]) -> None:
        self._source, self._entry, self._options = codec, distance, dict(options)
        self._model: tuple[Codec, PictureDistance] | None = None

    def open(self, device: str) -> None:
        """Builds codec and distance. Raises JobError when the codec cannot decode to floats."""
        source = self._source
        codec = open_codec(source.spec, source.weights(), device=device, allow_code=source.allow_code)
        if "gradient" not in codec.can:
            fix = "set path_pairs: 0"
            raise JobError.one("path_pairs", source.spec.family, "this codec decodes to whole levels only.", fix)
        distance = open_distance(self._entry, self._options, device=device, allow_code=source.allow_code)
        self._model = (codec, distance)

    def start(self) -> Floats:
        return np.zeros(0)

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        assert self._model is not None, "open() comes before the first batch"
        codec, distance = self._model
        height, width = codec.picture
        (start, begins), (end, ends) = (finite_rows(batch.column(name)) for name in ("start", "end"))
        both = begins & ends
        start, end, places = start[both], end[both], batch.column("place").to_numpy()[both]

        def generate(latents: Floats) -> Floats:
            with torch.no_grad():
                made = codec.decode_float(torch.from_numpy(latents).reshape(len(latents), *codec.latent.shape))
            return np.asarray(made.cpu().double().numpy())

        found, space = [state], path_space(codec.latent)
        for at in range(0, len(places), step := max(1, min(PICTURES, PICTURE_BYTES // (height * width * 3)))):
            cut = slice(at, at + step)
            found.append(path_lengths(generate, distance, (start[cut], end[cut]), places[cut], space=space))
        lengths = np.concatenate(found)
        return lengths[np.isfinite(lengths)]

    def merge(self, a: Floats, b: Floats) -> Floats:
        return np.concatenate([a, b])
