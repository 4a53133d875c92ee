"""Interpolate: pairs of latents → codes along the path between them, one strip a pair, `frames` codes from t = 0 to t = 1.

The formulas are `stages.code_sets.interpolation`'s. A pair without a path is not dropped: its strip keeps its place in the
numbering, with null latents and the reason as a flag, and becomes a renders row with that status.
"""

import copy
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.identity import canonical_json, row_seed
from schemas.steps import InterpolateStep
from stages.code_sets.codes import Strips, codes_batch, strip_name
from stages.code_sets.interpolation import Path, PathStatus, constant_norm, endpoints_change, lerp, slerp
from stages.code_sets.parents import read_parents

MISSING = "missing"
"""Flag of a pair one of whose images has no latent."""


def method_of(step: InterpolateStep, spec: LatentSpec) -> str:
    """The method a step means: `auto` is slerp where latents lie on a centred shell, else lerp (latent-science §2)."""
    if step.method != "auto":
        return step.method
    return "slerp" if spec.centred_shell else "lerp"


class Interpolate:
    """Expands pairs into strips. Picklable plain data; call it with batches of two parents (stages.code_sets.parents).

    Raises JobError when `per_channel` is asked of latents that have no places besides channels.
    """

    frames_unit = "t"
    parents = 2

    def __init__(self, step: InterpolateStep, spec: LatentSpec, *, first_seq: int = 0) -> None:
        self._step, self._spec, self._first_seq = step, spec, first_seq
        self._method = method_of(step, spec)
        if step.per_channel and len(spec.shape) < 2:
            raise JobError.one(
                "interpolate.per_channel",
                True,
                f"latents of shape {list(spec.shape)} have no channels.",
                "set it to false",
            )

    @property
    def strips(self) -> int:
        """Strips a pair: one."""
        return 1

    @property
    def frames(self) -> int:
        """Frames a strip, both ends included."""
        return self._step.frames

    def numbered_from(self, first_seq: int) -> Self:
        """The same stage, its codes numbered from `first_seq`: its place in a render of several code sets."""
        other = copy.copy(self)
        other._first_seq = first_seq
        return other

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = read_parents(batch, self._spec, self.parents)
        # Any harmless value where a latent is missing: the row is flagged and its codes are null.
        ends = np.where(rows.present[:, None, None], rows.latents, 1.0)
        a, b = ends.swapaxes(0, 1).reshape(2, len(rows), *self._spec.shape)
        path = self._path(a, b, rows.ids)
        operation = self._operation()
        return codes_batch(
            Strips(
                first_seq=self._first_seq + rows.seq * self.frames,
                names=[strip_name(*ids) for ids in rows.ids],
                parents=rows.ids,
                operations=[operation] * len(rows),
                titles=[self._method] * len(rows),
                flags=self._flags(path, rows.present, a, b),
                strengths=np.linspace(0.0, 1.0, self.frames).tolist(),
                unit=self.frames_unit,
                latents=path.values,
                usable=rows.present & (path.status == PathStatus.OK),
            ),
            code_set=str(self._step.name or self._step.stage),
            spec=self._spec,
        )

    def _path(self, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], ids: list[list[str]]) -> Path:
        times = np.linspace(0.0, 1.0, self.frames)
        match self._method:
            case "lerp":
                return lerp(a, b, times)
            case "constant_norm":
                return constant_norm(a, b, times, per_channel=self._step.per_channel)
            case _:
                # One seed a pair, the same whichever end comes first, so that both ways share their detour.
                named = ("|".join(sorted(pair)) for pair in ids)
                seeds = [row_seed(name, str(self._step.name), self._step.seed) for name in named]
                return slerp(
                    a,
                    b,
                    times,
                    per_channel=self._step.per_channel,
                    antipodal=self._step.antipodal,
                    seeds=np.array(seeds, np.uint64),
                )

    def _flags(
        self, path: Path, present: npt.NDArray[np.bool_], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
    ) -> list[list[str]]:
        flags = [[MISSING] if not here else _unless_ok(str(s)) for here, s in zip(present, path.status, strict=True)]
        if self._method == "constant_norm":
            changed = endpoints_change(a, b, per_channel=self._step.per_channel)
            for row in np.flatnonzero(changed & present & (path.status == PathStatus.OK)):
                flags[row].append("endpoints_rescaled")
        return flags

    def _operation(self) -> str:
        keep = {"stage": self._step.stage, "step": self._step.name, "method": self._method, "frames": self.frames}
        spatial = {"per_channel": True} if self._step.per_channel else {}
        detour = {"antipodal": self._step.antipodal, "seed": self._step.seed} if self._method == "slerp" else {}
        return canonical_json({**keep, **spatial, **detour}).decode()


def _unless_ok(status: str) -> list[str]:
    return [] if status == PathStatus.OK else [status]
