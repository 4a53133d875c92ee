"""Stores in a bucket, over real HTTP: moto's S3 server, refusing requests, and a proxy in front of it that loses answers."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from s3 import S3, s3_server
from store_rows import FINGERPRINT, add, batch, child, fenced, ids_of, line, names
from test_store_columns import Some, score, twice

from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import LeaseHeld, StoreError
from schemas.steps import IndexStep


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        server.put({"bucket/readme": b""})
        yield server


@contextmanager
def faulty(endpoint: str, fate: Callable[[str, str], str]) -> Iterator[str]:
    """The endpoint of a proxy. `fate` of (method, path): `lose` (done, answered with 500), `refuse` (500, not done), or ``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            verdict = fate(self.command, self.path)
            status, headers, data = 500, {}, b"<Error><Code>InternalError</Code></Error>"
            if verdict != "refuse":
                upstream = http.client.HTTPConnection(urlsplit(endpoint).netloc)
                upstream.request(self.command, self.path, body, dict(self.headers))
                reply = upstream.getresponse()
                done = reply.read()
                upstream.close()
                if verdict != "lose":
                    status, headers, data = reply.status, {k.lower(): v for k, v in reply.getheaders()}, done
            if self.command != "HEAD":
                headers["content-length"] = str(len(data))
            self.send_response_only(status)
            for name in headers.keys() - {"transfer-encoding", "connection"}:
                self.send_header(name, headers[name])
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_store_in_a_bucket_from_lease_to_search(s3: S3) -> None:
    uri, opts = "s3://bucket/whole", s3.store
    assert not Store.is_there(uri, options=opts)
    store = Store.open(uri, options=opts)
    with store.lease("faces", run_id="r") as lease:
        with pytest.raises(LeaseHeld), store.lease("faces", run_id="second"):
            pass
        table = fenced(store, lease.token)
        add(table, names(60), token=lease.token)
        add(table, names(20), token=lease.token, source_version="v2", replaces=names(20))
        table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5), token=lease.token)
        store.swap("faces", FINGERPRINT, table.name, table.version, "r", token=lease.token)
    again = Store.open(uri, options=opts, create=False)
    entry = again.current("faces")
    assert entry is not None and again.table(entry.table).count_rows(version=entry.version) == 60
    near = again.table(entry.table).search(batch(names(3)).column("latent")[2].as_py(), k=1)
    assert near.column("id").to_pylist() == [names(3)[2]]


COMMITTER = """
import json, sys
from store_rows import *
table = fenced(Store.open(sys.argv[1], options=json.loads(sys.argv[2])), 1)
print("ready", flush=True)
for n in range(8):
    add(table, names(5, prefix=f"{sys.argv[3]}-{n}"))
print("done", flush=True)
"""


def test_two_processes_commit_at_once_and_nothing_is_lost_or_doubled(s3: S3) -> None:
    uri, opts = "s3://bucket/two", s3.store
    with child(COMMITTER, uri, json.dumps(opts), "a") as one, child(COMMITTER, uri, json.dumps(opts), "b") as two:
        assert [line(p) for p in (one, two)] == ["ready", "ready"]
        assert [line(p) for p in (one, two)] == ["done", "done"]
    held = ids_of(Store.open(uri, options=opts).latents("faces", FINGERPRINT))
    assert held == sorted(i for p in "ab" for n in range(8) for i in names(5, prefix=f"{p}-{n}"))


@pytest.mark.parametrize("away", [0, pytest.param(42, marks=pytest.mark.slow)])
def test_a_commit_whose_answer_was_lost_lands_once(s3: S3, away: int) -> None:
    """The manifest is written, the client is told 500, and the store stays away for some requests more.

    A short absence Lance rides out by looking for its own manifest; after a long one the commit gets an error, and looks itself.
    """
    store = Store.open(f"s3://bucket/lost{away}", options=s3.store)
    add(fenced(store), names(10))
    since: list[str] = []  # requests from the lost one on

    def fate(method: str, path: str) -> str:
        if since or (method == "PUT" and path.endswith(".manifest")):
            since.append(f"{method} {path}")
        return "" if not since else "lose" if len(since) == 1 else "refuse" if len(since) <= away else ""

    with faulty(s3.endpoint, fate) as front:
        # Few retries of Lance's own, so that the error reaches the commit.
        options = s3.store | {"aws_endpoint": front, "client_max_retries": "1"}
        table = Store.open(store.uri, options=options).latents("faces", FINGERPRINT)
        version = add(table, names(10, start=10))
    held = store.latents("faces", FINGERPRINT)
    assert len(since) > 1 and ids_of(held) == names(20) and held.version == version


def test_503s_are_ridden_out(s3: S3) -> None:
    s3.fail_every, s3.refused = 4, 0
    try:
        store = Store.open("s3://bucket/slow", options=s3.store)
        with store.lease("faces", run_id="r") as lease:
            table = fenced(store, lease.token)
            for k in range(3):
                add(table, names(10, start=10 * k), token=lease.token, replaces=names(2))
            assert ids_of(table) == names(30)[2:] and s3.refused > 10
    finally:
        s3.fail_every = 0


def anomalies(table: Table) -> dict[str, float]:
    return {r["id"]: r["anomaly"] for b in table.scan(["id", "anomaly"]) for r in b.to_pylist()}


def test_columns_are_written_through_503s(s3: S3) -> None:
    """New columns, replaced ones, and labels of some rows: all values, each in its row."""
    table = fenced(Store.open("s3://bucket/columns", options=s3.store))
    for k in range(3):
        add(table, names(10, start=10 * k))
    s3.fail_every, s3.refused = 4, 0
    try:
        table.put_columns(score(), token=1, properties={})
        assert anomalies(table) == {i: int(i[4:9]) for i in names(30)}
        before = table.version
        table.put_columns(score(twice), token=1, properties={})
        chosen = (names(1)[0], *names(2, start=21))
        table.put_columns(Some(chosen), token=1, properties={})
        assert table.version == before + 2 and s3.refused > 10
    finally:
        s3.fail_every = 0
    assert anomalies(table) == {i: 2 * int(i[4:9]) for i in names(30)}
    assert {r["id"] for b in table.scan(["id"], where="labels.hair = 'green'") for r in b.to_pylist()} == set(chosen)


@pytest.mark.parametrize("new", [True, False])
def test_columns_whose_answer_was_lost_are_committed_once(s3: S3, new: bool) -> None:
    table = fenced(Store.open(f"s3://bucket/lost-columns-{new}", options=s3.store))
    add(table, names(10))
    if not new:
        table.put_columns(score(), token=1, properties={})
    before = table.version
    lost: list[str] = []

    def fate(method: str, path: str) -> str:
        if method == "PUT" and path.endswith(".manifest") and not lost:
            lost.append(path)
            return "lose"
        return ""

    with faulty(s3.endpoint, fate) as front:
        options = s3.store | {"aws_endpoint": front, "client_max_retries": "1"}
        through = Store.open(table.ref.store, options=options).latents("faces", FINGERPRINT)
        version = through.put_columns(score(twice), token=1, properties={})
    assert lost and version == table.version == before + 1
    assert anomalies(table) == {i: 2 * int(i[4:9]) for i in names(10)}


@pytest.mark.slow
def test_an_unknown_bucket_and_an_unreachable_endpoint_are_named(s3: S3) -> None:
    with pytest.raises(StoreError, match=r"s3://nobucket/x.*bucket does not exist.*Fix: create the bucket") as raised:
        Store.open("s3://nobucket/x", options=s3.store)
    assert "<?xml" not in str(raised.value) and ".rs:" not in str(raised.value)
    with pytest.raises(StoreError, match=r"s3://bucket/x.*cannot be reached.*aws_endpoint"):
        Store.is_there("s3://bucket/x", options=s3.store | {"aws_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(StoreError, match="allow_http"):
        Store.open("s3://bucket/x", options={k: v for k, v in s3.store.items() if k != "allow_http"})
