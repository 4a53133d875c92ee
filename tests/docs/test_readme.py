"""What the README says is run: its commands in order, its job file validated, its links followed, its tables held against the code."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from schemas.job import parse_job
from tests.commands import latentmill

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/decisions/README.md",
    "docs/scale.md",
    "docs/measures.md",
    "deploy/README.md",
    "docs/job.md",
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = [line.split(" #")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line]


def make_targets(root: Path) -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.slow
def test_every_command_of_the_readme_works(root: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(root / "examples")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for command in commands(root / "README.md"):
        words = shlex.split(command)
        if words[0] == "make":
            assert set(words[1:]) <= make_targets(root)
            continue
        if words[0] == "latentmill" and words[1] not in ("validate", "run"):
            done = latentmill(*words[1:], cwd=tmp_path)
        else:  # as a user starts it: a process costs seconds, so some do for all
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 10
    assert (tmp_path / "out/digits/alike.html").stat().st_size > 5_000
    assert (tmp_path / "out/digits/again.html").stat().st_size > 5_000


def test_the_make_targets_of_every_page_exist(root: Path) -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for command in commands(root / page):
            if command.startswith("make "):
                named = {word for word in command.split()[1:] if "=" not in word}
                assert named <= make_targets(root), command


def test_the_job_of_the_readme_is_valid(root: Path) -> None:
    (text,) = blocks(root / "README.md", "yaml")
    assert len(parse_job(yaml.safe_load(text)).steps) == 8


def test_every_command_is_in_the_readme(root: Path) -> None:
    from pipeline.cli import app

    known = {c.name or str(c.callback.__name__) for c in app.registered_commands if c.callback}
    told = set(re.findall(r"^\| `latentmill ([a-z]+)", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert told == known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str, root: Path) -> None:
    file = root / page
    for link in re.findall(r"\]\(([^)]+)\)", file.read_text(encoding="utf-8")):
        if not link.startswith(("http", "#")):
            assert (file.parent / link.split("#")[0]).exists(), link


def test_every_decision_is_listed(root: Path) -> None:
    folder = root / "docs" / "decisions"
    listed = set(re.findall(r"\]\((\d{3}-[a-z-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {p.name for p in folder.glob("[0-9]*.md")}


def test_folders_of_the_readme_exist(root: Path) -> None:
    named = re.findall(r"^\| `([a-z/.]+)` \|", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(named) >= 10
    assert all((root / name).exists() for name in named)


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_prose_are_not_endless(page: str, root: Path) -> None:
    lines = (root / page).read_text(encoding="utf-8").splitlines()
    assert [line[:60] for line in lines if len(line) > 150 and not line.startswith(("|", "- `"))] == []


def test_the_slopes_of_the_scale_page_are_those_measured_last(root: Path) -> None:
    """A rate that was measured here stands in the newest result of some benchmark."""
    newest = {
        p.name.split("-", 3)[3]: p.read_text(encoding="utf-8")
        for p in sorted((root / "benchmarks/results").glob("2*.md"))
    }
    told = re.findall(r"\*measured\*, 2 cores: ([\d,]+) /s", (root / "docs/scale.md").read_text(encoding="utf-8"))
    assert len(told) == 2
    for rate in told:
        assert any(f"{rate}/s" in text for text in newest.values()), rate
