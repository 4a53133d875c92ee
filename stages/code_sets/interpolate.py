"""Interpolate: pairs or sets of latents → codes along the path between or through them, or their means; one strip a row.

The formulas are in `interpolation`, `means`, `splines`, `mixed_paths` and `geodesic` beside this file. A row without a path is
not dropped: its strip keeps its place in the numbering, with null latents and the reason as a flag, and becomes a renders
row with that status.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.errors import JobError, Problem
from schemas.identity import row_seed
from schemas.steps import InterpolateStep
from stages.code_sets.codes import Strip, Strips, codes_batch, operation
from stages.code_sets.interpolation import constant_norm, lerp, slerp, slerp_radius
from stages.code_sets.means import karcher, lerp_mean, lol
from stages.code_sets.mixed_paths import posterior, two_part
from stages.code_sets.noise import normal_rows, streams
from stages.code_sets.parents import MISSING, read_parents
from stages.code_sets.parts import part_problems, parts_of
from stages.code_sets.path import Array, Path, PathStatus, Rows
from stages.code_sets.splines import catmull_rom, squad

if TYPE_CHECKING:
    from stages.codecs.base import Codec

TITLES = {
    "slerp_radius": "slerp, {radius} radius",
    "constant_norm": "constant norm",
    "lol": "variance-preserving (LOL)",
    "posterior": "posterior",
    "two_part": "two parts: lerp, slerp",
    "catmull_rom": "Catmull-Rom, {knots}",
    "squad": "SQUAD, {radius} radius",
    "karcher": "Karcher mean, {radius} radius",
}
_PART_SALT = 0x9E3779B97F4A7C15


def method_of(step: InterpolateStep, spec: LatentSpec) -> str:
    """The method a step means. `auto` goes by the codec's declared space (latent-science §2):

    - `centred_shell`: draws of N(0, I) lie near radius √d around 0. GAN Z, DDIM noise, the base of a flow. → slerp; squad
      through several; lol for means.
    - anything else is no centred shell: W and W+, the posterior means of VAEs, KL-f8 (Stable Diffusion), DC-AE, RAE.
      → lerp; catmull_rom through several; the plain mean.
    """
    if step.method != "auto":
        return step.method
    if step.weights is not None:
        return "lol" if spec.centred_shell else "lerp"
    if step.parents != 2:
        return "squad" if spec.centred_shell else "catmull_rom"
    return "slerp" if spec.centred_shell else "lerp"


def interpolate_problems(
    step: InterpolateStep, spec: LatentSpec, *, has_logvar: bool, at: str = "interpolate"
) -> Iterator[Problem]:
    """What of a step does not fit the codec: for plans, and for whoever builds the stage."""
    yield from part_problems(spec, per=step.per, layers=step.layers, mask=step.mask, at=at)
    if step.method == "posterior" and not has_logvar:
        fix = "use lerp, or encode with a vae and store_logvar: true"
        yield Problem(f"{at}.method", step.method, "there is no logvar beside these latents.", fix)
    if step.split is not None and step.split >= spec.dim:
        yield Problem(f"{at}.split", step.split, f"the latent has {spec.dim} numbers.", f"use 1 to {spec.dim - 1}")
    if step.around == "prior" and spec.prior == "none":
        yield Problem(f"{at}.around", step.around, "the codec declares no prior.", "use around: data")


def needs_data_mean(step: InterpolateStep, spec: LatentSpec) -> bool:
    """Whether the dataset's mean is to be known before codes can be made."""
    wanted = step.around == "data" or (step.around == "auto" and spec.prior == "none")
    return method_of(step, spec) == "lol" and wanted


class Interpolate:
    """Expands pairs or sets into strips. Picklable plain data; call it with batches of `parents` (stages.code_sets.parents).

    `mean` (d,): the dataset's mean, where `needs_data_mean`. A geodesic needs the codec beside each batch (`needs_codec`).
    Raises JobError when the step does not fit the latents.
    """

    def __init__(self, step: InterpolateStep, spec: LatentSpec, *, mean: npt.ArrayLike | None = None) -> None:
        # Whether a logvar column is there is the table's to say: whoever reads it has checked.
        if problems := list(interpolate_problems(step, spec, has_logvar=True)):
            raise JobError(problems)
        if needs_data_mean(step, spec) and mean is None:
            raise JobError.one(
                "interpolate.around", step.around, "the data's mean is not known.", "encode some rows first"
            )
        self._step, self._spec = step, spec
        self._method = method_of(step, spec)
        self._parts = parts_of(spec, per=step.per, layers=step.layers, mask=step.mask)
        self._mean = np.zeros(spec.dim) if mean is None else np.asarray(mean, np.float64)
        self._times = np.linspace(0.0, 1.0, step.frames)
        self._weights = _weights(step)

    @property
    def parents(self) -> int:
        """Images a row is made from."""
        return self._step.parents

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of each of them."""
        return ("latent", "logvar") if self._method == "posterior" else ("latent",)

    @property
    def needs_codec(self) -> bool:
        return self._method == "geodesic"

    @property
    def strips(self) -> int:
        """Strips a row: one, or one a posterior draw."""
        return self._step.draws if self._method == "posterior" else 1

    @property
    def frames(self) -> int:
        """Frames a strip: points of a path, both ends included, or means."""
        return self._step.frames if self._weights is None else len(self._weights)

    def __call__(self, batch: pa.RecordBatch, codec: "Codec | None" = None) -> pa.RecordBatch:
        rows = read_parents(batch, self._spec, self.parents)
        present, logvars = rows.present, None
        if "logvar" in self.columns:
            beside = read_parents(batch, self._spec, self.parents, column="logvar")
            present, logvars = present & beside.present, beside.latents
        # Any harmless value where a latent is missing: the row is flagged and its codes are null.
        keys = np.where(present[:, None, None], rows.latents, 1.0)
        paths = [self._path(keys, logvars, rows.ids, present, strip, codec) for strip in range(self.strips)]
        status = np.stack([path.status for path in paths], axis=1)
        odd = {name for path in paths for name in path.flags}
        none, times = (
            np.zeros(len(rows), np.bool_),
            self._times if self._weights is None else 1.0 + np.arange(self.frames),
        )
        strips = Strips(
            of=[[self._strip(path, row, s) for s, path in enumerate(paths)] for row in range(len(rows))],
            strengths=times.tolist(),
            unit="t" if self._weights is None else "mean",
            latents=np.stack([path.values for path in paths], axis=1),
            lost=np.where(present[:, None], np.where(status == PathStatus.OK, "", status), MISSING),
            marks={
                n: np.repeat(np.stack([p.flags.get(n, none) for p in paths], axis=1), self.frames) for n in sorted(odd)
            },
        )
        return codes_batch(strips, rows, self._step, self._spec)

    def _path(
        self,
        keys: Array,
        logvars: Array | None,
        ids: list[list[str]],
        present: Rows,
        strip: int,
        codec: "Codec | None",
    ) -> Path:
        """keys (n, k, d) → a path of n rows of d. What comes of a row that is not `present` (n,) does not matter."""
        match self._method:
            case "posterior":
                assert logvars is not None
                salt = f"{self._step.name}/draw {strip + 1}"
                noise = normal_rows(streams(_named(ids), step=salt, seed=self._step.seed), self._spec.dim)
                ends = (keys[:, 0], keys[:, 1], logvars[:, 0], logvars[:, 1])
                return posterior(*ends, self._times, noise=noise)
            case "geodesic":
                assert codec is not None, "the codec comes beside each batch"
                return _geodesics(self._step, codec, keys, present)
        seeds = np.array([row_seed(n, str(self._step.name), self._step.seed) for n in _named(ids)], np.uint64)
        parts = np.arange(len(self._parts), dtype=np.uint64) * np.uint64(_PART_SALT)
        path = self._flat(self._parts.cut(keys), (seeds[:, None] ^ parts).ravel())
        return self._parts.joined(path, keys[:, 0])

    def _flat(self, keys: Array, seeds: npt.NDArray[np.uint64]) -> Path:
        """keys (m, k, size), one part a row."""
        step, t, weights = self._step, self._times, self._weights
        a, b = keys[:, 0], keys[:, -1]
        match self._method:
            case "lerp":
                return lerp(a, b, t) if weights is None else lerp_mean(keys, weights)
            case "slerp":
                return slerp(a, b, t, antipodal=step.antipodal, seeds=seeds)
            case "slerp_radius":
                return slerp_radius(a, b, t, radius=step.radius, antipodal=step.antipodal, seeds=seeds)
            case "constant_norm":
                return constant_norm(a, b, t)
            case "two_part":
                assert step.split is not None
                return two_part(a, b, t, split=step.split, antipodal=step.antipodal, seeds=seeds)
            case "lol":
                mean = np.tile(self._mean[self._parts.index], (len(keys) // len(self._parts), 1))
                return lol(keys, np.stack([1 - t, t], axis=1) if weights is None else weights, mean=mean)
            case "karcher":
                assert weights is not None
                return karcher(keys, weights, radius=step.radius)
            case "squad":
                return squad(keys, t, radius=step.radius)
            case _:
                return catmull_rom(keys, t, knots=step.knots)

    def _strip(self, path: Path, row: int, draw: int) -> Strip:
        about = f"draw {draw + 1}" if self.strips > 1 else ""
        return Strip(self._title(), self._operation(path, row, draw), about)

    def _title(self) -> str:
        title = TITLES.get(self._method, self._method)
        return title.format(radius=self._step.radius, knots=self._step.knots)

    def _operation(self, path: Path, row: int, strip: int) -> str:
        """What was done, and what was found out on the way (`found`): canonical JSON, the same for all frames of a strip."""
        step = self._step
        default = {name: field.default for name, field in type(step).model_fields.items()}
        options = ("radius", "around", "knots", "split", "iterations", "tolerance", "per", "layers", "mask", "weights")
        said = [name for name in options if getattr(step, name) != default[name]]
        seeded = self._method in ("slerp", "slerp_radius", "two_part")
        detour = {"antipodal": step.antipodal, "seed": step.seed} if seeded else {}
        draw = {"draw": strip, "seed": step.seed} if self._method == "posterior" else {}
        found = {"found": dict(path.facts[row])} if path.facts else {}
        return operation(step, *said, method=self._method, frames=self.frames, **detour, **draw, **found)


def _named(ids: list[list[str]]) -> list[str]:
    """A name a row for its random numbers, the same whichever end comes first, so that both ways share them."""
    return ["|".join(sorted(row)) for row in ids]


def _weights(step: InterpolateStep) -> Array | None:
    if step.weights is None:
        return None
    return np.full((1, step.parents), 1 / step.parents) if step.weights == "equal" else np.array(step.weights)


def _geodesics(step: InterpolateStep, codec: "Codec", keys: Array, present: Rows) -> Path:
    """A row that is not `present` (n,) is not looked for, and has no report. Raises JobError for a codec without gradients."""
    import torch  # only for jobs that look for geodesics

    from stages.code_sets.geodesic import geodesic

    if "gradient" not in codec.can:
        reason, fix = "this codec has no decoder with gradients.", "use lerp or slerp"
        raise JobError.one("interpolate.method", "geodesic", reason, fix)

    def pictures(flat: torch.Tensor) -> torch.Tensor:
        return codec.decode_float(flat.reshape(len(flat), *codec.latent.shape))

    values = np.full((len(keys), step.frames, keys.shape[2]), np.nan)
    status = np.full(len(keys), PathStatus.OK, dtype="<U16")
    unfinished = np.zeros(len(keys), bool)
    facts: list[dict[str, Any]] = [{} for _ in keys]
    for row, (a, b) in enumerate(keys):
        if not present[row]:
            continue
        if not np.isfinite(keys[row]).all():
            status[row] = PathStatus.NAN_INPUT
            continue
        found = geodesic(a, b, step.frames, pictures=pictures, iterations=step.iterations, tolerance=step.tolerance)
        if found is None:
            status[row] = PathStatus.NON_FINITE
            continue
        values[row], unfinished[row], facts[row] = found.latents, not found.converged, dict(found.facts())
    return Path(values, status, {"not_converged": unfinished}, facts)
