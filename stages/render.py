"""Render: decoded codes → encoded pictures and what the renders table says of them. The part that needs no bucket.

A code without a picture is never dropped: inside a strip, grid or animation it is a crossed-out tile and a flag, and when nothing
of a picture could be made its row says why instead of `done`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import pyarrow as pa
import xxhash

from schemas.identity import canonical_json
from stages.layout import Pixels, grid, in_lines, strength_labels, strip
from stages.pictures import SUFFIX, animate, encode
from stages.render_plan import Code, Collector, RenderPlan, codes_of, recipe_of, render_ids, shard_name
from stages.shards import member_name, tar_of

DONE = "done"
NOT_DECODED = "not_decoded"
"""Status of a code that had a latent and yet came back from the codec without a picture."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row of the renders table, as far as a stage knows it. `member` names a picture inside a shard."""

    id: str
    parents: tuple[str, ...]
    operation: str
    title: str
    strengths: tuple[float, ...]
    moved: tuple[float | None, ...] | None
    unit: str | None
    status: str
    flags: tuple[str, ...]
    recipe: str
    content_hash: str | None = None
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One file to write, and its rows. `path` is relative to the target, safe parts; None when there is nothing to write."""

    path: tuple[str, ...] | None
    data: bytes
    rows: tuple[Rendered, ...]
    codes: int
    failed: int


def render(plan: RenderPlan, batches: Iterable[pa.RecordBatch]) -> Iterator[Output]:
    """Draws and encodes whole pictures from decoded codes (codes + `pixels`), as soon as each is complete.

    Raises ValueError when the batches end in the middle of a picture.
    """
    collector = Collector(plan)
    for batch in batches:
        for codes in collector.add(codes_of(batch, plan.picture)):
            yield _shard(plan, codes) if plan.step.layout == "shards" else _picture(plan, codes)
    collector.close()


def _picture(plan: RenderPlan, codes: Sequence[Code]) -> Output:
    (render_id,) = render_ids(plan, codes)
    recipe = recipe_of(plan, codes)
    failed = sum(code.pixels is None for code in codes)
    if failed == len(codes):
        return Output(None, b"", (_row(codes, render_id, recipe, status=_reason(codes)),), len(codes), failed)
    data = _draw(plan, codes)
    row = _row(codes, render_id, recipe, content=data)
    return Output(_path(render_id, SUFFIX[plan.step.format]), data, (row,), len(codes), failed)


def _shard(plan: RenderPlan, codes: Sequence[Code]) -> Output:
    recipe, suffix = recipe_of(plan, codes), SUFFIX[plan.step.format]
    members: list[tuple[str, bytes]] = []
    rows: list[Rendered] = []
    for code, render_id in zip(codes, render_ids(plan, codes), strict=True):
        if code.pixels is None:
            rows.append(_row([code], render_id, recipe, status=_reason([code])))
            continue
        data, name = (
            encode(code.pixels, plan.step.format, quality=plan.step.quality),
            member_name(code.strip, code.frame),
        )
        members += [(f"{name}.{suffix}", data), (f"{name}.json", _facts(code))]
        rows.append(_row([code], render_id, recipe, content=data, member=f"{name}.{suffix}"))
    path = _path(shard_name(plan, codes), "tar") if members else None
    return Output(path, tar_of(members) if members else b"", tuple(rows), len(codes), len(codes) - len(members) // 2)


def _draw(plan: RenderPlan, codes: Sequence[Code]) -> bytes:
    """The codes of one picture, laid out and encoded."""
    step, frames = plan.step, [code.pixels for code in codes]
    columns = codes[-1].frame + 1
    labels = _labels(codes[:columns]) if step.labels else None
    match step.layout:
        case "animation":
            drawn = [strip([frame], plan.picture) for frame in frames]  # a missing frame keeps its time
            return animate(
                drawn, cast(Literal["webp", "gif"], step.format), quality=step.quality, frame_ms=step.frame_ms
            )
        case "strip":
            picture = strip(frames, plan.picture, labels=labels)
        case "grid":
            lines = in_lines(frames, step.grid_columns or columns)
            picture = grid(lines, plan.picture, labels=labels if step.grid_columns in (None, columns) else None)
        case _:
            picture = cast(Pixels, frames[0])
    return encode(picture, step.format, quality=step.quality)


def _labels(codes: Sequence[Code]) -> list[str]:
    return strength_labels([code.strength or 0.0 for code in codes], codes[0].unit or "")


def _row(
    codes: Sequence[Code],
    render_id: str,
    recipe: str,
    *,
    content: bytes | None = None,
    status: str = DONE,
    member: str | None = None,
) -> Rendered:
    """Parents and flags of all codes, each once; strengths of one strip, which all strips of a grid share; how far each code moved."""
    head = codes[0]
    return Rendered(
        id=render_id,
        parents=tuple(dict.fromkeys(p for code in codes for p in code.parents)),
        operation=head.operation,
        title=head.title,
        strengths=tuple(c.strength for c in codes if c.strip == head.strip and c.strength is not None),
        moved=tuple(c.moved for c in codes) if any(c.moved is not None for c in codes) else None,
        unit=head.unit,
        status=status,
        flags=tuple(sorted({flag for code in codes for flag in code.flags})),
        recipe=recipe,
        content_hash=None if content is None else xxhash.xxh3_128_hexdigest(content),
        member=member,
    )


def _reason(codes: Sequence[Code]) -> str:
    """Why none of the codes has a picture: the first flag of the first code that has one."""
    return next((code.flags[0] for code in codes if code.flags), NOT_DECODED)


def _path(render_id: str, suffix: str) -> tuple[str, ...]:
    *folders, name = render_id.split("/")
    return (*folders, f"{name}.{suffix}")


def _facts(code: Code) -> bytes:
    """The JSON beside a picture in a shard."""
    return canonical_json(
        {
            "id": code.id,
            "parents": list(code.parents),
            "title": code.title,
            "strength": code.strength,
            "unit": code.unit,
            "moved": code.moved,
            "flags": list(code.flags),
            "operation": code.operation,
        }
    )
