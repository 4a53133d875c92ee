"""Arrow schemas: the columns of every table and batch are pinned in tests/golden/tables.txt, and metadata survives."""

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import batches, tables
from schemas.codec import LatentSpec
from schemas.source import LabelType

SPEC = LatentSpec(shape=(4, 2, 2), space="z", prior="standard_normal")
LABELS = tables.labels_type({"smiling": "bool", "age": "float", "hair": "category", "n": "int"})


def every_schema() -> dict[str, pa.Schema]:
    latents = tables.latents_schema(SPEC, dtype="float16", labels=LABELS, logvar=True, metadata={"fingerprint": "f"})
    return {
        "listing": batches.listing_schema(),
        "work": batches.work_schema(LABELS),
        "pixels": batches.pixels_schema(8, 6, LABELS),
        "latents": latents,
        "encoded": batches.encoded_schema(latents),
        "codes": batches.codes_schema(SPEC),
        "failures": tables.FAILURES,
        "directions": tables.directions_schema(),
        "renders": tables.RENDERS,
        "runs": tables.RUNS,
        "catalog": tables.CATALOG,
        "leases": tables.LEASES,
    }


def shown(schema: pa.Schema) -> list[str]:
    lines = []
    for field in schema:
        meta = " ".join(f"{k.decode()}={v.decode()}" for k, v in sorted((field.metadata or {}).items()) if k != b"spec")
        lines.append(
            f"  {field.name}: {field.type}{'' if field.nullable else ' not null'}{' · ' + meta if meta else ''}"
        )
    return lines


def test_columns_are_pinned(golden: Callable[[str, str], None]) -> None:
    lines = [line for name, schema in every_schema().items() for line in (f"{name}", *shown(schema))]
    golden("tables.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("name", every_schema())
def test_no_table_holds_python_objects_or_extension_types(name: str) -> None:
    for field in every_schema()[name]:
        assert not isinstance(field.type, pa.BaseExtensionType)
        assert field.type != pa.binary()


@pytest.mark.parametrize("name", ["latents", "failures", "directions", "renders", "runs", "catalog", "leases"])
def test_every_stored_table_has_one_primary_key_that_is_never_null(name: str) -> None:
    keys = [f for f in every_schema()[name] if (f.metadata or {}).get(b"lance-schema:unenforced-primary-key")]
    assert len(keys) == 1 and not keys[0].nullable


def test_encoded_rows_may_lack_everything_but_their_place_and_id() -> None:
    needed = [f.name for f in every_schema()["encoded"] if not f.nullable]
    assert needed == ["seq", "id"]


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    st.sampled_from(["z", "w", "noise"]),
    st.sampled_from(["float16", "float32"]),
)
def test_a_latent_field_tells_its_shape_space_and_prior(shape: tuple[int, ...], space: str, dtype: str) -> None:
    spec = LatentSpec(shape=shape, space=space, prior="standard_normal", centred_shell=True)
    field = tables.latent_field("latent", spec, dtype)
    assert tables.latent_spec(field) == spec
    assert tables.with_shape(field) == shape
    assert field.type == pa.list_(pa.float16() if dtype == "float16" else pa.float32(), spec.dim)


@given(
    st.dictionaries(st.text("abcXYZ_", min_size=1, max_size=5), st.sampled_from(["bool", "int", "float", "category"]))
)
def test_label_types_do_not_depend_on_the_order_of_columns(labels: dict[str, LabelType]) -> None:
    struct = tables.labels_type(labels)
    assert tables.label_types(struct) == labels
    assert struct == tables.labels_type(dict(reversed(labels.items())))
    assert all(field.nullable for field in struct)


def test_tables_without_labels_have_no_empty_struct() -> None:
    for labels in (None, pa.struct([])):
        assert "labels" not in batches.work_schema(labels).names
        assert "labels" not in batches.pixels_schema(4, 4, labels).names
        latents = tables.latents_schema(SPEC, dtype="float32", labels=labels, logvar=False, metadata={})
        assert "labels" not in latents.names and "logvar" not in latents.names
