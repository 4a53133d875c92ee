"""What a render makes of its codes: which codes share a picture, what it is called, and when it is done already.

Invariant: pictures, grids and shards follow from `seq` and the plan alone. A *group* is the codes of `group_rows` consecutive rows
of one code set; no picture or shard file crosses a group, so splits that are cut at groups can be rendered in any
batches, order or place with the same result. `Collector` hands a picture on once all its codes are there and refuses to
end with half of one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from schemas.errors import Problem
from schemas.identity import fingerprint
from schemas.steps import RenderStep
from stages.code_sets.codes import CodeSetShape, strip_name
from stages.columns import matrix_of
from stages.layout import Pixels, grid_size
from stages.pictures import MAX_SIDE

GRID_STRIPS = 64
"""Strips in one grid picture, at most."""
GROUP_BYTES = 96 * 2**20
"""Decoded pixels of one group, at most (one row of a code set always fits): a group travels as one block."""
RECIPE_VERSION = 1
"""Raise it when the same codes are drawn differently."""


@dataclass(frozen=True)
class RenderPlan:
    """A render step with all that decides its pictures. `picture` is (height, width); `codec` the codec's fingerprint."""

    step: RenderStep
    code_sets: tuple[CodeSetShape, ...]
    codec: str
    picture: tuple[int, int]
    base: str = field(init=False)
    groups: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", _base_recipe(self.step, self.codec, self.picture))
        object.__setattr__(self, "groups", tuple(group_rows(self.step, s, self.picture) for s in self.code_sets))


@dataclass(frozen=True, slots=True)
class Code:
    """One row of `codes_schema`, decoded where `pixels` is there. `latent` is None for a code that could not be made."""

    seq: int
    id: str
    parents: tuple[str, ...]
    operation: str
    strip: str
    frame: int
    title: str
    strength: float | None
    unit: str | None
    moved: float | None
    flags: tuple[str, ...]
    latent: bytes | None
    pixels: Pixels | None


def group_rows(step: RenderStep, shape: CodeSetShape, picture: tuple[int, int]) -> int:
    """Rows of the code set (images or pairs) that make one group: cut splits at multiples of it.

    1 for pictures, strips and animations; for grids as many strips, and for shards as many images, as one file holds.
    """
    height, width = picture
    fitting = max(1, GROUP_BYTES // (shape.codes_per_row * height * width * 3))
    match step.layout:
        case "grid":
            fits = (n for n in range(min(GRID_STRIPS, fitting), 1, -1) if not _too_long(step, shape, picture, n))
            return next(fits, 1)
        case "shards":
            return min(fitting, max(1, step.shard_rows // shape.codes_per_row))
        case _:
            return 1


def check_render(plan: RenderPlan) -> Iterator[Problem]:
    """Pictures that the format cannot hold, found before anything is decoded."""
    for shape in plan.code_sets:
        longest = _too_long(plan.step, shape, plan.picture, 1)
        if longest:
            fix = "use png, fewer strengths or frames, layout: image, or grid_columns"
            reason = f"{shape.name} makes pictures {longest} pixels long; {plan.step.format} ends at {MAX_SIDE[plan.step.format]}."
            yield Problem(f"{plan.step.name}.format", plan.step.format, reason, fix)


def pending(plan: RenderPlan, codes: pa.RecordBatch, done: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    """Which rows of `codes` (whole groups, before decoding) must be rendered: a mask, (rows,).

    `done` maps the ids of renders rows to their recipes. A picture is skipped when all its rows are there with the recipe
    it would get now; a shard, made of many rows, is skipped or redone as a whole.
    """
    mask = np.ones(codes.num_rows, bool)
    rows = list(codes_of(codes))
    place = {code.seq: i for i, code in enumerate(rows)}
    collector = Collector(plan)
    for group in collector.add(rows):
        recipe = recipe_of(plan, group)
        if all(done.get(i) == recipe for i in render_ids(plan, group)):
            mask[[place[code.seq] for code in group]] = False
    collector.close()
    return mask


def render_ids(plan: RenderPlan, codes: Sequence[Code]) -> list[str]:
    """Ids of the renders rows that one picture (or shard: one row an image) becomes: what is written is named after them."""
    head, name = codes[0], str(plan.step.name or plan.step.stage)
    code_set, rows = _home(plan, head.seq)
    match plan.step.layout:
        case "image" | "shards":
            return [f"{name}/{code.id}" for code in codes]
        case "strip" | "animation":
            return [f"{name}/{code_set.name}/{head.strip}"]
        case "grid":
            number = (head.seq - code_set.first_seq) // code_set.codes_per_row // rows
            return [f"{name}/{code_set.name}/{strip_name(about=head.title)}-{number:04d}"]


def shard_name(plan: RenderPlan, codes: Sequence[Code]) -> str:
    """`<render step>/<code set>/<number>` of the shard that holds `codes`."""
    code_set, rows = _home(plan, codes[0].seq)
    number = (codes[0].seq - code_set.first_seq) // code_set.codes_per_row // rows
    return f"{plan.step.name or plan.step.stage}/{code_set.name}/{number:06d}"


def recipe_of(plan: RenderPlan, codes: Sequence[Code]) -> str:
    """32 hex digits over everything that decides one picture's bytes and place: codec, layout, target, and its codes.

    The codes' latents stand for the step, the directions' vectors and the parents' content, whatever changed in them.
    """
    digest = xxhash.xxh3_128(plan.base.encode())
    for code in codes:
        text = f"{code.id}\0{code.title}\0{code.strength!r}\0{code.unit}\0{code.operation}\0{code.flags!r}\0"
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(code.latent or b"null")
    return str(digest.hexdigest())


def codes_of(batch: pa.RecordBatch, picture: tuple[int, int] | None = None) -> Iterator[Code]:
    """The rows of a codes batch; with `picture` = (height, width), their `pixels` too, as views into the batch."""
    latents = matrix_of(batch.column("latent"))
    has_latent = batch.column("latent").is_valid().to_pylist()
    pixels, has_pixels = None, [False] * batch.num_rows
    if picture is not None:
        pixels = matrix_of(batch.column("pixels")).reshape(-1, *picture, 3)
        has_pixels = batch.column("pixels").is_valid().to_pylist()
    names = ("seq", "id", "parents", "operation", "strip", "frame", "title", "strength", "unit", "moved", "flags")
    columns = (batch.column(name).to_pylist() for name in names)
    for i, (seq, code, parents, operation, strip, frame, title, strength, unit, moved, flags) in enumerate(
        zip(*columns, strict=True)
    ):
        yield Code(
            seq,
            code,
            tuple(parents),
            operation,
            strip,
            frame,
            title,
            strength,
            unit,
            moved,
            tuple(flags),
            latents[i].tobytes() if has_latent[i] else None,
            pixels[i] if pixels is not None and has_latent[i] and has_pixels[i] else None,
        )


class Collector:
    """Gathers codes that arrive in any order into the codes of one picture, sorted by `seq`."""

    def __init__(self, plan: RenderPlan) -> None:
        self._plan = plan
        self._waiting: dict[tuple[str, int], list[Code]] = {}

    def add(self, codes: Iterable[Code]) -> Iterator[list[Code]]:
        """Pictures that became complete."""
        for code in codes:
            key, expected = _picture(self._plan, code.seq)
            together = self._waiting.setdefault(key, [])
            together.append(code)
            if len(together) == expected:
                del self._waiting[key]
                yield sorted(together, key=lambda c: c.seq)

    def close(self) -> None:
        """Raises ValueError when a picture lacks codes: half a strip is never drawn."""
        if self._waiting:
            (code_set, number), codes = next(iter(self._waiting.items()))
            _, expected = _picture(self._plan, codes[0].seq)
            raise ValueError(
                f"{len(self._waiting)} pictures lack codes; the first is {self._plan.step.layout} {number} of `{code_set}` with "
                f"{len(codes)} of {expected}. Cut splits at multiples of group_rows and write each with one call"
            )


def _picture(plan: RenderPlan, seq: int) -> tuple[tuple[str, int], int]:
    """The picture (or shard) a code belongs to, and how many codes that has."""
    shape, rows = _home(plan, seq)
    local = seq - shape.first_seq
    match plan.step.layout:
        case "image":
            return (shape.name, local), 1
        case "strip" | "animation":
            return (shape.name, local // shape.frames), shape.frames
    group = local // shape.codes_per_row // rows
    here = min(rows, shape.rows - group * rows)
    if plan.step.layout == "shards":
        return (shape.name, group), here * shape.codes_per_row
    return (shape.name, group * shape.strips + local // shape.frames % shape.strips), here * shape.frames


def _home(plan: RenderPlan, seq: int) -> tuple[CodeSetShape, int]:
    """The code set a code is of, and the rows of its groups."""
    for shape, rows in zip(plan.code_sets, plan.groups, strict=True):
        if shape.first_seq <= seq < shape.end_seq:
            return shape, rows
    raise ValueError(f"seq {seq} is in none of the code sets {[s.name for s in plan.code_sets]}")


def _too_long(step: RenderStep, shape: CodeSetShape, picture: tuple[int, int], strips: int) -> int:
    """The longest side of a picture of `strips` strips when the format cannot hold it, else 0."""
    columns = step.grid_columns or shape.frames
    match step.layout:
        case "strip":
            size = grid_size(1, shape.frames, picture, labelled=step.labels)
        case "grid":
            size = grid_size(-(-strips * shape.frames // columns), columns, picture, labelled=step.labels)
        case _:
            size = picture
    return max(size) if max(size) > MAX_SIDE[step.format] else 0


def _base_recipe(step: RenderStep, codec: str, picture: tuple[int, int]) -> str:
    facts = step.model_dump(exclude={"name", "of", "storage_options", "stage"})
    return fingerprint({"version": RECIPE_VERSION, "codec": codec, "picture": list(picture), **facts})
