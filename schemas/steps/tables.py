"""Steps that make and keep the latents table: train a codec, encode, index, compact."""

from typing import Literal

from pydantic import Field

from schemas.steps.base import BaseStep


class TrainStep(BaseStep):
    """Trains the job's conv_vae codec on the source's images; resumable; writes config.json, model.safetensors, history.json."""

    stage: Literal["train"] = "train"
    to: str | None = Field(None, description="folder URL of the weights; default: `codec.weights`")
    variant: Literal["ae", "vae"] = "vae"
    beta: float = Field(1.0, ge=0, description="weight of the KL term, in units of nats per image (β-VAE when not 1)")
    latent_dim: int = Field(32, ge=1, le=65536)
    channels: tuple[int, ...] = Field(
        (16, 32, 64, 128), min_length=1, description="one stride-2 stage each; sides must divide by 2^n"
    )
    steps: int = Field(2400, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    seed: int = Field(0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: int = Field(500, ge=1)
    max_images: int | None = Field(
        None, ge=1, description="train on at most this many images, chosen by a hash of the id"
    )


class EncodeStep(BaseStep):
    """Encodes every listed image that the table does not hold at its present version."""

    stage: Literal["encode"] = "encode"
    latent_dtype: Literal["float32", "float16"] = "float32"
    store_logvar: bool = Field(True, description="keep the posterior log-variance where the codec has one")
    batch_size: int = Field(
        256, ge=1, description="images a forward pass; does not change results beyond the codec's tolerance"
    )
    commit_rows: int = Field(50_000, ge=1)
    commit_seconds: float = Field(10.0, gt=0)


class IndexStep(BaseStep):
    """Vector index with measured recall against exact search, and scalar indexes on id and labels."""

    stage: Literal["index"] = "index"
    kind: Literal["auto", "flat", "ivf_flat", "ivf_pq", "ivf_hnsw_sq"] = Field(
        "auto", description="auto: exact search below 50,000 rows, IVF_HNSW_SQ above"
    )
    metric: Literal["l2", "cosine"] = "l2"
    nprobes: int | None = Field(None, ge=1)
    recall_queries: int = Field(200, ge=1)
    min_recall: float | None = Field(
        None, ge=0, le=1, description="fail the step when measured recall@10 is below this"
    )


class CompactStep(BaseStep):
    """Upkeep of the dataset's tables: merges small fragments, drops versions nobody needs. Rows and readers do not notice."""

    stage: Literal["compact"] = "compact"
    target_mib: int = Field(256, ge=1, description="size that fragments are merged towards, MiB")
    keep_versions: int = Field(10, ge=1, description="the newest versions stay, and the one that readers see")
    keep_hours: float = Field(
        24.0, ge=0, description="younger versions stay too; make it longer than the longest read of the table"
    )
