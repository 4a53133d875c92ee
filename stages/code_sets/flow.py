"""A normalising flow of the latents (package zuko): a density that bends where a Gaussian cannot, fitted to a bounded sample.

A neural spline flow (Durkan et al. 2019, arXiv 1906.04032), masked autoregressive over at most `PASSES` groups of coordinates, in
coordinates that the fitting rows' Gaussian whitens. All splines begin as the identity, so the flow begins as that Gaussian and
leaves it only where rows that stop the training say it should. Fitted by maximum likelihood in float32 on one thread, which
makes the fit of a seed the same on every run of a machine; densities and draws are evaluated in float64.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.errors import JobError, Problem
from stages.row_hash import Hashes, fractions

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

MAX_FLOW_DIM = 256
"""At this dimension a step of the training takes 0.2 s on one core, so a fit at most some six minutes; it grows with d."""
MIN_FLOW_ROWS, ROWS_A_DIMENSION = 50, 4
INSTALL = "pip install 'latentmill[flow]'"
TRANSFORMS, BINS, HIDDEN, PASSES = 3, 8, (64, 64), 8
STEPS, EVERY, PATIENCE = 1500, 25, 8
"""Of the training: at most so many steps; a look at the stopping rows each so many; looks without a better one before it ends."""
BATCH, RATE, WARM, LOOK = 256, 2e-3, 50, 4096
"""Rows and rate of a step of Adam, which grows over the first `WARM` steps, where gradients are noise, then falls as a cosine; rows of a look."""
MEASURED, STOPPING = 0.2, 0.1
"""Shares of the rows, by hash of the id: what the likelihood is measured on, and what ends the training. The rest is fitted to."""
FLAT = 1e-9
"""Principal axes with less than this share of the largest variance are left out: rows that lie in a plane have a density in it alone."""
CHUNK = 64
"""Draws are evaluated so many at a time, each at the place its number gives it, so no batch changes a draw's last bits."""


_ALONE = Lock()


def missing_zuko() -> bool:
    """Whether the package that flows need is not installed."""
    return find_spec("zuko") is None


@dataclass(frozen=True, eq=False)
class Whitening:
    """The Gaussian of some rows: `mean` (d,), the r principal `axes` (d, r) along which they vary, as columns, and their `scales` (r,).

    Densities are those within the span of the axes.
    """

    mean: Array
    axes: Array
    scales: Array

    @classmethod
    def of(cls, rows: Array) -> "Whitening":
        """Of rows (n, d) that vary."""
        mean = rows.mean(0)
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(rows.T)))
        varies = values > FLAT * values.max()
        return cls(mean, vectors[:, varies], np.sqrt(values[varies]))

    def whitened(self, rows: Array) -> Array:
        return np.asarray((rows - self.mean) @ self.axes / self.scales)

    def coloured(self, whitened: Array) -> Array:
        return np.asarray(self.mean + (whitened * self.scales) @ self.axes.T)

    def log_density(self, whitened: Array) -> Array:
        """Of the Gaussian at rows given by their whitened coordinates, nats, (n,)."""
        return np.asarray(_standard(whitened) - np.log(self.scales).sum())


@dataclass(eq=False)
class Flow:
    """A fitted flow: `whitening`, and the network's `weights` by name. Picklable plain data; the network is made anew where it is used."""

    whitening: Whitening
    weights: Mapping[str, npt.NDArray[Any]]
    seed: int
    _network: Any = field(default=None, repr=False)

    @property
    def dim(self) -> int:
        """In how many dimensions the rows vary; at most d."""
        return len(self.whitening.scales)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_network": None}

    def draw(self, numbers: npt.NDArray[np.int64], places: Array, noise: Array, *, temperature: float) -> Array:
        """One draw a row of `noise` (n, d), standard normal; `numbers` (n,) tell draws apart. `places` are of no use to a flow."""
        drawn = np.empty_like(noise)
        for chunk in np.unique(numbers // CHUNK):
            mine = np.flatnonzero(numbers // CHUNK == chunk)
            padded = np.zeros((CHUNK, self.dim))
            padded[numbers[mine] % CHUNK] = temperature * noise[mine, : self.dim]
            drawn[mine] = self.whitening.coloured(self._backward(padded))[numbers[mine] % CHUNK]
        return drawn

    def log_density(self, rows: Array) -> Array:
        """Of rows (n, d), nats, (n,)."""
        import torch

        whitened = self.whitening.whitened(rows)
        with _one_thread(), torch.no_grad():
            parts = [_log_likelihood(self._opened(), part) for part in torch.split(torch.from_numpy(whitened), LOOK)]
        return np.asarray(torch.cat(parts).numpy() - np.log(self.whitening.scales).sum())

    def _backward(self, noise: Array) -> Array:
        import torch

        with _one_thread(), torch.no_grad():
            return np.asarray(self._opened()().transform.inv(torch.from_numpy(noise)).numpy())

    def _opened(self) -> Any:
        if self._network is None:
            import torch

            network = _network(self.dim, self.seed)
            network.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in self.weights.items()})
            self._network = network.double().eval()
        return self._network


@dataclass(frozen=True, eq=False)
class FittedFlow:
    """A flow; `rows` it was fitted to, training `steps` until the weights that were kept (0: none was better than the Gaussian).

    `log_density` and `gaussian` (m,): of the rows held out to measure on, in nats, the flow's and that of the Gaussian of the same
    fitting rows; `hashes` (m,) are theirs.
    """

    flow: Flow
    rows: int
    steps: int
    hashes: Hashes
    log_density: Array
    gaussian: Array


def flow_problems(dim: int | None, *, at: str) -> Iterator[Problem]:
    """Why latents of `dim` numbers (None: not known yet) get no flow here."""
    if missing_zuko():
        yield Problem(f"{at}.method", "flow", "zuko is not installed.", f"{INSTALL}, or use method: gmm")
    if dim is not None and dim > MAX_FLOW_DIM:
        reason = f"a latent has {dim} numbers; flows end at {MAX_FLOW_DIM}."
        yield Problem(f"{at}.method", "flow", reason, "use method: gaussian, or gmm with covariance: diagonal")


def fit_flow(latents: npt.NDArray[np.float32], hashes: Hashes, *, seed: int, at: str) -> FittedFlow:
    """Fits a flow to rows (n, d) with `hashes` (n,) of their ids. Raises JobError for rows that are too few or all the same, and as `flow_problems`."""
    if problems := list(flow_problems(latents.shape[1], at=at)):
        raise JobError(problems)
    if len(latents) < (needed := max(MIN_FLOW_ROWS, ROWS_A_DIMENSION * latents.shape[1])):
        reason = f"there are {len(latents)} rows with latents; a flow needs {needed}."
        raise JobError.one(f"{at}.method", "flow", reason, "encode more images, or use method: gaussian")
    rows, share = latents.astype(np.float64), fractions(hashes, f"flow {seed}")
    # By rank, so that small samples have rows of every kind; ranks of a hash follow from the ids alone.
    order, n = np.argsort(share, kind="stable"), len(latents)
    measured, stopping, fitted = np.split(order, [round(MEASURED * n), round((MEASURED + STOPPING) * n)])
    if not (rows[fitted].std(0) > 0).any():
        raise JobError.one(f"{at}.method", "flow", "the rows' latents are all the same.", "choose other rows")
    whitening = Whitening.of(rows[fitted])
    with _one_thread():
        weights, steps = _trained(whitening.whitened(rows[fitted]), whitening.whitened(rows[stopping]), seed)
    flow = Flow(whitening, weights, seed)
    found = flow.log_density(rows[measured])
    gaussian = whitening.log_density(whitening.whitened(rows[measured]))
    return FittedFlow(flow, len(fitted), steps, hashes[measured], found, gaussian)


def _trained(fitted: Array, stopping: Array, seed: int) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """The weights with the best likelihood of the stopping rows, and after how many steps they were."""
    import torch

    network = _network(fitted.shape[1], seed)
    rows, judges = (torch.from_numpy(part.astype(np.float32)) for part in (fitted, stopping))
    adam = torch.optim.Adam(network.parameters(), lr=RATE)
    paced = torch.optim.lr_scheduler.LambdaLR(adam, _pace)
    draws = torch.Generator().manual_seed(seed % 2**63)
    best, kept, at = -np.inf, _arrays(network), 0
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                likely = float(torch.cat([_log_likelihood(network, part) for part in torch.split(judges, LOOK)]).mean())
            if likely > best:
                best, kept, at = likely, _arrays(network), step
            elif step - at >= EVERY * PATIENCE:
                break
        batch = rows[torch.randint(len(rows), (min(BATCH, len(rows)),), generator=draws)]
        adam.zero_grad()
        loss = -_log_likelihood(network, batch).mean()
        if not torch.isfinite(loss):
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        adam.step()
        paced.step()
    return kept, at


def _pace(step: int) -> float:
    return min((step + 1) / WARM, 0.5 + 0.5 * math.cos(math.pi * step / STEPS))


def _network(dim: int, seed: int) -> Any:
    """The untrained flow: the identity. Every second transform has the order of the one before it turned round."""
    import torch
    from zuko.distributions import DiagNormal
    from zuko.flows.autoregressive import MaskedAutoregressiveTransform
    from zuko.lazy import Flow as Lazy
    from zuko.lazy import UnconditionalDistribution
    from zuko.transforms import MonotonicRQSTransform

    orders = np.random.default_rng(seed)
    transforms, order = [], np.arange(dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        for i in range(TRANSFORMS):
            order = dim - 1 - order if i % 2 else orders.permutation(dim)
            transform = MaskedAutoregressiveTransform(
                dim,
                passes=PASSES,
                order=torch.from_numpy(order),
                univariate=MonotonicRQSTransform,
                shapes=[(BINS,), (BINS,), (BINS - 1,)],
                hidden_features=HIDDEN,
            )
            # Of one dimension zuko makes splines without a network, whose knots are the parameters.
            knots = transform.hyper[-1] if dim > 1 else transform
            for parameter in knots.parameters():
                torch.nn.init.zeros_(parameter)
            transforms.append(transform)
    base = UnconditionalDistribution(DiagNormal, loc=torch.zeros(dim), scale=torch.ones(dim), buffer=True)
    return Lazy(transforms, base)


def _log_likelihood(network: Any, whitened: "torch.Tensor") -> Any:
    return network().log_prob(whitened)


def _arrays(network: Any) -> dict[str, npt.NDArray[Any]]:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


def _standard(rows: Array) -> Array:
    """log N(0, I) at rows (n, d)."""
    return np.asarray(-0.5 * (rows**2).sum(1) - 0.5 * rows.shape[1] * np.log(2 * np.pi))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Steps this small wait for threads longer than they work, and sums cut by threads would round by the machine."""
    import torch

    with _ALONE:  # two that came and went crosswise would leave the process with one thread
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
