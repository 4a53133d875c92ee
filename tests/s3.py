"""A real S3 server on loopback: moto's WSGI application over HTTP, with faults injected in front of it when asked.

    with s3_server() as s3:
        s3.put("bucket/a.jpg", data)
        fsspec.open("s3://bucket/a.jpg", **s3.fsspec)
        s3.fail_every = 7          # from now on every 7th request gets 503 SlowDown instead of an answer

Moto's state belongs to the process and is cleared when a server starts, so run one server at a time.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEY, SECRET, REGION = "testing", "testing", "us-east-1"
SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as they do with S3

    def log(self, *_: Any) -> None:
        pass


@dataclass
class S3:
    """A running server. `fail_every` n: each n-th request is refused with 503 (0: none). `cut_every` n: each n-th connection
    is closed without an answer. `only`: refuse nothing but requests of these methods."""

    endpoint: str = ""
    fail_every: int = 0
    cut_every: int = 0
    only: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    requests: int = 0
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def fsspec(self) -> dict[str, Any]:
        """`storage_options` for fsspec, without botocore's own slow retries: s3fs's and ours are what is tested."""
        return {
            "key": KEY,
            "secret": SECRET,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": REGION},
            "config_kwargs": {"retries": {"total_max_attempts": 1}},
        }

    @property
    def store(self) -> dict[str, str]:
        """`store_options` for Lance."""
        return {
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_endpoint": self.endpoint,
            "aws_region": REGION,
            "allow_http": "true",
        }

    @property
    def client(self) -> Any:
        """A plain boto3 client, which retries what is refused."""
        retries = {"max_attempts": 10, "mode": "standard"}
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
            config=Config(retries=retries),
        )

    def put(self, objects: dict[str, bytes]) -> None:
        """Writes objects by `bucket/key`, making their buckets."""
        client = self.client
        for bucket in {path.split("/", 1)[0] for path in objects}:
            client.create_bucket(Bucket=bucket)
        for path, data in objects.items():
            bucket, key = path.split("/", 1)
            client.put_object(Bucket=bucket, Key=key, Body=data)
        client.close()

    def turn(self, method: str) -> str:
        """What becomes of the next request: `answer`, `refuse` or `cut`."""
        with self._lock:
            self.requests += 1
            for every, fate in ((self.fail_every, "refuse"), (self.cut_every, "cut")):
                if every and self.requests % every == 0 and method in self.only:
                    self.refused += 1
                    return fate
        return "answer"


@contextmanager
def s3_server(*, fail_every: int = 0) -> Iterator[S3]:
    """Runs the server for the block."""
    s3 = S3(fail_every=fail_every)
    backend = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"]
        fate = s3.turn(environ["REQUEST_METHOD"]) if not environ["PATH_INFO"].startswith("/moto-api") else "answer"
        if fate == "answer":
            # One at a time: moto looks and writes in two steps, S3 decides a conditional PUT in one.
            with one_at_a_time:
                return list(backend(environ, start_response))
        body.read(int(environ.get("CONTENT_LENGTH") or 0))
        if fate == "cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("cut on purpose")  # which werkzeug takes for a client that went away
        start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(SLOW_DOWN)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [SLOW_DOWN]

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    s3.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        _reset(s3.endpoint)
        yield s3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _reset(endpoint: str) -> None:
    from urllib.request import Request, urlopen

    with urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")) as answer:
        answer.read()
