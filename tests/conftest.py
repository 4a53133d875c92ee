"""What every test can use: the checkout, golden files, and hypothesis without deadlines on a shared machine."""

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# Examples are drawn from the test's own name: a failure here is a failure everywhere, and nothing depends on the clock.
settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write golden files and generated docs anew instead of comparing; review the diff",
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path | str, str], None]:
    """`golden(path, text)`: fails with a diff unless the file holds exactly `text`; `--update-golden` writes it.

    A relative path is below tests/golden.
    """

    def check(path: Path | str, text: str) -> None:
        file = Path(__file__).parent / "golden" / path
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        held = file.read_text(encoding="utf-8") if file.exists() else ""
        diff = "\n".join(difflib.unified_diff(held.splitlines(), text.splitlines(), str(file), "now", lineterm="", n=1))
        assert held == text, f"{file} is not current; `make golden` renews it, if the change is meant.\n{diff[:4000]}"

    return check
