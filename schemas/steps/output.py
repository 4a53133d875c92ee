"""Steps that write for people: pictures and pages."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Name, broken_rule
from schemas.steps.base import BaseStep


class RenderStep(BaseStep):
    """Decodes code sets and writes pictures to any fsspec URL, atomically and under deterministic names."""

    stage: Literal["render"] = "render"
    to: str = Field(description="folder URL")
    of: tuple[Name, ...] = Field(
        (), description="code-set steps to render; default: all not yet rendered above this one"
    )
    layout: Literal["image", "strip", "grid", "animation", "shards"] = "strip"
    format: Literal["png", "jpeg", "webp", "gif"] = "png"
    quality: int = Field(90, ge=1, le=100)
    labels: bool = Field(False, description="strip and grid: write the strength under each column")
    grid_columns: int | None = Field(
        None, ge=1, description="grid: pictures a line; default: the frames of one strip, so a line is a strip"
    )
    frame_ms: int = Field(120, ge=10, description="animation: milliseconds a frame")
    shard_rows: int = Field(
        1000, ge=1, description="shards: images a tar file, at most; fewer where they would pass 96 MiB of pixels"
    )
    storage_options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _format_fits_layout(self) -> Self:
        if self.layout == "animation" and self.format not in ("webp", "gif"):
            raise broken_rule("format", self.format, "this format has no animation.", "use webp or gif")
        if self.layout != "animation" and self.format == "gif":
            raise broken_rule("format", self.format, "gif is for layout: animation only.", "use png, jpeg or webp")
        return self


class ReportStep(BaseStep):
    """One self-contained HTML page about the run."""

    stage: Literal["report"] = "report"
    to: str = Field(description="URL of the HTML file")
    rows: int = Field(6, ge=1, description="strips shown per direction")
