"""Pictures of a query's page are read as the dataset's source was, also where the store lies elsewhere, with other options."""

from pathlib import Path

from s3 import S3

from pipeline.gallery import write_gallery
from pipeline.query import Query, picture_options, run_query
from pipeline.readers import Source
from pipeline.run import run_job
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images

PICTURES = "s3://pictures/images/**/*.png"


def shown(asked: Query, page: Path) -> int:
    write_gallery(run_query(asked), page)
    return page.read_text().count("data:image/")


def test_pictures_come_with_the_source_s_options(s3: S3, tmp_path: Path) -> None:
    """The bucket is reached by an endpoint that only the source's options name; the store is a folder, or another place."""
    folder = make_images(tmp_path, 6)
    s3.put({f"pictures/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*.png")})
    data = job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}])
    data["source"] = {"images": PICTURES, "storage_options": s3.fsspec}
    run_job(parse_job(data), report=lambda event: None)
    store = str(tmp_path / "store")
    assert shown(Query(store, {}, None, image_id=image_id(1), k=3), tmp_path / "id.html") == 4
    picture = f"s3://pictures/images/{image_id(2)}"
    assert shown(Query(store, {}, None, image=picture, k=3), tmp_path / "image.html") == 4
    assert shown(Query(store, {}, None, order="id", k=5), tmp_path / "list.html") == 5


def test_which_options_a_picture_is_read_with() -> None:
    source = Source("s3://faces/a/*.png", {"endpoint_url": "http://there"})
    asked = Query("s3://other/store", {"aws_endpoint": "http://here"}, None)
    here, there = {"endpoint_url": "http://here"}, {"endpoint_url": "http://there"}
    assert picture_options(asked, source, "s3://faces/b/1.png") == there
    assert picture_options(asked, source, "s3://third/1.png") == here
    assert picture_options(asked, None, "s3://faces/b/1.png") == here
    assert picture_options(asked, Source("s3://faces/a", {}), "s3://faces/b/1.png") == here
    assert picture_options(Query("./store", {}, None), source, "s3://third/1.png") == there
    assert picture_options(asked, source, "/home/me/1.png") is None
    assert "there" not in repr(source)
