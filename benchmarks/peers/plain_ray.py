"""The Ray Data script of the tutorials: `read_images` → `map_batches` with a model class → append each batch to a Lance table."""

import json
import sys

import lance
import numpy as np
import pyarrow as pa
import ray

from benchmarks.codec import opened


class Encoder:
    def __init__(self, data: dict) -> None:
        self.codec = opened(data)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        return {"id": batch["path"], "latent": self.codec.encode(torch.from_numpy(batch["image"])).mean.numpy()}


def main() -> None:
    asked = json.loads(sys.argv[1])
    size = asked["codec"]["preprocess"]["size"]
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    folders = [f"{asked['images']}/{i:03d}" for i in range(asked["count"] // 1000)]
    images = ray.data.read_images(folders, size=(size, size), mode="RGB", include_paths=True)
    latents = images.map_batches(Encoder, fn_constructor_args=(asked["codec"],), batch_size=256, concurrency=1)
    for batch in latents.iter_batches(batch_size=256, batch_format="numpy"):
        latent = batch["latent"].astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(latent.reshape(-1)), latent.shape[1])
        rows = pa.table({"id": pa.array(batch["id"].tolist(), pa.string()), "latent": column})
        lance.write_dataset(rows, asked["table"], mode="append")


if __name__ == "__main__":
    main()
