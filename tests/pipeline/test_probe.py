"""`latentmill probe`: the sheet shows the decoded strengths, and a verdict is a direction that steps can use, or cannot."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.codec import CodecRef
from pipeline.probe import Probe, Verdict, record_verdict, write_sheet
from pipeline.readers import open_dataset
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from stages.codecs.factory import open_codec
from tests.jobs import job_data, make_images


@pytest.fixture
def done(tmp_path: Path) -> Path:
    make_images(tmp_path, 30)
    steps = [{"stage": "encode"}, {"stage": "fit", "attributes": ["bright", "round"]}]
    run_job(parse_job(job_data(tmp_path, tmp_path / "store", steps=steps)), report=lambda event: None)
    return tmp_path


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    table = Store.open(str(folder / "store")).directions()
    return {row["name"]: row for batch in table.scan() for row in batch.to_pylist()}


def probe(folder: Path, **fields: Any) -> Probe:
    return Probe(str(folder / "store"), {}, None, **{"direction": "bright", "rows": 2} | fields)


def test_the_sheet_holds_the_decoded_strengths(done: Path) -> None:
    ids = write_sheet(probe(done, strengths=(-2.0, 0.0, 2.0)), str(done / "sheet.png"))
    sheet = cv2.cvtColor(cv2.imread(str(done / "sheet.png")), cv2.COLOR_BGR2RGB)
    view, row = open_dataset(str(done / "store"), {}, None), stored(done)["bright"]
    latents = np.array(view.table.take(ids, ["latent"]).column("latent").to_pylist())
    codec = open_codec(view.codec_spec(), CodecRef.resolve(view.codec_spec()).load(), device="cpu")
    for r, latent in enumerate(latents):
        for c, strength in enumerate((-2.0, 0.0, 2.0)):
            code = torch.tensor(latent + strength * row["sigma"] * np.array(row["vector"]), dtype=torch.float32)
            expected = codec.decode(code.reshape(1, *codec.latent.shape))[0].numpy()
            top, left = r * (16 + 2), c * (16 + 2)
            assert np.abs(sheet[top : top + 16, left : left + 16].astype(int) - expected).max() <= 1
    assert ids == write_sheet(probe(done), str(done / "sheet.html"))
    page = (done / "sheet.html").read_text()
    assert page.count("<img") == 2 * (5 + 1) and "--verdict keep" in page and "held-out AUC" in page


def test_verdicts_are_directions_of_their_own(done: Path) -> None:
    before = stored(done)
    record_verdict(probe(done), Verdict("keep", note="lights up", by="Anna"))
    record_verdict(probe(done), Verdict("rename", name="sunny"))
    record_verdict(probe(done, direction="round"), Verdict("reject", note="also changes colour"))
    after = stored(done)
    assert {name: after[name] for name in before} == before
    kept, renamed, rejected = after["manual.bright"], after["sunny"], after["manual.round"]
    assert (kept["estimator"], kept["status"], kept["attributes"]) == ("manual", "ok", ["bright"])
    assert kept["message"] == "bright kept by Anna: lights up"
    assert kept["vector"] == before["bright"]["vector"] and kept["auc"] == before["bright"]["auc"]
    # Its figures were measured on another attribute's labels.
    assert (renamed["attribute"], renamed["auc"], renamed["sigma"]) == ("sunny", None, before["bright"]["sigma"])
    assert (rejected["status"], rejected["vector"], rejected["sigma"]) == ("rejected", None, None)
    assert rejected["message"] == "round rejected: also changes colour"
    walk = [{"stage": "traverse", "directions": ["sunny"]}, {"stage": "render", "to": str(done / "out")}]
    run_job(parse_job(job_data(done, done / "store", steps=walk)), report=lambda event: None)
    walk[0]["directions"] = ["manual.round"]
    with pytest.raises(JobError, match="rejected"):
        run_job(parse_job(job_data(done, done / "store", steps=walk)), report=lambda event: None)


def test_a_second_verdict_replaces_the_first(done: Path) -> None:
    record_verdict(probe(done), Verdict("keep"))
    record_verdict(probe(done), Verdict("reject", note="on second thoughts"))
    found = stored(done)
    assert found["manual.bright"]["status"] == "rejected" and len(found) == 3


def test_the_command_writes_and_records(done: Path) -> None:
    asked = ["probe", "bright", "--store", str(done / "store"), "--to", str(done / "s.png"), "--strengths=-1,1"]
    result = CliRunner().invoke(app, [*asked, "--verdict", "rename", "--as", "sunny", "--by", "Bo", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)[0]
    assert told == {
        "sheet": str(done / "s.png"), "images": 6, "name": "sunny", "status": "ok", "message": "bright renamed by Bo",
    }  # fmt: skip
    assert stored(done)["sunny"]["estimator"] == "manual"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"direction": "brigth"}, "did you mean `bright`"),
        ({"verdict": Verdict("rename")}, "new name is missing"),
        ({"verdict": Verdict("rename", name="round")}, "is a direction of estimator ols"),
        ({"verdict": Verdict("keep", name="../up")}, "letters, digits"),
        ({"to": "sheet.gif"}, "end it with .png or .html"),
        ({"to": "sheet.png", "where": "width > 9999"}, "no row is left"),
    ],
)
def test_what_cannot_be_probed_is_told(done: Path, fields: dict[str, Any], said: str) -> None:
    verdict, to = fields.pop("verdict", Verdict("keep")), fields.pop("to", None)
    with pytest.raises(JobError, match=said):
        if to:
            write_sheet(probe(done, **fields), str(done / to))
        record_verdict(probe(done, **fields), verdict)
    assert set(stored(done)) == {"bright", "round"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--verdict", "maybe"], "keep, reject, rename"),
        (["--strengths=a,b"], "are not numbers"),
        (["--strengths=1,inf"], "not finite"),
        (["--unit", "effect"], "sigma or latent"),
        (["--note", "nice"], "add --verdict keep"),
    ],
)
def test_a_wrong_command_line_is_told(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["probe", "bright", "--store", str(tmp_path / "store"), *arguments])
    assert isinstance(result.exception, JobError) and said in str(result.exception)
