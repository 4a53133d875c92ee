"""A training's state as the bytes of one safetensors file, so that writing it is one atomic act.

Tensors: `model.<name>`, and AdamW's `adam.<key>.<name>`. JSON in the header: which training it is, how many steps are done,
and the loss curve so far. There is no random state: a step's draws follow from its number (stages/schedule.py).
"""

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from schemas.errors import TrainingError

History = list[dict[str, float]]

_HEADER = "latentmill"
_ADAM_KEYS = ("step", "exp_avg", "exp_avg_sq")


def pack(model: nn.Module, optimizer: torch.optim.AdamW, *, identity: str, steps: int, history: History) -> bytes:
    """The whole state after `steps` steps. `identity` names the training, so that no other one goes on from it."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"adam.{key}.{name}": optimizer.state[parameter][key] for key in _ADAM_KEYS}
    header = {"identity": identity, "steps": steps, "history": history}
    return save({name: _plain(value) for name, value in tensors.items()}, metadata={_HEADER: json.dumps(header)})


def unpack(data: bytes, model: nn.Module, optimizer: torch.optim.AdamW, *, identity: str) -> tuple[int, History]:
    """Puts a packed state into model and optimizer; returns steps done and the loss curve.

    (0, []) and nothing touched when the state is another training's. Raises TrainingError when the bytes are damaged.
    """
    try:
        tensors = load(data)
        header: dict[str, Any] = json.loads(_metadata(data)[_HEADER])
    except (SafetensorError, ValueError, KeyError) as error:
        raise TrainingError(f"the training's checkpoint is damaged ({error}); delete it to train anew") from error
    if header["identity"] != identity:
        return 0, []
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    for name, parameter in model.named_parameters():
        step, *moments = (tensors[f"adam.{key}.{name}"] for key in _ADAM_KEYS)
        # Fused AdamW walks memory: moments must have the parameter's layout, which may be channels_last.
        laid_out = [torch.empty_like(parameter, requires_grad=False).copy_(moment) for moment in moments]
        optimizer.state[parameter] = dict(zip(_ADAM_KEYS, (step.to(parameter.device), *laid_out), strict=True))
    return int(header["steps"]), list(header["history"])


def weights_bytes(model: nn.Module) -> bytes:
    """The model alone, as a codec opens it."""
    return save({name: _plain(value) for name, value in model.state_dict().items()})


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return dict(header["__metadata__"])
