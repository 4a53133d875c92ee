"""README's one line a file says what the file itself says first; `make golden` renews it."""

import ast
from collections.abc import Callable
from pathlib import Path

START, END = "<!-- files -->", "<!-- /files -->"
FOLDERS = ("schemas", "stages", "pipeline", "examples", "benchmarks")


def first_line(path: Path) -> str:
    """The first line of a module's docstring; every file that holds code has one."""
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert told, f"{path} does not say what it is for"
    return told.splitlines()[0]


def listed(root: Path) -> str:
    files = [p for folder in FOLDERS for p in sorted((root / folder).rglob("*.py")) if p.read_text().strip()]
    return "\n".join(f"- `{p.relative_to(root)}`: {first_line(p)}" for p in files)


def test_the_readme_has_a_line_a_file(root: Path, golden: Callable[[Path | str, str], None]) -> None:
    readme = root / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    golden(readme, f"{before}{START}\n\n{listed(root)}\n\n{END}{after}")
