"""An empty S3 server a module, for tests that bring their own objects; a module that wants some there has a fixture of its own."""

from collections.abc import Iterator

import pytest
from s3 import S3, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server
