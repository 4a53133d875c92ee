"""The demo: example faces, then examples/faces.yaml exactly as `latentmill run` would run it, below a folder of your choice.

Needs a checkout, for the examples are not part of the installed package. Running it again goes on where it was.
"""

import subprocess
import sys
from pathlib import Path

from pipeline.job_file import load_job
from pipeline.progress import Style, show_progress
from pipeline.run import RunResult, run_job
from schemas.errors import JobError, LatentmillError
from schemas.events import Notice

EXAMPLES = Path(__file__).parent.parent / "examples"
FACES = 1500
FACES_SMALL = 240
BROKEN_SHARE = 1 / 300  # a handful, so the report shows what failures look like
PLACES = {
    "store": "store",
    "source.images": "faces/images/*.jpg",
    "source.labels": "faces/labels.csv",
    "codec.weights": "codec",
    "steps.render.to": "renders",
    "steps.report.to": "report.html",
}
"""Fields of examples/faces.yaml that name a place below `./out/demo`."""
SMALL = ("steps.train.steps=60", "steps.smile.limit=2", "steps.spectacles.limit=2")


def demo(*, out: Path, small: bool = False, style: Style = "auto") -> RunResult:
    """Makes the faces below `out` and runs the job on them. `small`: fewer faces, and too little training to look good.

    Raises JobError outside a checkout, and whatever the run raises.
    """
    job_file = EXAMPLES / "faces.yaml"
    if not job_file.exists():
        raise JobError.one(
            "demo", str(EXAMPLES), "the examples are not there.", "run the demo in a checkout: make demo"
        )
    overrides = [f"{field}={(out / place).as_posix()}" for field, place in PLACES.items()]
    job, given = load_job(job_file, overrides=[*overrides, *(SMALL if small else ())])
    with show_progress(style) as report:
        report(Notice(level="info", message=_make_faces(out / "faces", count=FACES_SMALL if small else FACES)))
        return run_job(job, report=report, given=given)


def _make_faces(folder: Path, *, count: int) -> str:
    """What examples/faces.py says it made. It runs as its own program, as a user would run it."""
    command = [sys.executable, str(EXAMPLES / "faces.py"), "--out", str(folder), "--count", str(count)]
    done = subprocess.run([*command, "--broken-share", str(BROKEN_SHARE)], capture_output=True, text=True)
    if done.returncode:
        raise LatentmillError(f"examples/faces.py failed: {done.stderr.strip()}")
    return done.stdout.strip()
