"""Which device a worker computes on. Asked in the worker, because the driver may have no GPU."""


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where torch sees one, else `cpu`; anything else is passed on."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
