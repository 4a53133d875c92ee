"""Who may import whom (design §3), how long a file may be, and which names no module may have. Read from the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("schemas", "stages", "pipeline")
MODULES = sorted(p.relative_to(ROOT).as_posix() for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))
SCHEMAS_MAY_IMPORT = {"pydantic", "pydantic_core", "pyarrow"}
STAGES_MAY_NOT_IMPORT = {"ray", "lance", "lancedb", "fsspec", "s3fs", "typer", "rich"}
CONFINED = {
    "ray": ("pipeline/executors/ray.py",),
    "lance": ("pipeline/store/",),
    "lancedb": ("pipeline/store/",),
    "fsspec": ("pipeline/sources/", "pipeline/artifacts.py"),
    "typer": ("pipeline/cli.py", "pipeline/commands/"),
}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
MAX_LINES = 500
MAX_FUNCTION_LINES = 80


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in the file, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def violations(path: str, source: str) -> list[str]:
    """What the file at `path` imports against the rule."""
    layer = path.split("/")[0]
    wrong = []
    for module in imports(ast.parse(source)):
        top = module.split(".")[0]
        if top in LAYERS and LAYERS.index(top) > LAYERS.index(layer):
            wrong.append(f"{layer} imports {module}: the arrow is schemas ← stages ← pipeline")
        if layer == "schemas" and top not in SCHEMAS_MAY_IMPORT | {"schemas"} | sys.stdlib_module_names:
            wrong.append(f"schemas imports {module}: only pydantic, pyarrow and the standard library")
        if layer == "stages" and top in STAGES_MAY_NOT_IMPORT:
            wrong.append(f"stages import {module}: a stage knows no cluster, no store, no bucket")
        if top in CONFINED and not path.startswith(CONFINED[top]):
            wrong.append(f"{module} is imported outside {', '.join(CONFINED[top])}")
        if top in ("examples", "benchmarks", "tests"):
            wrong.append(f"the application imports {module}")
    return wrong


@pytest.mark.parametrize("path", MODULES)
def test_imports_follow_the_layers(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("schemas/job.py", "import stages.encode"),
        ("schemas/job.py", "def f():\n    from pipeline import run"),
        ("schemas/job.py", "import numpy"),
        ("schemas/job.py", "import torch"),
        ("stages/encode.py", "from pipeline.artifacts import join"),
        ("stages/encode.py", "import fsspec.core"),
        ("stages/encode.py", "from ray.data import Dataset"),
        ("pipeline/run.py", "import ray"),
        ("pipeline/run.py", "if TYPE_CHECKING:\n    import lance"),
        ("pipeline/executors/ray.py", "import lancedb"),
        ("pipeline/run.py", "import fsspec"),
        ("pipeline/show.py", "import typer"),
        ("pipeline/run.py", "import importlib\nimportlib.import_module('ray')"),
        ("pipeline/demo.py", "from examples.faces import render_face"),
    ],
)
def test_the_rule_catches(path: str, source: str) -> None:
    assert len(violations(path, source)) >= 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("schemas/job.py", "import json, pydantic, pyarrow as pa\nfrom schemas.base import Spec"),
        ("stages/encode.py", "import torch, numpy\nfrom schemas.tables import FAILURES"),
        ("pipeline/executors/ray.py", "import ray.data"),
        ("pipeline/store/tables.py", "import lance, lancedb"),
        ("pipeline/sources/files.py", "import fsspec"),
        ("pipeline/commands/jobs.py", "import typer"),
    ],
)
def test_the_rule_allows(path: str, source: str) -> None:
    assert violations(path, source) == []


@pytest.mark.parametrize("path", MODULES)
def test_no_file_is_too_long(path: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES)
def test_every_module_says_what_it_is_for(path: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), "a module opens with its purpose and its invariant"


def test_no_module_is_a_drawer_for_everything() -> None:
    parts = {part for path in MODULES for part in path.removesuffix(".py").split("/")}
    assert not parts & FORBIDDEN_NAMES


def test_nothing_is_skipped_or_left_to_do() -> None:
    words = (
        "raise NotImplementedError",
        "TO" + "DO",
        "FIX" + "ME",
        "pytest.mark." + "skip",
        "pytest.mark." + "xfail",
        "pytest." + "skip(",
    )
    folders = (*LAYERS, "tests", "examples", "benchmarks")
    files = [p for folder in folders for p in (ROOT / folder).rglob("*.py") if p != Path(__file__)]
    found = [(p.name, word) for p in files for word in words if word in p.read_text(encoding="utf-8")]
    assert found == []


def test_bare_exceptions_are_not_caught() -> None:
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                reraises = any(isinstance(n, ast.Raise) and n.exc is None for n in ast.walk(node))
                if caught in ("", "Exception", "BaseException") and not reraises:
                    found.append(f"{path}:{node.lineno}")
    assert found == []
