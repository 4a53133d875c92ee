"""stdout is for results: what a library prints there during a run does not get between."""

import pytest

from pipeline.progress import show_progress, stdout_for_results
from schemas.events import Notice, Progress, StepFinished, StepStarted


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
