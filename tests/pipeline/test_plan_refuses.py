"""What a plan finds out before anything is encoded: images nobody has, filters that leave none, what a codec cannot do."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.checks.machine import check_places, place_problems
from pipeline.plan import make_plan
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from stages.codecs.factory import describe
from tests.jobs import image_id, job_data, make_images
from tests.saturating_codec import SaturatingCodec

NIX = "9/nix.png"


class Blind(SaturatingCodec):
    """It can neither encode nor decode with gradients."""

    can = frozenset({"decode"})


class Mute(SaturatingCodec):
    """It says what it can do only when it is built."""

    can = property(lambda self: frozenset({"encode"}))  # type: ignore[assignment]


def problems(folder: Path, *steps: dict[str, Any], **changes: Any) -> list[str]:
    job = parse_job(job_data(folder, folder / "store", steps=[{"stage": "encode"}, *steps], **changes))
    try:
        make_plan(job)
    except JobError as error:
        return [str(p) for p in error.problems]
    return []


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"stage": "walk", "ids": [image_id(0), NIX]}, "ids"),
        ({"stage": "interpolate", "pairs": [[image_id(0), NIX]]}, "pairs"),
        ({"stage": "interpolate", "sets": [[image_id(0), image_id(1), NIX]]}, "sets"),
        ({"stage": "analogy", "triples": [[NIX, image_id(0), image_id(1)]]}, "triples"),
    ],
)
def test_images_that_nobody_lists_are_named_before_anything_is_encoded(
    tmp_path: Path, step: dict[str, Any], field: str
) -> None:
    make_images(tmp_path, 4)
    (told,) = problems(tmp_path, step)
    assert f"steps.1 ({step['stage']}).{field} = '{NIX}': no image of the dataset has this id." in told
    named = {k: v if isinstance(v, str) else _without(v) for k, v in step.items()}
    assert problems(tmp_path, named) == [], "the same step with images that are there"


def _without(value: Any) -> Any:
    return [_without(v) for v in value] if isinstance(value, list) else image_id(3) if value == NIX else value


def test_tokens_of_an_image_that_nobody_lists(tmp_path: Path) -> None:
    make_images(tmp_path, 3)
    codec = {"family": "patches", "codes": 8, "preprocess": {"size": 16}}
    of = {"stage": "edit", "tokens": {"of": NIX}}
    histogram = {"stage": "edit", "name": "h", "tokens": {"histogram": [image_id(0), NIX]}}
    told = problems(tmp_path, of, histogram, codec=codec)
    assert [line.split(" = ")[0] for line in told] == ["steps.1 (edit).tokens.of", "steps.2 (edit).tokens.histogram"]


def test_an_image_that_is_stored_and_no_longer_listed_can_still_be_named(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    run_job(parse_job(job_data(tmp_path, tmp_path / "store")), report=lambda event: None)
    (tmp_path / "images" / image_id(0)).unlink()
    assert problems(tmp_path, {"stage": "walk", "ids": [image_id(0)]}) == []


def test_an_image_that_failed_is_named_unless_it_is_tried_again(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    (tmp_path / "images" / image_id(1)).write_bytes(b"no picture")
    walk = {"stage": "walk", "ids": [image_id(0), image_id(1)]}
    assert problems(tmp_path, walk) == [], "it is yet to be read"
    run_job(parse_job(job_data(tmp_path, tmp_path / "store")), report=lambda event: None)
    (told,) = problems(tmp_path, walk)
    assert f"ids = '{image_id(1)}': could not be encoded before" in told and "--retry-failures" in told
    job = parse_job(job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}, walk]))
    assert make_plan(job, retry_failures=True).steps[0].todo == 1


def test_a_filter_that_leaves_no_row_is_refused_where_the_table_will_not_change(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    walk = {"stage": "walk", "where": "labels.shade > 9"}
    assert problems(tmp_path, walk) == [], "nothing is known of images that are yet to be encoded"
    run_job(parse_job(job_data(tmp_path, tmp_path / "store")), report=lambda event: None)
    refused = ["steps.1 (walk).where = 'labels.shade > 9': no row is left. Fix: loosen the filter"]
    assert problems(tmp_path, walk) == refused
    fit = {"stage": "fit", "attributes": ["bright"], "where": "labels.shade > 9"}
    assert problems(tmp_path, fit) == [], "a fit stores the status no_rows"
    diagnose = {"stage": "diagnose", "sample": 100}
    assert problems(tmp_path, diagnose, {"stage": "walk", "where": "anomaly > 9999"}) == [], "not written yet"
    labels = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([*labels[:-1], labels[-1].rsplit(",", 1)[0] + ",99"]) + "\n")
    assert problems(tmp_path, walk) == [], "a label has changed"


def test_a_stored_direction_without_a_vector_is_refused_unless_it_is_fitted_anew(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    flat = {"stage": "fit", "attributes": ["bright"], "where": "labels.bright = true"}
    run_job(
        parse_job(job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}, flat])), report=lambda event: None
    )
    walk = {"stage": "traverse", "directions": ["bright"]}
    (told,) = problems(tmp_path, walk)
    assert "steps.1 (traverse).directions = 'bright': its fit ended as `single_class`." in told
    assert problems(tmp_path, {"stage": "fit", "attributes": ["bright"]}, walk) == []
    other = {"family": "linear", "dim": 6, "preprocess": {"size": 16}}
    run_job(parse_job(job_data(tmp_path, tmp_path / "store", codec=other)), report=lambda event: None)
    compare = {"stage": "compare", "fingerprint": _linear(tmp_path), "directions": ["bright"]}
    (told,) = problems(tmp_path, compare, codec=other)
    assert "directions = 'bright': its fit ended as `single_class`." in told


def _linear(folder: Path) -> str:
    rows = [r for b in Store.open(str(folder / "store")).directions().scan(["fingerprint"]) for r in b.to_pylist()]
    return str(rows[0]["fingerprint"])[:16]


@pytest.mark.parametrize(
    ("step", "field", "cannot"),
    [
        ({"stage": "traverse", "directions": ["bright"], "unit": "effect", "calibrate": "row"}, "calibrate", "encode"),
        (
            {
                "stage": "edit",
                "changes": [{"direction": "bright", "strength": 1}],
                "unit": "effect",
                "calibrate": "row",
            },
            "calibrate",
            "encode",
        ),
        ({"stage": "interpolate", "method": "geodesic"}, "method", "decode with gradients"),
        ({"stage": "components", "estimator": "jacobian"}, "estimator", "decode with gradients"),
        ({"stage": "diagnose", "scores": ["reconstruction"]}, "scores", "encode"),
        ({"stage": "evaluate", "directions": ["bright"]}, "", "encode"),
    ],
)
def test_what_the_codec_cannot_do_is_said_before_anything_runs(
    tmp_path: Path, step: dict[str, Any], field: str, cannot: str
) -> None:
    make_images(tmp_path, 4)
    codec = {"family": "custom", "entry": "tests.pipeline.test_plan_refuses:Blind", "preprocess": {"size": 16}}
    fit = {"stage": "fit", "attributes": ["bright"]}
    told = problems(tmp_path, fit, step, codec=codec, allow_code=True)
    assert told[0] == "steps.0 (encode): this codec cannot encode. Fix: use a codec that can"
    at = f"steps.2 ({step['stage']})" + (f".{field} = " if field else ": ")
    assert len(told) == 2 and told[1].startswith(at) and f"this codec cannot {cannot}. Fix: " in told[1]


def test_a_codec_that_says_what_it_can_do_only_when_it_is_built_is_not_judged(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    codec = {"family": "custom", "entry": "tests.pipeline.test_plan_refuses:Mute", "preprocess": {"size": 16}}
    assert problems(tmp_path, {"stage": "interpolate", "method": "geodesic"}, codec=codec, allow_code=True) == []


@pytest.mark.parametrize("family", ["linear", "sphere", "patches"])
def test_families_describe_what_their_codecs_can_do(family: str) -> None:
    from stages.codecs.factory import open_codec

    spec = parse_job(job_data(Path(), "store", codec={"family": family, "preprocess": {"size": 16}})).codec
    assert describe(spec).can == open_codec(spec).can


def test_labels_of_another_type_are_told_with_both_types(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    run_job(parse_job(job_data(tmp_path, tmp_path / "store")), report=lambda event: None)
    labels = {"uri": f"{tmp_path}/labels.csv", "types": {"shade": "category"}}
    source = {"images": f"{tmp_path}/images/**/*.png", "labels": labels}
    (told,) = problems(tmp_path, source=source)
    assert "not those of the table (shade: float there, category here)" in told


def test_fields_that_are_wrong_are_the_ones_named(tmp_path: Path) -> None:
    make_images(tmp_path, 6)
    (told,) = problems(tmp_path, {"stage": "walk", "start": "prior"})
    assert ".start = 'prior'" in told and "use start: rows" in told
    fit = {"stage": "fit", "attributes": ["bright"]}
    balanced = {**fit, "name": "b", "estimator": "balanced_mean_difference", "controls": ["rond"]}
    evaluate = {"stage": "evaluate", "directions": ["bright"], "slices": ["brigt"], "group": "rund"}
    told_all = problems(tmp_path, fit, balanced, evaluate)
    assert [line.split(" = ")[0] for line in told_all] == [
        "steps.2 (fit).controls",
        "steps.3 (evaluate).slices",
        "steps.3 (evaluate).group",
    ]
    labels = {"uri": f"{tmp_path}/labels.csv", "types": {"shade": "category"}}
    source = {"images": f"{tmp_path}/images/**/*.png", "labels": labels}
    whole = {"stage": "evaluate", "directions": ["bright"], "attributes": ["shade"]}
    (told,) = problems(tmp_path, fit, whole, source=source)
    assert "attributes = 'shade': is a category" in told and "shade=VALUE" in told


def test_places_that_cannot_be_written_are_found_before_a_run_gets_there(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    (tmp_path / "file").write_text("")
    (tmp_path / "pages").mkdir()
    sample = {"stage": "sample", "count": 1}

    def told(step: dict[str, Any]) -> str:
        (one,) = problems(tmp_path, sample, step)
        return one

    assert "is a folder, and a file is written. Fix: end it with a name" in told(
        {"stage": "report", "to": f"{tmp_path}/pages"}
    )
    beyond = {"stage": "report", "to": f"{tmp_path}/file/page.html"}
    assert f"{tmp_path}/file is a file, and a folder is needed there" in told(beyond)
    assert "steps.2 (render).to" in told({"stage": "render", "to": f"{tmp_path}/file/renders"})
    job = parse_job(job_data(tmp_path, tmp_path / "file"))
    assert [p.field for p in check_places(job)] == ["store"]
    for fine in (f"{tmp_path}/new/deep/page.html", f"file://{tmp_path}/pages/page.html", "memory://pages/page.html"):
        assert problems(tmp_path, sample, {"stage": "report", "to": fine}) == []
    assert not (tmp_path / "new").exists(), "a plan touches nothing"


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom no mode keeps out.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    (one,) = place_problems("store", f"{tmp_path}/new/store", folder=True)
    assert str(one).endswith(f"{tmp_path} may not be written to. Fix: choose another path, or ask for the permission")


def test_a_gpu_that_is_not_there_is_said_while_planning(tmp_path: Path) -> None:
    import torch

    make_images(tmp_path, 2)
    count = torch.cuda.device_count()
    (told,) = problems(tmp_path, executor={"kind": "local", "device": f"cuda:{count}"})
    assert f"executor.device = 'cuda:{count}': torch sees {count} GPUs on this machine" in told
    assert problems(tmp_path, executor={"kind": "local", "device": "cpu"}) == []
    with pytest.raises(JobError, match=r"executor.device = 'tpu': is not written as this field asks.*cuda:1"):
        parse_job(job_data(tmp_path, tmp_path / "store", executor={"kind": "ray", "device": "tpu"}))


def test_a_direction_or_coordinate_is_walked_along_once(tmp_path: Path) -> None:
    for field, twice in (("directions", ["bright", "bright"]), ("coordinates", [1, 2, 1])):
        step = {"stage": "traverse", field: twice}
        with pytest.raises(JobError, match=rf"{field} = .*named more than once"):
            parse_job(job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}, step]))
