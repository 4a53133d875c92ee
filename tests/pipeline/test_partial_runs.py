"""Layered and spatial latents in whole runs: what a step does not name stays bit-equal, in the codes and in the pixels."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.executors.local import LocalExecutor
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images, rows_of

A, B = image_id(0), image_id(1)
SIZE = 24


def frames_of(
    folder: Path, axes: str, steps: list[dict[str, Any]]
) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
    """Encode, fit, the steps, render: every step's one strip as its frames (h, w, 3), and the latents by id."""
    make_images(folder, 30)
    codec = {"family": "custom", "entry": "tests.blocks_codec:BlocksCodec", "options": {"axes": axes}}
    codec["preprocess"] = {"size": SIZE}
    head = [{"stage": "encode"}, {"stage": "fit", "attributes": ["bright"], "estimator": "mean_difference"}]
    tail = [{"stage": "render", "to": str(folder / "out"), "layout": "image"}]
    job = parse_job(job_data(folder, folder / "store", codec=codec, allow_code=True, steps=[*head, *steps, *tail]))
    run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=1)))
    rows = [r for batch in Store.open(job.store).renders("shapes").scan() for r in batch.to_pylist()]
    assert {r["status"] for r in rows} == {"done"}
    found: dict[str, list[np.ndarray]] = {}
    for row in sorted(rows, key=lambda r: r["id"]):
        found.setdefault(row["id"].split("/")[1], []).append(cv2.imread(row["uri"])[..., ::-1].astype(int))
    return found, {r["id"]: np.array(r["latent"], np.float32) for r in rows_of(folder / "store").to_pylist()}


def blocks(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """One colour a block: (rows, columns, 3); the picture is nothing but its blocks."""
    cells = picture[:: SIZE // rows, :: SIZE // columns]
    np.testing.assert_array_equal(cells.repeat(SIZE // rows, 0).repeat(SIZE // columns, 1), picture)
    return cells


def shown(latent: np.ndarray) -> np.ndarray:
    return np.round(latent.astype(np.float64) * 255).clip(0, 255).astype(int)


def test_layers_that_a_step_does_not_name_are_bit_equal(tmp_path: Path) -> None:
    found, latents = frames_of(
        tmp_path,
        "layered",
        [
            {"stage": "interpolate", "name": "some", "pairs": [[A, B]], "frames": 3, "per": "layer", "layers": [1, 3]},
            {"stage": "interpolate", "name": "each", "method": "slerp", "pairs": [[A, B]], "frames": 3, "per": "layer"},
            {"stage": "edit", "name": "first", "ids": [A], "changes": [{"direction": "bright", "strength": 1, "layers": [0, 1]}]},
        ],
    )  # fmt: skip
    a, b = (shown(latents[i].reshape(4, 3)) for i in (A, B))
    for t, frame in zip((0, 0.5, 1), found["some"], strict=True):
        layers = blocks(frame, 4, 3)[..., 0]
        np.testing.assert_array_equal(layers[[0, 3]], a[[0, 3]])
        middle = (1 - t) * latents[A].astype(float) + t * latents[B].astype(float)
        np.testing.assert_array_equal(layers[1:3], shown(middle.reshape(4, 3))[1:3])
    np.testing.assert_array_equal(blocks(found["each"][2], 4, 3)[..., 0], b)
    for layer in range(4):
        x, y = (latents[i].reshape(4, 3)[layer].astype(float) for i in (A, B))
        angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
        own = (np.sin(angle / 2) * (x + y)) / np.sin(angle)
        np.testing.assert_allclose(blocks(found["each"][1], 4, 3)[layer, :, 0], 255 * own, atol=0.51)
    before, after = (blocks(frame, 4, 3)[..., 0] for frame in found["first"])
    np.testing.assert_array_equal(before, a)
    np.testing.assert_array_equal(after[1:], a[1:])
    assert (after[0] != a[0]).any()


def test_channels_tokens_and_places_outside_a_mask_are_bit_equal(tmp_path: Path) -> None:
    mask = [[1, 0], [0, 0]]
    found, latents = frames_of(
        tmp_path,
        "spatial",
        [
            {"stage": "interpolate", "name": "masked", "pairs": [[A, B]], "frames": 2, "mask": mask},
            {"stage": "interpolate", "name": "tokens", "method": "slerp", "pairs": [[A, B]], "frames": 3, "per": "token"},
            {"stage": "interpolate", "name": "channels", "method": "slerp", "pairs": [[A, B]], "frames": 3, "per": "channel"},
            {"stage": "edit", "name": "red", "ids": [A], "changes": [{"direction": "bright", "strength": 1, "channels": [0]}]},
            {"stage": "edit", "name": "corner", "ids": [A],
             "changes": [{"direction": "bright", "strength": 1, "region": [2, 2, 4, 4]}]},
        ],
    )  # fmt: skip
    a, b = (shown(latents[i].reshape(3, 4, 4)).transpose(1, 2, 0) for i in (A, B))
    inside = np.zeros((4, 4), bool)
    inside[:2, :2] = True
    last = blocks(found["masked"][1], 4, 4)
    np.testing.assert_array_equal(last[~inside], a[~inside])
    np.testing.assert_array_equal(last[inside], b[inside])
    for name, sides in (("tokens", 0), ("channels", (1, 2))):
        middle = blocks(found[name][1], 4, 4).transpose(2, 0, 1)
        x, y = (latents[i].reshape(3, 4, 4).astype(float) for i in (A, B))
        norms = [np.sqrt((v**2).sum(sides, keepdims=True)) for v in (x, y)]
        angle = np.arccos((x * y).sum(sides, keepdims=True) / norms[0] / norms[1])
        np.testing.assert_allclose(middle, (255 * np.sin(angle / 2) / np.sin(angle) * (x + y)).clip(0, 255), atol=0.51)
    red, corner = (blocks(found[name][1], 4, 4) for name in ("red", "corner"))
    np.testing.assert_array_equal(red[..., 1:], a[..., 1:])
    assert (red[..., 0] != a[..., 0]).any()
    away = ~np.roll(inside, (2, 2), (0, 1))
    np.testing.assert_array_equal(corner[away], a[away])
    assert (corner[~away] != a[~away]).any()


@pytest.mark.parametrize(
    ("axes", "step", "words"),
    [
        ("layered", {"stage": "interpolate", "layers": [2, 5]}, "there are 4 layers"),
        ("layered", {"stage": "interpolate", "per": "channel"}, "no channels"),
        ("spatial", {"stage": "interpolate", "per": "layer"}, "no layers"),
        ("spatial", {"stage": "edit", "changes": [{"coordinate": 0, "strength": 1, "layers": [0, 1]}]}, "no layers"),
    ],
)
def test_an_axis_that_is_not_there_stops_at_the_plan(
    tmp_path: Path, axes: str, step: dict[str, Any], words: str
) -> None:
    from schemas.errors import JobError

    with pytest.raises(JobError, match=words):
        frames_of(tmp_path, axes, [step])
