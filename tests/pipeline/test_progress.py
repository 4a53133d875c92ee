"""stdout is for results: what a library prints there during a run does not get between."""

import io

import pytest
from rich.console import Console

from pipeline.progress import _Bars, show_progress, stdout_for_results
from schemas.events import Notice, Progress, RunFinished, StepFinished, StepStarted


def test_what_others_print_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with stdout_for_results():
        print("a node died")
        print("(raylet) WARNING: 8 PYTHON worker processes have been started on node: a")
    print("result")
    told = capsys.readouterr()
    assert told.out == "result\n"
    assert told.err == "a node died\n"


def test_plain_lines_tell_what_was_read_computed_and_committed(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as report:
        report(StepStarted(step="encode", stage="encode", total=10, already=2))
        report(Progress(step="encode", read=5, computed=4, committed=3, failed=1, total=10))
        report(Notice(message="look here"))
        report(StepFinished(step="encode", stage="encode", seconds=1.25))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "encode: 10 to do, 2 done before"
    assert lines[-2:] == ["warning: look here", "encode: done in 1.2 s"]


def test_json_events_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    event = Progress(step="encode", read=5, computed=4, committed=3, failed=1, total=10)
    with show_progress("json") as report:
        report(event)
    assert Progress.model_validate_json(capsys.readouterr().err) == event


def test_bars_tell_what_was_computed_and_end_full() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, color_system=None)
    with _Bars(console) as bars:
        bars(StepStarted(step="encode", stage="encode", total=2000, already=7))
        bars(StepStarted(step="index", stage="index", total=None))
        bars(Progress(step="encode", read=900, computed=800, committed=700, failed=3, total=2000, note="loss 0.5"))
        bars(Notice(message="look [here]"))
        bars(Progress(step="encode", read=1500, computed=1500, committed=1500, total=2000))
        bars(StepFinished(step="encode", stage="encode", seconds=1.25))
        bars(StepFinished(step="index", stage="index", seconds=0.5))
        bars(StepFinished(step="never started", stage="fit", seconds=0.5))
        bars(RunFinished(run_id="r", state="done", seconds=2))
        assert all(task.finished for task in bars._progress.tasks)
    shown = screen.getvalue()
    assert "! look [here]" in shown
    encode, index = ([line for line in shown.splitlines() if name in line][-1] for name in ("encode", "index"))
    assert "✓" in encode and "1,500 of 2,000" in encode and "computed 1,500" in encode
    assert "✓" in index and "0 of ?" in index
