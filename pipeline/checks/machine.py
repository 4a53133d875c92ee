"""What a job asks of this machine: places that it may write to, and a GPU where it is to compute here. Touches nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline import artifacts
from pipeline.codec import weights_url
from schemas.errors import JobError, Problem
from schemas.job import Job
from schemas.steps import RenderStep, ReportStep, TrainStep


def check_places(job: Job) -> Iterator[Problem]:
    """Local folders and files that a run would write: what stands in the way now would end it at its last step."""
    yield from place_problems("store", job.store, folder=True)
    for i, step in enumerate(job.steps):
        at = f"steps.{i} ({step.stage}).to"
        match step:
            case RenderStep():
                yield from place_problems(at, step.to, folder=True)
            case ReportStep():
                yield from place_problems(at, step.to, folder=False)
            case TrainStep() if url := step.to or weights_url(job.codec):
                yield from place_problems(at if step.to else "codec.weights", url, folder=True)
            case _:
                pass


def refuse_place(field: str, url: str) -> None:
    """Raises JobError where a command could not write its file at `url`: before it works for it, and in words."""
    if problems := list(place_problems(field, url, folder=False)):
        raise JobError(problems)


def place_problems(field: str, url: str, *, folder: bool) -> Iterator[Problem]:
    """What stands in the way of writing a folder, or a file, at `url`; nothing is known of places that are not local."""
    if not artifacts.is_local(url):
        return
    path = artifacts.local_path(url).absolute()
    if not folder and path.is_dir():
        fix = f"end it with a name: {url.rstrip('/')}/page.html"
        yield Problem(field, url, "is a folder, and a file is written.", fix)
        return
    there = _nearest(path if folder else path.parent)
    if not there.is_dir():
        yield Problem(field, url, f"{there} is a file, and a folder is needed there.", "choose another path")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Problem(field, url, f"{there} may not be written to.", "choose another path, or ask for the permission")


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def check_device(job: Job) -> Iterator[Problem]:
    """A GPU that a local run is to compute on. Of Ray's workers nothing is known here."""
    device = job.executor.device
    if job.executor.kind != "local" or not device.startswith("cuda"):
        return
    import torch  # only for jobs that name a GPU

    number = int(device.partition(":")[2] or 0)
    if number < torch.cuda.device_count():
        return
    reason = f"torch sees {torch.cuda.device_count()} GPUs on this machine; the first is number 0."
    yield Problem("executor.device", device, reason, "use auto or cpu; `latentmill doctor` says what torch sees")
