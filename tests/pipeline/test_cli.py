"""The command line as a user meets it: exit codes, JSON on stdout, messages on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import latentmill
from tests.jobs import image_id, job_data, make_images, spoil


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "LATENTMILL_STORE"} | {"COLUMNS": "200"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def write_job(folder: Path, **changes: Any) -> str:
    data = job_data(Path(), "out/store", **changes)
    (folder / "job.yaml").write_text(yaml.safe_dump(data))
    return "job.yaml"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a job has run: encode, index, fit."""
    folder = make_images(tmp_path_factory.mktemp("cli"), 40)
    spoil(folder, 10)
    steps = [
        {"stage": "encode"},
        {"stage": "index"},
        {"stage": "fit", "attributes": ["bright", "round"], "bootstrap": 20},
    ]
    result = process("run", write_job(folder, steps=steps), "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["steps"]["encode"]["in_latents"] == 36
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert [e["event"] for e in events][-1] == "run_finished"
    assert {"step_started", "progress", "step_finished"} <= {e["event"] for e in events}
    return folder


def test_query_by_picture_and_by_id(done: Path) -> None:
    picture = done / "images" / image_id(6)
    by_picture = latentmill("query", "--image", str(picture), "-k", "5", "--json", cwd=done)
    rows = json.loads(by_picture.stdout)["rows"]
    assert next(r["id"] for r in rows) == image_id(6) and rows[0]["distance"] < 1e-6
    by_id = json.loads(latentmill("query", "--id", image_id(6), "-k", "4", "--json", cwd=done).stdout)["rows"]
    assert [r["id"] for r in by_id] == [r["id"] for r in rows][1:]
    where = latentmill("query", "--id", image_id(6), "--where", "labels.bright = true", "--json", cwd=done)
    found = json.loads(where.stdout)["rows"]
    assert found and all(r["labels"]["bright"] for r in found)


def test_query_as_a_table_and_as_a_gallery(done: Path) -> None:
    result = latentmill("query", "--id", image_id(6), "-k", "3", "--html", "hits.html", cwd=done)
    assert result.returncode == 0
    assert "distance" in result.stdout
    page = (done / "hits.html").read_text()
    assert page.count("data:image/webp") >= 4
    assert "http://" not in page and "https://" not in page


def test_lists_of_failures_directions_and_runs(done: Path) -> None:
    failures = json.loads(latentmill("failures", "--json", cwd=done).stdout)
    assert len(failures) == 4 and {f["error"] for f in failures} == {"zero_bytes", "not_an_image", "truncated"}
    one = json.loads(latentmill("failures", "--where", "error = 'truncated'", "--json", cwd=done).stdout)
    assert one and {f["error"] for f in one} == {"truncated"}
    directions = json.loads(latentmill("directions", "--json", cwd=done).stdout)
    assert [d["name"] for d in directions] == ["bright", "round"]
    assert all(d["status"] == "ok" and d["auc_low"] <= d["auc"] <= d["auc_high"] for d in directions)
    assert all(0 < d["angle_low"] <= d["angle"] <= d["angle_high"] <= 90 for d in directions)
    assert "off by" in latentmill("directions", cwd=done).stdout
    runs = json.loads(latentmill("runs", "--json", cwd=done).stdout)
    assert [r["state"] for r in runs] == ["done"]


def test_directions_without_a_vector_say_why_once(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.show import show_directions

    evidence = dict.fromkeys(("separation", "auc", "angle", "angle_status", "n_positive", "n"))
    rows = [
        {"name": f"a{i}", "estimator": "ols", "status": "constant", "message": "always the same", **evidence}
        for i in range(6)
    ]
    show_directions([*rows, {**rows[0], "name": "fine", "status": "ok", "n": 12}], as_json=False)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "a0, a1, a2, a3 and 2 more: constant: always the same"
    assert "12" in next(line for line in said if line.startswith("fine"))
    show_directions([{**rows[0], "status": "ok"}], as_json=False)
    assert "always" not in capsys.readouterr().out


def test_measurements_say_below_the_table_why_a_number_is_flagged(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.show import show_measurements

    plain = {"step": "diagnose", "subject": "", "target": "prior", "low": None, "high": None, "n": 9, "unit": ""}
    said = "3.6 nats from N(0, I) [here]; 0.8 are allowed"
    rows = [
        {**plain, "metric": "kl", "value": 3.6, "status": "not_prior", "message": said},
        {**plain, "metric": "norm", "value": 2.0, "status": "ok", "message": "said of a good number"},
    ]
    show_measurements(rows, as_json=False)
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"diagnose kl prior: {said}" and "said of a good number" not in out


def test_codes_of_failures_are_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.show import show_failures

    monkeypatch.setenv("COLUMNS", "80")
    row = {"id": "a/000005.png", "error": "unreadable_label", "message": "age = 'abc' is not of type int " * 3}
    row |= {"uri": "/long/path/" * 6 + "a/000005.png", "run_id": "20261120T201525-8ea2cf", "at": "2026-11-20 20:15:25"}
    show_failures([row], as_json=False)
    said = capsys.readouterr().out
    assert "unreadable_label" in said and "a/000005.png" in said
    show_failures([row], as_json=True)
    assert json.loads(capsys.readouterr().out) == [row]


def test_steps_are_told_in_the_right_number() -> None:
    from pipeline.summary_line import summary_line

    of = {"stage": "compose", "rows": 300}
    assert summary_line({**of, "directions": 1, "odd": {}}) == "1 direction from 300 rows"
    odd = {f"p.{i}": "no_rows" for i in range(9)}
    told = "0 directions from 300 rows, no_rows: p.0, p.1, p.2, p.3 and 5 more"
    assert summary_line({**of, "directions": 0, "odd": odd}) == told
    assert summary_line({"stage": "edit", "strips": 1, "frames": 2}) == "1 strip of 2 codes"


def test_power_tells_how_many_labels(done: Path) -> None:
    plan = json.loads(latentmill("power", "--attribute", "bright", "--json", cwd=done).stdout)
    assert (plan["status"], plan["rows"], plan["n_positive"] + plan["n_negative"]) == ("ok", 36, 36)
    assert plan["per_class"] >= 1 and plan["cosine_now"] > 0.5
    said = latentmill("power", "--attribute", "bright", "--target-cosine", "0.95", cwd=done).stdout
    assert "bright: cosine 0.95 needs" in said and "labels of each class" in said
    asked = ("power", "--attribute", "bright", "--estimator")
    plan = json.loads(latentmill(*asked, "ols", "--controls", "round", "--json", cwd=done).stdout)
    assert (plan["estimator"], plan["n_positive"] + plan["n_negative"]) == ("ols", 36)
    assert "lda: " in latentmill(*asked, "lda", cwd=done).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--attribute", "brigth"), "did you mean `bright`"),
        (("--attribute", "shade"), "is float, and two classes are needed"),
        (("--attribute", "bright", "--where", "labels.bright = true"), "0 without"),
        (("--attribute", "bright", "--target-cosine", "1"), "is not between 0 and 1"),
        (("--attribute", "bright", "--estimator", "class_means"), "the planner does not know it"),
        (("--attribute", "bright", "--controls", "round"), "mean_difference looks at no other attribute"),
        (("--attribute", "bright", "--estimator", "ols", "--controls", "rund"), "did you mean `round`"),
        (("--attribute", "bright", "--group", "nobody"), "--group = 'nobody': no such label"),
    ],
)
def test_power_says_what_cannot_be_planned(done: Path, arguments: tuple[str, ...], said: str) -> None:
    result = latentmill("power", *arguments, cwd=done)
    assert result.returncode == 2 and said in result.stderr


def test_power_names_the_controls_that_a_label_follows_from(tmp_path: Path) -> None:
    folder = make_images(tmp_path, 40)
    lines = (folder / "labels.csv").read_text().splitlines()
    same = [lines[0] + ",also", *(f"{line},{line.split(',')[1]}" for line in lines[1:])]
    (folder / "labels.csv").write_text("\n".join(same) + "\n")
    assert latentmill("run", write_job(folder), cwd=folder).returncode == 0
    said = latentmill("power", "--attribute", "bright", "--estimator", "ols", cwd=folder).stdout
    assert "collinear" in said and "follow from those of also, round; name fewer with --controls" in said


def test_plan_and_validate(done: Path) -> None:
    plan = json.loads(latentmill("plan", "job.yaml", "--json", cwd=done).stdout)
    assert (plan["listed"], plan["steps"][0]["todo"]) == (40, 0)
    assert latentmill("validate", "job.yaml", cwd=done).returncode == 0


def test_exit_code_2_tells_field_value_and_fix(done: Path) -> None:
    result = process("run", "job.yaml", "--set", "steps.encode.batch_sise=3", cwd=done)
    assert result.returncode == 2
    assert "batch_sise" in result.stderr and "batch_size" in result.stderr
    assert "Traceback" not in result.stderr
    assert latentmill("run", "absent.yaml", cwd=done).returncode == 2
    assert latentmill("query", "--id", "absent", cwd=done).returncode == 2
    assert latentmill("query", cwd=done).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "job.yaml", "--set", "source.images=[1"), "--set source.images"),
        (("query", "--image", "images"), "--image = 'images': cannot be read: Is a directory"),
        (("query", "--image", "x" * 300), "cannot be read: File name too long"),
        (("query", "--image", "absent.png"), "there is no such file"),
        (("query", "--id", image_id(6), "--html", "images"), "--html = 'images': is a folder, and a file is written"),
        (("report", "job.yaml", "--to", "images"), "--to = 'images': is a folder, and a file is written"),
        (("report", "job.yaml", "--to", "labels.csv/x.html"), "labels.csv is a file, and a folder is needed there"),
        (("probe", "bright", "--to", "labels.csv/x.png"), "labels.csv is a file, and a folder is needed there"),
    ],
)
def test_what_cannot_be_read_is_a_message(done: Path, arguments: tuple[str, ...], said: str) -> None:
    result = latentmill(*arguments, cwd=done)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False), result.stderr
    assert said in result.stderr and "Fix:" in result.stderr


def test_exit_code_3_when_too_many_failed(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    spoil(tmp_path, 3)
    result = latentmill("run", write_job(tmp_path, max_failures=2), cwd=tmp_path)
    assert result.returncode == 3
    assert "4 of 12 images failed" in result.stderr


def test_exit_code_1_when_the_store_is_missing(tmp_path: Path) -> None:
    result = latentmill("runs", "--store", "nowhere", cwd=tmp_path)
    assert result.returncode == 1
    assert "nowhere" in result.stderr and "Traceback" not in result.stderr


def test_report_is_drawn_again(done: Path) -> None:
    result = latentmill("report", "job.yaml", "--to", "again.html", cwd=done)
    assert result.returncode == 0, result.stderr
    page = (done / "again.html").read_text()
    assert all(f'id="{section}"' in page for section in ("directions", "failures")), page[:2000]


def test_doctor_and_schema(tmp_path: Path) -> None:
    checks = json.loads(latentmill("doctor", "--json", cwd=tmp_path).stdout)
    assert {"torch", "ray", "GPU"} <= {c["check"] for c in checks}
    assert json.loads(latentmill("schema", cwd=tmp_path).stdout)["title"] == "Latentmill job"


def test_doctor_names_what_the_extras_of_users_install(root: Path) -> None:
    import tomllib

    from pipeline.doctor import OPTIONAL

    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {(p.split(">")[0], extra) for extra in ("s3", "project", "flow") for p in extras[extra]}
    assert {
        (package, needed[-1].rstrip(")")) for package, why in OPTIONAL.values() if (needed := why.split())
    } == wanted
