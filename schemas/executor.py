"""How a job is executed. Nothing here may change a result, so nothing here is in a fingerprint."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import Spec

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"


class LocalExecutor(Spec):
    """In this process, one split after another: the reference every other executor must equal."""

    kind: Literal["local"] = "local"
    device: str = Field("auto", pattern=DEVICE, description="`auto`, `cpu`, `cuda`, `cuda:1`")
    threads: int | None = Field(
        None, ge=1, description="threads of torch and of reduces; default: torch's own choice, and one a core"
    )


class RayExecutor(Spec):
    """Ray Data: CPU tasks read and decode, an actor pool runs the codec, CPU tasks write, the driver commits."""

    kind: Literal["ray"] = "ray"
    address: str = Field("local", description="`local` starts a private Ray; `auto` or `ray://…` joins a cluster")
    gpus_per_worker: float = Field(0, ge=0, description="may be a fraction: two actors share a GPU at 0.5")
    workers: int | None = Field(None, ge=1, description="codec actors; default: one a GPU, or chosen from the CPUs")
    device: str = Field("auto", pattern=DEVICE, description="`auto`, `cpu`, `cuda`, `cuda:1`")
    num_cpus: int | None = Field(None, ge=1, description="CPUs of a private local Ray; default: all")
    object_store_bytes: int | None = Field(None, ge=80 * 2**20, description="object store of a private local Ray")
    runtime_env: dict[str, Any] = Field(default_factory=dict, description="passed to ray.init when joining a cluster")


ExecutorSpec = Annotated[LocalExecutor | RayExecutor, Field(discriminator="kind")]
