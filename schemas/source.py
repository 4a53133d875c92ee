"""Where images and labels come from. A URL is anything fsspec opens; a source is one of four kinds."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from schemas.base import Spec, broken_rule

LabelType = Literal["bool", "int", "float", "category"]


class LabelsSpec(Spec):
    """A label file joined to images by id. The format follows the file's name unless it is given.

    `list_attr_celeba.txt` (count line, header line, ±1) is recognised by content. `folder` needs no file: the name of the
    image's parent folder becomes the category `folder`.
    """

    uri: str | None = Field(
        None, description="URL of a CSV, TSV, Parquet, JSONL or CelebA attribute file; none for `folder`"
    )
    format: Literal["auto", "csv", "tsv", "parquet", "jsonl", "celeba", "folder"] = "auto"
    id_column: str | None = Field(
        None, description="column that holds the image id; default: `id`, `image_id`, `file_name`, else the first"
    )
    columns: tuple[str, ...] | None = Field(None, description="label columns to keep; default: all but the id")
    types: dict[str, LabelType] = Field(
        default_factory=dict, description="declared types; the rest are inferred from all values"
    )

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if self.uri is None and self.format != "folder":
            raise broken_rule("uri", None, "no label file is named.", "give its URL, or format: folder")
        return self


def _labels(value: Any) -> Any:
    """`labels: some.csv` is short for `labels: {uri: some.csv}`, and `labels: folder` for the parent folder's name."""
    if not isinstance(value, str):
        return value
    return {"format": "folder"} if value == "folder" else {"uri": value}


class _Source(Spec):
    labels: Annotated[LabelsSpec | None, BeforeValidator(_labels, json_schema_input_type=str | LabelsSpec | None)] = (
        Field(None, description="label file (its URL is enough), or `folder`: the parent folder's name")
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="passed to fsspec (endpoint, profile, anon, …)"
    )
    max_pixels: int = Field(
        100_000_000, gt=0, description="images with more pixels become failures (decompression bombs)"
    )
    max_bytes: int = Field(256 * 2**20, gt=0, description="images with more encoded bytes become failures")


class FilesSource(_Source):
    """Image files by glob (`s3://bucket/faces/**/*.jpg`). The image id is the path relative to the glob's fixed root."""

    kind: Literal["files"] = "files"
    images: str = Field(description="glob or folder URL; a folder means every file below it with an image suffix")


class ParquetSource(_Source):
    """Parquet files with encoded image bytes: a binary column or Hugging Face's struct {bytes, path}."""

    kind: Literal["parquet"] = "parquet"
    images: str = Field(description="glob of Parquet files")
    image_column: str = "image"
    id_column: str | None = Field(None, description="default: `<file relative to the root>#<row>`")
    label_columns: tuple[str, ...] = Field((), description="columns of the same files to keep as labels")


class TarSource(_Source):
    """Tar shards in WebDataset convention: members that share a name up to the first dot are one sample."""

    kind: Literal["tar"] = "tar"
    images: str = Field(description="glob of uncompressed .tar shards; the image id is `<member path without suffix>`")
    image_member: str | None = Field(
        None, description="suffix of the member that is the image (`input.png`); default: the sample's one image"
    )
    label_member: str | None = Field(
        None, description="suffix of a member that holds labels, `json` (an object) or `cls` (a class)"
    )


class ManifestSource(_Source):
    """A list of objects instead of a bucket listing: Parquet or CSV with `uri`, and `id`, `size`, `etag` if known."""

    kind: Literal["manifest"] = "manifest"
    images: str = Field(description="URL of the manifest")
    label_columns: tuple[str, ...] = Field((), description="columns of the manifest to keep as labels")


def _kind(value: Any) -> str:
    """`kind` may be left out: .parquet and .tar name themselves, everything else is files."""
    if not isinstance(value, dict):
        return str(getattr(value, "kind", "files"))
    if "kind" in value:
        return str(value["kind"])
    images = str(value.get("images", "")).lower()
    return "parquet" if images.endswith(".parquet") else "tar" if images.endswith(".tar") else "files"


SourceSpec = Annotated[
    Annotated[FilesSource, Tag("files")]
    | Annotated[ParquetSource, Tag("parquet")]
    | Annotated[TarSource, Tag("tar")]
    | Annotated[ManifestSource, Tag("manifest")],
    Discriminator(_kind),
]
