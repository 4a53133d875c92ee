"""The train step: selects images, reads them once into a memory-mapped array beside the trainer, trains, writes weights.

The whole training is one task on one worker (the one with the GPU, if the executor gives one). It saves its state under
the weights' folder, so a killed run goes on where it was; finished weights of the same settings are kept.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline import artifacts
from pipeline.codec import weights_exist, weights_url
from pipeline.context import Context
from pipeline.ledger import Status
from pipeline.listing import Listing, list_source
from pipeline.sources.read import ImageReader
from pipeline.work import WorkSplits, write_work
from schemas.codec import Preprocess
from schemas.errors import JobError, TrainingError
from schemas.identity import fingerprint, fraction_of
from schemas.steps import TrainStep

if TYPE_CHECKING:
    from stages.train import TrainPoint

IDENTITY = "training.json"


def train(step: TrainStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns its last losses. Raises TrainingError when no image is usable or the loss is not finite."""
    url = training_url(step, ctx.job.codec)
    if is_trained(step, ctx.job.codec):
        ctx.started_step(step, total=0, already=step.steps)
        return {"weights": url, "already": step.steps, "trained": 0}
    listing = list_source(ctx.job.source, latents=None, failures=None)
    chosen = _choose(listing, step.max_images)
    height, width = ctx.job.codec.preprocess.size
    work = write_work(
        listing, ctx.work_url(f"{step.name}.arrow"), todo=chosen, row_bytes=height * width * 3, options=ctx.file_options
    )
    reader = ImageReader(ctx.job.source, ctx.job.codec.preprocess)
    task = TrainTask(step, ctx.job.codec.preprocess, WorkSplits(work.spill, reader, 256), work.rows, url)
    ctx.started_step(step, total=step.steps)
    last: TrainPoint | None = None
    used = Usable(0, 0)
    for told in ctx.executor.stream(task):
        if isinstance(told, Usable):
            used = told
            if used.left_out:
                ctx.notice(f"{step.name}: {used.left_out:,} of {work.rows:,} images cannot be read and are left out")
            continue
        last = told
        ctx.progress(
            step,
            computed=told.step,
            committed=told.step,
            failed=used.left_out,
            total=step.steps,
            note=f"loss {told.loss:.4g}",
        )
    artifacts.write_bytes(artifacts.join(url, IDENTITY), json.dumps(_identity(step, ctx.job.codec.preprocess)).encode())
    loss = last.loss if last else None
    return {"weights": url, "images": used.images, "left_out": used.left_out, "trained": step.steps, "loss": loss}


def training_url(step: TrainStep, codec: Any) -> str:
    """Where the step writes: its `to`, else the codec's weights."""
    return step.to or str(weights_url(codec))


def is_trained(step: TrainStep, codec: Any) -> bool:
    """Whether finished weights of exactly these settings are there. Raises JobError when they are of other settings."""
    url = training_url(step, codec)
    if not weights_exist(codec.model_copy(update={"weights": url})):
        return False
    try:
        found = json.loads(artifacts.read_bytes(artifacts.join(url, IDENTITY)))
    except FileNotFoundError:
        found = None
    if found is not None and found != _identity(step, codec.preprocess):
        raise JobError.one(
            f"{step.name}.to",
            url,
            "holds weights trained with other settings.",
            "name a new folder, or remove the old one",
        )
    return found is not None


@dataclass(frozen=True, slots=True)
class Usable:
    """How many pictures are trained on, and how many could not be read."""

    images: int
    left_out: int


@dataclass(frozen=True)
class TrainTask:
    """All of training, as one picklable task. Calling it yields how many pictures are usable, then the loss as it goes."""

    step: TrainStep
    preprocess: Preprocess
    splits: WorkSplits
    rows: int
    url: str

    def __call__(self, device: str) -> "Iterator[Usable | TrainPoint]":
        from stages.train import Trainer  # torch, on the worker only

        with TemporaryDirectory(prefix="latentmill-train-") as folder:
            images = self._images(Path(folder) / "images.npy")
            yield Usable(len(images), self.rows - len(images))
            trainer = Trainer(self.step, self.preprocess, device=device)
            yield from trainer.run(images, load=self._load, save=self._save)

    def _images(self, path: Path) -> npt.NDArray[np.uint8]:
        """Every usable picture, uint8 (n, height, width, 3), on disk: training memory does not grow with n."""
        height, width = self.preprocess.size
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (self.rows, height, width, 3))
        n = 0
        for index in range(len(self.splits)):
            for batch in self.splits.read(index):
                good = batch.filter(pc.is_null(batch.column("error"))).column("pixels")
                pixels = good.flatten().to_numpy().reshape(-1, height, width, 3)
                images[n : n + len(pixels)] = pixels
                n += len(pixels)
        if not n:
            raise TrainingError(
                f"none of {self.rows} images could be read; run `latentmill plan` and look at the source."
            )
        return images[:n]

    def _load(self, name: str) -> bytes | None:
        try:
            return artifacts.read_bytes(artifacts.join(self.url, name))
        except FileNotFoundError:
            return None

    def _save(self, name: str, data: bytes) -> None:
        artifacts.write_bytes(artifacts.join(self.url, name), data)


def _choose(listing: Listing, most: int | None) -> npt.NDArray[np.bool_]:
    """The `most` images with the smallest hash of their id."""
    keep = listing.tally.status == Status.NEW
    if most is not None and listing.rows > most:
        ids = (i for _, batch in listing.batches() for i in batch.column("id").to_pylist())
        order = np.fromiter((fraction_of(i, "train") for i in ids), np.float64, listing.rows)
        keep &= order <= np.partition(order, most - 1)[most - 1]
    return np.asarray(keep, np.bool_)


def _identity(step: TrainStep, preprocess: Preprocess) -> dict[str, str]:
    return {
        "settings": fingerprint({"step": step.model_copy(update={"name": None, "to": None}), "preprocess": preprocess})
    }
