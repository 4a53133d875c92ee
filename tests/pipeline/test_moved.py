"""How far codes really moved: stored beside what was asked, in tables of older versions too, and shown where they differ."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.executors.local import LocalExecutor
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from schemas.tables import RENDERS
from tests.jobs import job_data, make_images

BENT = {
    "family": "custom",
    "entry": "tests.saturating_codec:SaturatingCodec",
    "preprocess": {"size": 16},
    "options": {"dim": 3},
}
FIRST = [{"stage": "encode"}, {"stage": "fit", "attributes": ["bright", "round"]}]
WALK = {"stage": "traverse", "directions": ["bright"], "strengths": [-9, 0, 0.1], "limit": 6}


def run(folder: Path, *steps: dict[str, Any], layout: str = "strip", **changes: Any) -> RunResult:
    tail = [
        {"stage": "render", "to": str(folder / "out"), "layout": layout},
        {"stage": "report", "to": str(folder / "page.html")},
    ]
    job = parse_job(job_data(folder, folder / "store", steps=[*FIRST, *steps, *tail], **changes))
    return run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=1)))


def renders(folder: Path) -> list[dict[str, Any]]:
    table = Store.open(str(folder / "store")).renders("shapes")
    return [r for batch in table.scan() for r in batch.to_pylist()]


def sigma(row: dict[str, Any]) -> float:
    return float(json.loads(row["operation"])["sigma"])


def test_a_clipped_code_says_how_far_it_went_in_the_table_and_on_the_page(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    run(tmp_path, {**WALK, "trust": {"by": "mahalanobis", "covariance": "diagonal"}}, {"stage": "sample", "count": 2})
    walked = [row for row in renders(tmp_path) if row["unit"] == "sigma"]
    reached = []
    for row in walked:
        assert row["strengths"] == [-9, 0, 0.1] and row["flags"] == ["clipped"]
        far, none, near = row["moved"]
        assert none == 0 and near == pytest.approx(0.1 * sigma(row)) and 0 < far < 0.8 * 9 * sigma(row)
        reached.append(far / sigma(row))
    assert {row["moved"] for row in renders(tmp_path) if row["unit"] == "psi"} == {None}
    captions = re.findall(r"<small>at (−[\d.]+)σ</small>", (tmp_path / "page.html").read_text())
    assert captions and set(captions) <= {f"−{r:.3g}" for r in reached}


def test_a_grid_holds_what_every_code_moved(tmp_path: Path) -> None:
    make_images(tmp_path, 20)
    run(tmp_path, {**WALK, "strengths": [-1, 0.5]}, layout="grid")
    (row,) = renders(tmp_path)
    assert row["moved"] == pytest.approx([1.0 * sigma(row), 0.5 * sigma(row)] * 6)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_of_an_older_version_gets_the_column_and_keeps_its_rows(tmp_path: Path, rows: int) -> None:
    make_images(tmp_path, 20)
    older = pa.schema([field for field in RENDERS if field.name != "moved"])
    table = Store.open(str(tmp_path / "store")).renders("shapes")
    table.create(older)
    if rows:
        values = {f.name: [] if pa.types.is_list(f.type) else "old" for f in older} | {"at": 0, "content_hash": None}
        table.upsert(pa.Table.from_pylist([values], older))
    run(tmp_path, WALK)
    assert table.schema.field("moved").equals(RENDERS.field("moved"), check_metadata=True)
    moved = {row["id"]: row["moved"] for row in renders(tmp_path)}
    assert len(moved) == rows + 6 and moved.pop("old", None) is None
    assert all(len(found) == 3 and found[0] > 0 for found in moved.values())
    assert run(tmp_path, WALK).steps["render"]["codes"] == 0, "nothing is drawn again for the column's sake"


def test_effects_are_solved_row_by_row_from_the_job_to_the_page(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    walk = {**WALK, "unit": "effect", "calibrate": "row", "strengths": [0, 0.5, 500]}
    run(tmp_path, walk, codec=BENT, allow_code=True)
    found = renders(tmp_path)
    assert [row["flags"] for row in found] == [["effect_unreached"]] * 6 and {r["status"] for r in found} == {"done"}
    assert json.loads(found[0]["operation"])["calibrate"] == "row"
    lengths = np.array([row["moved"] for row in found])
    assert (lengths[:, 0] == 0).all() and np.ptp(lengths[:, 1]) > 0.02 * lengths[:, 1].mean()
    page = (tmp_path / "page.html").read_text()
    assert "each picture by the length that shows it" in page and "<small>moved 0</small>" in page
    # Each strip has a code that cannot be reached, and says it once; the code itself says it too.
    assert page.count("effect unreached") == 6 <= page.count("<small>not reached, moved ") <= 12
    assert run(tmp_path, walk, codec=BENT, allow_code=True).steps["render"]["codes"] == 0
