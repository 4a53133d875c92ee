"""How a run shows itself: bars on a terminal, plain lines elsewhere, JSON events for programs. Always on stderr.

Plain lines come at most every few seconds, so a log of an hour stays readable.
"""

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from schemas.events import Event, Notice, RunFinished, StepFinished, StepStarted
from schemas.events import Progress as ProgressEvent

Style = Literal["auto", "json", "quiet"]
PLAIN_EVERY = 5.0


@contextmanager
def show_progress(style: Style = "auto") -> Iterator[Callable[[Event], None]]:
    """A function that takes events and shows them, for as long as the context lasts."""
    if style == "quiet":
        yield lambda event: None
    elif style == "json":
        yield _print_json
    elif sys.stderr.isatty():
        with _Bars() as bars:
            yield bars
    else:
        yield _Lines()


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Keeps stdout for results while a run goes on: what libraries print there (Ray's raylet does) goes to stderr."""
    with redirect_stdout(_Others()):
        yield


class _Others(io.TextIOBase):
    """Passes text on to stderr, but for what Ray says of a pool of workers that is as large as it should be."""

    def write(self, text: str) -> int:
        if "worker processes have been started" not in text and text.strip():
            sys.stderr.write(text.rstrip("\n") + "\n")
        return len(text)


def _print_json(event: Event) -> None:
    sys.stderr.write(event.model_dump_json() + "\n")
    sys.stderr.flush()


class _Rate:
    """Rows a second of one step, and what is left."""

    def __init__(self, total: int | None) -> None:
        self.started = time.monotonic()
        self.total = total

    def text(self, event: ProgressEvent) -> str:
        spent = max(time.monotonic() - self.started, 1e-9)
        rate = event.computed / spent
        parts = [f"read {event.read:,}"] if event.read > event.computed else []
        parts.append(f"computed {event.computed:,}")
        if event.committed != event.computed:
            parts.append(f"committed {event.committed:,}")
        if event.failed:
            parts.append(f"failed {event.failed:,}")
        parts.append(f"{rate:,.0f}/s")
        if self.total and rate:
            parts.append(f"{max(self.total - event.computed, 0) / rate:,.0f} s left")
        return ", ".join(parts) + (f", {event.note}" if event.note else "")


class _Bars:
    """Rich bars, one a step."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[done]:>7,} of {task.fields[all]}"),
            TextColumn("[dim]{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._rates: dict[str, _Rate] = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case StepStarted():
                shown = "?" if event.total is None else f"{event.total:,}"
                detail = f"{event.already:,} done before" if event.already else ""
                task = self._progress.add_task(event.step, total=event.total, done=0, all=shown, detail=detail)
                self._tasks[event.step] = task
                self._rates[event.step] = _Rate(event.total)
            case ProgressEvent():
                detail = self._rates[event.step].text(event)
                self._progress.update(
                    self._tasks[event.step], completed=event.computed, done=event.computed, detail=detail
                )
            case StepFinished() if event.step in self._tasks:
                bar = next(t for t in self._progress.tasks if t.id == self._tasks[event.step])
                total = bar.total or 1
                self._progress.update(bar.id, total=total, completed=total)
            case Notice():
                mark = "[yellow]![/]" if event.level == "warning" else "[blue]·[/]"
                self._progress.console.print(f"{mark} {escape(event.message)}", highlight=False)
            case RunFinished() | StepFinished():
                pass


class _Lines:
    """One line when a step starts and ends, and one now and then between."""

    def __init__(self) -> None:
        self._rates: dict[str, _Rate] = {}
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case StepStarted():
                self._rates[event.step] = _Rate(event.total)
                total = "" if event.total is None else f"{event.total:,} to do"
                already = f", {event.already:,} done before" if event.already else ""
                self._say(f"{event.step}: {total}{already}")
            case ProgressEvent() if time.monotonic() - self._last >= PLAIN_EVERY:
                self._say(f"{event.step}: {self._rates[event.step].text(event)}")
            case StepFinished():
                self._say(f"{event.step}: done in {event.seconds:.1f} s")
            case Notice():
                self._say(f"{event.level}: {event.message}")
            case ProgressEvent() | RunFinished():
                pass

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
