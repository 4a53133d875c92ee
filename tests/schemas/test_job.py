"""Job files: what is accepted, what it means, and that every problem is named with its field, value and fix, all at once."""

import copy
from typing import Any

import pytest

from schemas.codec import ConvVAECodec
from schemas.errors import JobError
from schemas.executor import LocalExecutor, RayExecutor
from schemas.job import Job, parse_job
from schemas.source import FilesSource, ManifestSource, ParquetSource, TarSource
from schemas.steps import EncodeStep, RenderStep, TraverseStep

JOB: dict[str, Any] = {
    "dataset": "faces",
    "store": "./store",
    "source": {"images": "s3://bucket/faces/**/*.jpg", "labels": "labels.csv"},
    "codec": {"family": "conv_vae", "weights": "./codec"},
    "steps": [
        {"stage": "encode"},
        {"stage": "fit", "attributes": ["smiling"]},
        {"stage": "traverse", "directions": ["smiling"]},
        {"stage": "render", "to": "./renders"},
    ],
}


def changed(**places: Any) -> dict[str, Any]:
    """JOB with values put at dotted places (`__` for the dot); `...` removes."""
    job = copy.deepcopy(JOB)
    for place, value in places.items():
        *parents, last = [int(p) if p.isdigit() else p for p in place.split("__")]
        at: Any = job
        for parent in parents:
            at = at[parent]
        if value is ...:
            del at[last]
        else:
            at[last] = value
    return job


def problems(data: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(JobError) as caught:
        parse_job(data, **kwargs)
    return [str(p) for p in caught.value.problems]


def test_a_job_is_frozen_data_with_defaults_filled_in() -> None:
    job = parse_job(JOB)
    assert isinstance(job.codec, ConvVAECodec) and job.codec.preprocess.size == (64, 64)
    assert isinstance(job.steps[0], EncodeStep) and job.steps[0].batch_size == 256
    assert job.executor == LocalExecutor()
    with pytest.raises(ValueError, match="frozen"):
        job.dataset = "other"  # type: ignore[misc]


def test_every_step_leaves_with_a_name_of_its_own() -> None:
    steps = [{"stage": "encode"}, {"stage": "fit"}, {"stage": "fit"}, {"stage": "index", "name": "fit2"}]
    assert [s.name for s in parse_job(changed(steps=steps)).steps] == ["encode", "fit", "fit3", "fit2"]


def test_a_resolved_job_parses_to_itself() -> None:
    job = parse_job(JOB)
    assert parse_job(job.model_dump(mode="json")) == job
    assert Job.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"images": "a/*.jpg"}, FilesSource),
        ({"images": "a/*.parquet"}, ParquetSource),
        ({"images": "a/*.TAR"}, TarSource),
        ({"images": "list.csv", "kind": "manifest"}, ManifestSource),
        ({"images": "a.parquet", "kind": "manifest"}, ManifestSource),
    ],
)
def test_a_source_is_recognised_by_its_suffix_or_its_kind(given: dict[str, str], kind: type) -> None:
    assert isinstance(parse_job(changed(source=given)).source, kind)


def test_labels_have_short_forms() -> None:
    assert parse_job(JOB).source.labels == parse_job(changed(source__labels={"uri": "labels.csv"})).source.labels
    folder = parse_job(changed(source__labels="folder")).source.labels
    assert folder is not None and folder.format == "folder" and folder.uri is None


def test_a_size_may_be_one_number() -> None:
    assert parse_job(changed(codec__preprocess={"size": 32})).codec.preprocess.size == (32, 32)


def test_overrides_reach_fields_by_path_position_and_step_name() -> None:
    job = parse_job(
        JOB,
        overrides={
            "executor.kind": "ray",
            "steps.0.batch_size": 8,
            "steps.fit.estimator": "logistic",
            "steps.render.quality": 50,
            "codec.preprocess.size": 32,
        },
    )
    assert isinstance(job.executor, RayExecutor)
    assert isinstance(job.steps[0], EncodeStep) and job.steps[0].batch_size == 8
    assert job.steps[1].model_dump()["estimator"] == "logistic"
    assert isinstance(job.steps[3], RenderStep) and job.steps[3].quality == 50
    assert JOB["steps"][0] == {"stage": "encode"}  # the data given is untouched


def test_an_override_prefers_the_name_to_the_stage() -> None:
    steps = [{"stage": "encode", "name": "first"}, {"stage": "index", "name": "encode"}]
    job = parse_job(changed(steps=steps), overrides={"steps.encode.metric": "cosine"})
    assert job.steps[1].model_dump()["metric"] == "cosine"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("steps.9.name", "--set steps.9.name = '9': no such item in a list of 4."),
        ("steps.ghost.name", "--set steps.ghost.name = 'ghost': no such item in a list of 4."),
        ("dataset.x", "--set dataset.x: `dataset` is 'faces', not a mapping or a list."),
        ("stpes.0", "stpes = {'0': 1}: no such field. Fix: did you mean `steps`?"),
        ("steps.fit.estimatr", "steps.1 (fit).estimatr = 1: no such field. Fix: did you mean `estimator`?"),
    ],
)
def test_an_override_that_leads_nowhere_is_named(path: str, message: str) -> None:
    assert problems(JOB, overrides={path: 1})[0].startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"store": ...}, "store: missing. Fix: add `store: …` (LanceDB URI: a path, s3://, gs://)"),
        ({"stor": "x"}, "stor = 'x': no such field. Fix: did you mean `store`?"),
        ({"dataset": "../x"}, "dataset = '../x': a name is 1 to 100 letters, digits, '-', '_' or '.'"),
        ({"dataset": 3}, "dataset = 3: must be text."),
        ({"source": "x/*.jpg"}, "source = 'x/*.jpg': must be a mapping. Fix: write `images: x/*.jpg` inside it"),
        ({"source__labls": "x"}, "source.labls = 'x': no such field. Fix: did you mean `labels`?"),
        ({"source__kind": "zip"}, "source.kind = 'zip': no such kind. Fix: Known: files, manifest, parquet, tar"),
        ({"source__labels": {}}, "source.labels.uri: no label file is named. Fix: give its URL, or format: folder"),
        (
            {"source__labels": {"uri": "x", "types": {"a": "boolean"}}},
            "source.labels.types.a = 'boolean': no such choice. Fix: did you mean `bool`? Known: bool, category, float",
        ),
        ({"codec__family": "conv_vea"}, "codec.family = 'conv_vea': no such family. Fix: did you mean `conv_vae`?"),
        (
            {"codec__family": ...},
            "codec.family: missing. Fix: add `family: …`, one of linear, sphere, patches, conv_vae",
        ),
        ({"codec__weights": ...}, "codec.weights: missing. Fix: add `weights: …` (folder URL written by the train"),
        ({"codec__preprocess": {"size": 0}}, "codec.preprocess.size = 0: sides must be from 1 to 8192 pixels."),
        ({"codec__preprocess": {"size": [1, 2, 3]}}, "codec.preprocess.size = [1, 2, 3]: too many items: at most 2."),
        ({"codec__preprocess": {"background": [0]}}, "codec.preprocess.background = [0]: too few items."),
        (
            {"codec__preprocess": {"background": [0, 0, 256]}},
            "codec.preprocess.background = [0, 0, 256]: red, green and",
        ),
        ({"codec": None}, "codec: must be a mapping. Fix: write `family: …` inside it"),
        ({"executor": {"kind": "rey"}}, "executor.kind = 'rey': no such kind. Fix: did you mean `ray`?"),
        ({"max_failures": -1}, "max_failures = -1: must be at least 0."),
        ({"max_failures": "few"}, "max_failures = 'few': must be a number."),
        ({"max_failures": 1.5}, "max_failures = 1.5: neither a share below 1 nor a whole count. Fix: use 0.05 or 100"),
        ({"allow_code": "maybe"}, "allow_code = 'maybe': must be true or false."),
        ({"steps": []}, "steps = []: too few items: at least 1."),
        ({"steps": {"stage": "encode"}}, "steps = {'stage': 'encode'}: must be a list."),
        ({"steps__0": "encode"}, "steps.0 = 'encode': must be a mapping. Fix: write `stage: encode` inside it"),
        ({"steps__0__stage": "encod"}, "steps.0.stage = 'encod': no such stage. Fix: did you mean `encode`?"),
        ({"steps__0__stage": ...}, "steps.0.stage: missing. Fix: add `stage: …`, one of train, encode"),
        ({"steps__0__batch_size": 0}, "steps.0 (encode).batch_size = 0: must be at least 1."),
        ({"steps__0__commit_seconds": 0}, "steps.0 (encode).commit_seconds = 0: must be more than 0."),
        ({"steps__0__batch_size": "many"}, "steps.0 (encode).batch_size = 'many': must be a whole number."),
        ({"steps__1__holdout": 1}, "steps.1 (fit).holdout = 1: must be less than 1."),
        ({"steps__1__confidence": float("nan")}, "steps.1 (fit).confidence = nan: must be a finite number."),
        ({"steps__1__estimator": "olss"}, "steps.1 (fit).estimator = 'olss': no such choice. Fix: did you mean `ols`?"),
        (
            {"steps__1__attributes": "smiling"},
            "steps.1 (fit).attributes = 'smiling': must be a list or `all`. Fix: write `[smiling]`",
        ),
        ({"steps__2__directions": "smiling"}, "steps.2 (traverse).directions = 'smiling': must be a list. Fix: write"),
        ({"steps__2__strengths": [float("inf")]}, "steps.2 (traverse).strengths.0 = inf: must be a finite number."),
        ({"steps__2__directions": []}, "steps.2 (traverse).directions: nothing to walk along."),
        (
            {"steps__2__mode": "set_coordinate"},
            "steps.2 (traverse).mode = 'set_coordinate': directions are not coordinates. Fix: use mode: set_projection",
        ),
        ({"steps__2__unit": "quantile"}, "steps.2 (traverse).unit = 'quantile': only coordinates have quantiles here."),
        *(
            ({"steps__2": {**step, "unit": "quantile"}}, said)
            for step, said in (
                (
                    {"stage": "traverse", "coordinates": [1], "strengths": [0.5]},
                    "steps.2 (traverse).unit = 'quantile': a quantile is a place to go to. Fix: use mode: set_coordinate",
                ),
                (
                    {"stage": "traverse", "coordinates": [1], "mode": "set_coordinate"},
                    "steps.2 (traverse).strengths = -3.0: is no quantile. Fix: use shares of the data between 0 and 1",
                ),
                (
                    {"stage": "traverse", "coordinates": [1], "mode": "set_coordinate", "strengths": [0.5, 1]},
                    "steps.2 (traverse).strengths = 1.0: is no quantile.",
                ),
                (
                    {
                        "stage": "edit",
                        "changes": [{"coordinate": 1, "strength": 0}],
                        "mode": "set_coordinate",
                    },
                    "steps.2 (edit).changes = 0.0: is no quantile.",
                ),
                (
                    {
                        "stage": "edit",
                        "changes": [{"direction": "smiling", "strength": 0.5}],
                        "mode": "set_coordinate",
                    },
                    "steps.2 (edit).unit = 'quantile': only coordinates have quantiles here. Fix: use unit: sigma",
                ),
                (
                    {"stage": "edit", "changes": [{"coordinate": 1, "strength": 0.5}], "mode": "set_projection"},
                    "steps.2 (edit).unit = 'quantile': a quantile is a place to go to.",
                ),
            )
        ),
        (
            {"steps__2": {"stage": "interpolate", "pairs": "nearst"}},
            "steps.2 (interpolate).pairs = 'nearst': no such choice. Fix: did you mean `nearest`?",
        ),
        ({"steps__2": {"stage": "interpolate", "pairs": []}}, "steps.2 (interpolate).pairs: no pairs."),
        (
            {"steps__2": {"stage": "interpolate", "pairs": [["a"]]}},
            "steps.2 (interpolate).pairs.0 = ['a']: too few items.",
        ),
        *(
            ({"steps__2": {"stage": "interpolate", **step}}, f"steps.2 (interpolate).{said}")
            for step, said in (
                ({"sets": [["a", "b"], ["a", "b", "c"]]}, "sets = [2, 3]: sets of one step have the same size."),
                ({"sets": []}, "sets: no images."),
                ({"sets": [["a", "b"]], "pairs": "nearest"}, "sets: there are pairs as well."),
                ({"sets": [["a", "b", "c"]], "method": "slerp"}, "method = 'slerp': it joins two images"),
                ({"sets": [["a", "b"]], "weights": [[1, 2, 3]]}, "weights = [3]: there are 2 images"),
                ({"weights": [[1, -1]]}, "weights = [[1, -1]]: weights are rows of numbers that are not negative"),
                ({"weights": "equal", "method": "slerp"}, "method = 'slerp': it makes paths, not means."),
                ({"method": "karcher"}, "method = 'karcher': it makes means."),
                ({"method": "lerp", "knots": "uniform"}, "knots = 'uniform': lerp has no such option."),
                ({"draws": 4}, "draws = 4: auto has no such option."),
                ({"method": "two_part"}, "split: where does the noise part begin?"),
                ({"method": "geodesic", "per": "channel"}, "per = 'channel': geodesic takes latents as a whole."),
                ({"per_channel": True}, "per_channel = True: no such field."),
            )
        ),
        *(
            ({"steps__2": {"stage": "sample", **step}}, f"steps.2 (sample).{said}")
            for step, said in (
                ({"components": 4}, "components = 4: gaussian has no such option. Fix: remove it"),
                ({"method": "prior", "covariance": "diagonal"}, "covariance = 'diagonal': prior has no such option."),
                ({"method": "gmm", "smoothing": 1.0}, "smoothing = 1.0: gmm has no such option."),
                ({"method": "bigram", "truncation": [0.5]}, "truncation = [0.5]: bigram has no such option."),
            )
        ),
        ({"steps__3__of": ["traverze"]}, "steps.3 (render).of = 'traverze': no code set of this name above this step."),
        ({"steps__2": {"stage": "index"}}, "steps.3 (render): nothing above this step is left to render."),
        ({"steps__3__layout": "animation"}, "steps.3 (render).format = 'png': this format has no animation."),
        ({"steps__3__format": "gif"}, "steps.3 (render).format = 'gif': gif is for layout: animation only."),
        (
            {"steps__0": {"stage": "train"}, "codec": {"family": "linear"}},
            "codec.family = 'linear': steps.0 (train) trains conv_vae only. Fix: set codec.family: conv_vae",
        ),
        (
            {"codec": {"family": "custom", "entry": "my.codec:Mine"}},
            "codec.entry = 'my.codec:Mine': the job does not allow code of your own. Fix: set allow_code: true",
        ),
        (
            {"steps__2": {"stage": "compare", "fingerprint": "xyz"}, "steps__3": {"stage": "encode", "name": "again"}},
            "steps.2 (compare).fingerprint = 'xyz': is not written as this field asks. Fix: the other codec, by the first",
        ),
    ],
)
def test_a_problem_names_the_field_the_value_and_the_fix(change: dict[str, Any], message: str) -> None:
    found = problems(changed(**change))
    assert len(found) == 1, found
    assert found[0].startswith(message)


def test_two_steps_cannot_share_a_name() -> None:
    found = problems(changed(steps__0__name="x", steps__1__name="x"))
    assert found == ["steps.1 (fit).name = 'x': two steps have this name. Fix: give each its own"]


def test_all_problems_are_told_at_once() -> None:
    bad = changed(
        store=...,
        source__labls="x",
        codec__weights=...,
        steps__0__batch_size=0,
        steps__1__estimator="olss",
        steps__2__directions=[],
        steps__3__format="gif",
        max_failures=1.5,
    )
    fields = [p.split(" = ")[0].split(": ")[0] for p in problems(bad)]
    assert fields == [
        "store",
        "source.labls",
        "codec.weights",
        "steps.0 (encode).batch_size",
        "steps.1 (fit).estimator",
        "steps.2 (traverse).directions",
        "steps.3 (render).format",
        "max_failures",
    ]


@pytest.mark.parametrize("data", [None, [], "dataset: x", 3])
def test_a_file_that_is_no_mapping_is_refused(data: Any) -> None:
    assert "must hold a mapping at its top level" in problems(data)[0]


def test_an_empty_mapping_lists_everything_that_is_needed() -> None:
    assert [p.split(":")[0] for p in problems({})] == ["dataset", "store", "source", "codec", "steps"]


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/abs", "a\\b", "", "a" * 101, ".hidden", "a b", "a\0b", "~"])
def test_names_that_could_leave_their_folder_are_refused(name: str) -> None:
    assert problems(changed(steps__0__name=name))[0].startswith("steps.0 (encode).name = ")
    assert problems(changed(dataset=name))[0].startswith("dataset = ")


def test_a_render_takes_the_code_sets_above_it_that_no_earlier_render_took() -> None:
    steps = [
        {"stage": "traverse", "name": "a", "coordinates": [0]},
        {"stage": "render", "name": "one", "to": "r1"},
        {"stage": "interpolate", "name": "b"},
        {"stage": "traverse", "name": "c", "coordinates": [1]},
        {"stage": "render", "name": "two", "to": "r2", "of": ["a", "c"]},
        {"stage": "render", "name": "three", "to": "r3"},
    ]
    job = parse_job(changed(steps=steps))
    taken = {s.name: [c.name for c in job.code_sets_of(s)] for s in job.steps if isinstance(s, RenderStep)}
    assert taken == {"one": ["a"], "two": ["a", "c"], "three": ["b"]}


def test_specs_built_in_python_meet_the_same_rules() -> None:
    with pytest.raises(ValueError, match="nothing to walk along"):
        TraverseStep()
    with pytest.raises(ValueError, match="no animation"):
        RenderStep(to="x", layout="animation")
