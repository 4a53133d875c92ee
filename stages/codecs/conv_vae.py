"""A small convolutional autoencoder: AE, VAE or β-VAE by its config (Kingma & Welling 2014; Higgins et al. 2017).

Latents are posterior means. Precision is the dtype of the convolutions: `fp32` (true float32, no TF32), `bf16` or `fp16`;
the linear layers next to the latents and the last sigmoid are always float32. Batch invariance: a row's float32 mean
moves by less than 1e-5 with the batch it is in (measured 3e-6 on trained weights, 6e-3 in bf16; CPU, batches of 1 to
200), because kernels choose their summation order by shape.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from safetensors.torch import load
from torch import nn

from schemas.codec import ConvVAECodec
from schemas.errors import JobError
from stages.codecs.abilities import AUTOENCODER, VARIATIONAL
from stages.codecs.base import Encoded, Unscaled
from stages.codecs.conv_config import ConvVAEConfig, parse_config
from stages.codecs.conv_network import ConvNetwork
from stages.codecs.pictures import to_uint8
from stages.codecs.weights import TENSOR_FILE, Weights

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Posterior = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]


class ConvVAE(Unscaled):
    """An opened conv_vae. The prior is N(0, I) for a vae; an ae has none."""

    def __init__(self, spec: ConvVAECodec, weights: Weights, *, device: str = "cpu") -> None:
        config = parse_config(weights.config)
        self.picture = config.picture
        self.latent = config.latent
        self.can = VARIATIONAL if config.variant == "vae" else AUTOENCODER
        self._dtype = _DTYPES[spec.precision]
        self._memory = torch.channels_last if spec.channels_last else torch.contiguous_format
        self._device = device
        self._network = self._prepare(_network_of(config, weights))
        self._posterior: Posterior = self._network.posterior
        self._generate: Callable[[torch.Tensor], torch.Tensor] = self._network.generate
        if spec.compile:
            self._compile()

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> Encoded:
        """(n, height, width, 3) uint8 → mean and, for a vae, logvar, (n, latent_dim) float32."""
        with _true_float32():
            mean, logvar = self._posterior(self._input(pixels))
        return Encoded(mean.contiguous(), None if logvar is None else logvar.contiguous())

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, latent_dim) → (n, height, width, 3) uint8."""
        return to_uint8(self._pictures(latents, self._generate)).contiguous()

    def decode_float(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, latent_dim) → (n, height, width, 3) float32 in [0, 1]; differentiable, so never compiled."""
        return self._pictures(latents, self._network.generate)

    @property
    def layers(self) -> nn.Module:
        """`stem`, then `decoder.0`, `decoder.1`, …: what the latent goes through."""
        return self._network

    @property
    def default_layer(self) -> str:
        """The first one that is not linear in the latent."""
        return "decoder.1"

    def sample_prior(self, seeds: np.ndarray) -> torch.Tensor | None:
        """One draw of N(0, I) a seed, (n, latent_dim) float32: a row's draw depends on its seed alone."""
        if self.latent.prior == "none":
            return None
        draws = [np.random.Generator(np.random.Philox(int(seed))).standard_normal(self.latent.dim) for seed in seeds]
        values = np.asarray(draws, dtype=np.float32).reshape(len(draws), *self.latent.shape)
        return torch.from_numpy(values).to(self._device)

    def log_prior(self, latents: torch.Tensor) -> torch.Tensor | None:
        """log N(z; 0, I) in nats, (n,) float64."""
        if self.latent.prior == "none":
            return None
        square = latents.to(torch.float64).flatten(1).square().sum(dim=1)
        return -0.5 * (square + self.latent.dim * math.log(2 * math.pi))

    def _prepare(self, network: ConvNetwork) -> ConvNetwork:
        """Inference form: 1/255 goes into the first convolution, so pixels enter as they are; head and stem stay float32."""
        first = network.encoder[0]
        assert isinstance(first, nn.Conv2d)
        with torch.no_grad():
            first.weight.div_(255.0)
        network.requires_grad_(False).eval()
        network.encoder.to(self._dtype)
        network.decoder.to(self._dtype)
        network.to(self._device)
        return network.to(memory_format=self._memory)  # type: ignore[call-overload, no-any-return]

    def _pictures(self, latents: torch.Tensor, generate: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        with _true_float32():
            return generate(latents.to(self._device, torch.float32)).permute(0, 2, 3, 1)

    def _input(self, pixels: torch.Tensor) -> torch.Tensor:
        # NHWC seen as NCHW is channels_last memory already: one pass converts, and copies only where the order changes.
        view = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        return view.to(self._dtype, memory_format=self._memory)

    def _compile(self) -> None:
        """Compiles both ways and runs them once, so a machine that cannot compile says so here and not row by row."""
        self._posterior = torch.compile(self._network.posterior, dynamic=True)
        self._generate = torch.compile(self._network.generate, dynamic=True)
        try:
            pictures = torch.zeros((2, *self.picture, 3), dtype=torch.uint8)
            self.decode(self.encode(pictures).mean)
        except RuntimeError as error:
            raise JobError.one(
                "codec.compile",
                True,
                f"torch.compile failed here ({error}).",
                "install a C++ compiler, or set compile: false",
            ) from error


def _network_of(config: ConvVAEConfig, weights: Weights) -> ConvNetwork:
    """The network with its tensors in float32. Raises JobError listing what does not fit the config."""
    with torch.device("meta"):
        network = ConvNetwork(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: entry.shape for name, entry in weights.entries().items()}
    tensors = load(weights.tensors)
    wrong = [f"{n} is missing" for n in sorted(wanted.keys() - found.keys())]
    wrong += [f"{n} is unknown" for n in sorted(found.keys() - wanted.keys())]
    wrong += [
        f"{n} is {list(found[n])}, not {list(wanted[n])}"
        for n in sorted(wanted.keys() & found.keys())
        if found[n] != wanted[n]
    ]
    wrong += [f"{n} is {t.dtype}, not a float" for n, t in sorted(tensors.items()) if not t.is_floating_point()]
    wrong += [f"{n} holds NaN or infinity" for n, t in sorted(tensors.items()) if not bool(torch.isfinite(t).all())]
    if wrong:
        listed = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise JobError.one(
            f"codec.weights/{TENSOR_FILE}",
            None,
            f"tensors do not fit config.json: {listed}.",
            "use config.json and model.safetensors of one training",
        )
    network.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()}, assign=True)
    return network


def _true_float32() -> AbstractContextManager[None]:
    """cuDNN convolutions default to TF32 (10 bits of mantissa); `fp32` has to mean float32 on every device."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
