"""Training of conv_vae: a generator of losses that leaves config.json, model.safetensors and history.json behind.

Invariant: a training that was interrupted and resumed equals one that was not, bit for bit on the CPU (same machine, same
thread count: convolutions add up their gradients by thread). Every step is a function of the state and the step's number;
the state is one checkpoint file. The bytes leave through a callback: this module knows no bucket.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from schemas.codec import Preprocess
from schemas.errors import TrainingError
from schemas.identity import fingerprint
from schemas.steps import TrainStep
from stages.checkpoint import History, pack, unpack, weights_bytes
from stages.codecs.conv_config import ConvVAEConfig, config_of
from stages.codecs.conv_network import ConvNetwork
from stages.codecs.weights import CONFIG_FILE, TENSOR_FILE, Weights
from stages.objective import Objective, objective
from stages.schedule import Shuffle, learning_rate, noise

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.json"
_CURVE_POINTS = 500
_SAMPLED_PICTURES = 256
_MAX_GRADIENT_NORM = 1.0  # of the loss in nats per number of the picture

Load = Callable[[str], bytes | None]
Save = Callable[[str, bytes], None]
Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TrainPoint:
    """Losses of one step (counted from 1) in nats per image: `loss` = `reconstruction` + β·`kl`."""

    step: int
    loss: float
    reconstruction: float
    kl: float


class Trainer:
    """Trains one codec on `device`. Raises JobError when the step's stages do not divide the picture."""

    def __init__(self, step: TrainStep, preprocess: Preprocess, *, device: str = "cpu") -> None:
        self.config: ConvVAEConfig = config_of(step, preprocess)
        self._step = step
        self._preprocess = preprocess
        self._device = torch.device(device)
        self._model = _new_network(self.config, seed=step.seed).to(self._device)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=step.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
        )

    def run(self, images: Pictures, *, load: Load, save: Save) -> Iterator[TrainPoint]:
        """Trains on `images` (n, height, width, 3) uint8, an array or a memory map, from the last checkpoint if there is one.

        Yields every step it does. `save(name, data)` has to be atomic; `load(name)` gives None where there is nothing.
        config.json comes last, so where it is, the training is over. Raises TrainingError when there are no images, they
        have another shape, or the loss is not finite.
        """
        _check(images, self.config.picture)
        identity = self._identity(images)
        state = load(CHECKPOINT_FILE)
        done, history = unpack(state, self._model, self._optimizer, identity=identity) if state else (0, [])
        shuffle = Shuffle(count=len(images), batch=self._step.batch_size, seed=self._step.seed)
        every = max(1, self._step.steps // _CURVE_POINTS)
        for at in range(done, self._step.steps):
            point = self._update(images[shuffle.rows(at)], at)
            if point.step % every == 0 or point.step == self._step.steps:
                history.append(asdict(point))
            if point.step % self._step.checkpoint_every == 0:
                save(CHECKPOINT_FILE, self._packed(identity, point.step, history))
            yield point
        self._finish(history, save)

    def _update(self, pictures: Pictures, at: int) -> TrainPoint:
        """One optimiser step, number `at` from 0."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(at, steps=self._step.steps, peak=self._step.learning_rate)
        result = self._forward(pictures, noise((len(pictures), self._step.latent_dim), seed=self._step.seed, step=at))
        self._optimizer.zero_grad(set_to_none=True)
        # Per number of the picture, so that gradients are of one size whatever the picture's.
        (result.loss / (math.prod(self.config.picture) * 3)).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), _MAX_GRADIENT_NORM)
        point = TrainPoint(at + 1, result.loss.item(), result.reconstruction.item(), result.kl.item())
        if not (math.isfinite(point.loss) and math.isfinite(norm.item())):
            raise TrainingError(
                f"step {point.step} of {self._step.steps}: the loss is {point.loss} and its gradient {norm.item()}. "
                f"Fix: lower learning_rate (now {self._step.learning_rate:g})"
                + (" or set precision: fp32" if self._step.precision == "bf16" else "")
            )
        self._optimizer.step()
        return point

    def _forward(self, pictures: Pictures, draws: torch.Tensor) -> Objective:
        pixels = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device).permute(0, 3, 1, 2)
        x = pixels.to(torch.float32, memory_format=torch.channels_last) / 255
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._step.precision == "bf16"):
            mean, logvar = self._model.posterior(x)
            mean = mean.to(torch.float32)
            z = mean
            if logvar is not None:
                logvar = logvar.to(torch.float32)
                z = mean + draws.to(self._device) * torch.exp(0.5 * logvar)
            generated = self._model.generate(z)
        return objective(x, generated, mean=mean, logvar=logvar, beta=self._step.beta)

    def _finish(self, history: History, save: Save) -> None:
        tensors = weights_bytes(self._model)
        config = self.config.model_copy(update={"weights_sha256": Weights({}, tensors).sha256()})
        save(HISTORY_FILE, json.dumps(history).encode())
        save(TENSOR_FILE, tensors)
        save(CONFIG_FILE, config.model_dump_json(indent=2).encode())

    def _packed(self, identity: str, steps: int, history: History) -> bytes:
        return pack(self._model, self._optimizer, identity=identity, steps=steps, history=history)

    def _identity(self, images: Pictures) -> str:
        """What a checkpoint must share to be gone on from: the step, the preprocessing, and the pictures by a sample."""
        sample = np.linspace(0, len(images) - 1, min(len(images), _SAMPLED_PICTURES)).astype(np.int64)
        step = self._step.model_copy(update={"name": None, "to": None, "checkpoint_every": 1})
        pictures = {"count": len(images), "sample": xxhash.xxh3_128_hexdigest(images[sample].tobytes())}
        return fingerprint({"step": step, "preprocess": self._preprocess, "pictures": pictures})


def _new_network(config: ConvVAEConfig, *, seed: int) -> ConvNetwork:
    """The network at step 0. The caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed % 2**63)
        return ConvNetwork(config)


def _check(images: Pictures, picture: tuple[int, int]) -> None:
    if not len(images):
        raise TrainingError("there are no images to train on: every one failed to read, or the source is empty")
    if images.shape[1:] != (*picture, 3) or images.dtype != np.uint8:
        raise TrainingError(
            f"images are {images.dtype} {list(images.shape)}, not uint8 [n, {picture[0]}, {picture[1]}, 3]: "
            "preprocess them with the codec's own settings"
        )
