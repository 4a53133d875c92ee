"""SeFa: directions from the decoder's first weights alone (Shen and Zhou 2021, closed-form factorisation).

With A (d, outputs) the weights that turn a latent into the first features, every output's column scaled to unit length,
the directions are the eigenvectors of AAᵀ, largest eigenvalue first. The authors' code leaves them in LAPACK's order for
unsymmetric matrices, which is none; `eigh` is sorted and ten times as fast.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from safetensors.torch import load

from schemas.codec import CodecSpec, ConvVAECodec, LinearCodec
from schemas.errors import JobError
from schemas.problems import did_you_mean
from schemas.steps import ComponentsStep
from stages.codecs.weights import TENSOR_FILE, Weights
from stages.components.along import Along, Spread
from stages.components.eigen import Eigen, Floats, leading
from stages.components.found import Found, beyond_rank, direction, failed, measured, words
from stages.components.over_latents import Counted, Over
from stages.directions.direction import FitStatus
from stages.stage import Passes


def default_tensors(spec: CodecSpec) -> str | None:
    """The pattern of the tensors nearest to the latent; None for a family whose weights are not known here."""
    match spec:
        case ConvVAECodec():
            return "stem.weight"
        case LinearCodec():
            return "basis"
        case _:
            return None


def style_tensors(weights: Weights | None, step: ComponentsStep, spec: CodecSpec, *, dim: int) -> list[str]:
    """Names of the tensors to factorise, in order. Raises JobError when there are none, or one has no side of `dim`."""
    at = f"{step.name}.weights"
    pattern = step.weights or default_tensors(spec)
    if weights is None or pattern is None:
        reason = f"the {spec.family} codec here has no weights to factorise."
        raise JobError.one(f"{step.name}.estimator", step.estimator, reason, "use estimator: pca or jacobian")
    entries = weights.entries()
    names = sorted(name for name in entries if fnmatchcase(name, pattern))
    if not names:
        raise JobError.one(at, pattern, f"no tensor of {TENSOR_FILE} has such a name.", did_you_mean(pattern, entries))
    for name in names:
        if _latent_axis(entries[name].shape, dim) is None:
            shape = list(entries[name].shape)
            reason = f"`{name}` is {shape}; its first or second side must be the latent's {dim} numbers."
            raise JobError.one(at, pattern, reason, "name the layer that takes the latent")
    return names


def style_matrix(weights: Weights, names: Sequence[str], *, dim: int) -> Floats:
    """The tensors side by side, (dim, outputs) float64. Raises JobError when one holds NaN or infinity."""
    tensors = load(weights.tensors)
    parts = []
    for name in names:
        tensor = tensors[name].to(torch.float64)
        if not bool(torch.isfinite(tensor).all()):
            raise JobError.one("codec.weights", name, "holds NaN or infinity.", "restore the weights")
        axis = _latent_axis(tuple(tensor.shape), dim)
        assert axis is not None
        parts.append(tensor.movedim(axis, 0).reshape(dim, -1).numpy())
    return np.concatenate(parts, axis=1)


def factorise(matrix: Floats, count: int) -> Eigen:
    """Leading eigenpairs of AAᵀ for A (d, outputs) with its columns made unit length; columns of zeros stay zeros."""
    lengths = np.linalg.norm(matrix, axis=0)
    unit = matrix / np.where(lengths > 0, lengths, 1.0)
    return leading(unit @ unit.T, count)


def sefa(step: ComponentsStep, names: Sequence[str], over: Over, matrix: Floats) -> Passes[Counted[Spread], Found]:
    """One pass, for the mean and spread of the rows along the directions; the directions themselves need no data."""
    dim = len(matrix)
    eigen = factorise(matrix, min(len(names) + 1, dim))
    counted = yield over(Along(eigen.vectors))
    rows = counted.state.rows(non_finite=counted.non_finite)
    if not rows.n:  # the vectors need no data, but what is measured along them does
        return failed(step.estimator, names, rows, FitStatus.NO_ROWS)
    directions = tuple(
        direction(name, step.estimator, eigen.vectors[i], rows, i, raw_norm=1.0, message=words(eigen, i, n=None)[1])
        if i < eigen.rank
        else beyond_rank(name, step.estimator, rows)
        for i, name in enumerate(names)
    )
    # Unit columns: the eigenvalues add up to the number of columns that are not zero.
    total = float((np.linalg.norm(matrix, axis=0) > 0).sum())
    told = measured(eigen, names, rows, metric="weight_energy", total=total, unit="", estimated=False)
    return Found(directions, told)


def _latent_axis(shape: tuple[int, ...], dim: int) -> int | None:
    """Which side of a weight the latent comes in by: PyTorch's Linear and Conv are (out, in, …), transposed ones (in, out, …)."""
    if len(shape) < 2:
        return None
    return next((axis for axis in (1, 0) if shape[axis] == dim), None)
