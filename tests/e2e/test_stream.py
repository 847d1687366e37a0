"""Bodies go through unchanged, and without piling up in the gateway."""
import hashlib
import threading

import pytest

from backend import pattern_pieces, pattern_sha256
from harness import DEADLINE, SCALE, route, wait_until

SIZE = 100 * 1024 * 1024
# What the data plane may grow by while a body of any size passes: buffers, not bodies.
GROWTH = 16 * 1024 * 1024 if SCALE == 1.0 else 128 * 1024 * 1024


class Watch:
    """The most memory that the data plane had during a `with` block, compared to before."""

    def __init__(self, pair):
        self.program = pair.dataplane

    def __enter__(self):
        self.before = self.program.memory("VmRSS")
        return self

    def __exit__(self, failed, *_):
        if failed is None:
            peak = self.program.memory("VmHWM")
            assert peak - self.before < GROWTH, f"grew from {self.before} to {peak} bytes"


def download(client, target):
    """Length and hash of a body, and its head."""
    client.send_request("GET", target)
    head = client.read_head()
    digest, size = hashlib.sha256(), 0
    for piece in client.read_pieces(head):
        digest.update(piece)
        size += len(piece)
    return head, size, digest.hexdigest()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_large_download_is_exact_and_not_gathered(pair, chunked):
    """100 MiB down."""
    with Watch(pair):
        head, size, digest = download(pair.client(), f"/stream/{SIZE}?chunked={int(chunked)}")
    assert head.status == 200 and head.chunked == chunked
    assert size == SIZE and digest == pattern_sha256(SIZE)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_large_upload_is_exact_and_not_gathered(pair, chunked):
    """100 MiB up."""
    c = pair.client()
    with Watch(pair):
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(SIZE))
        c.send_request("POST", "/sink", [framing])
        for piece in pattern_pieces(SIZE):
            if chunked:
                c.send_chunk(piece)
            else:
                c.send(piece)
        if chunked:
            c.send_chunk(b"")
        answer = c.read_response("POST")
    assert answer.status == 200
    assert answer.json()["bytes"] == SIZE and answer.json()["sha256"] == pattern_sha256(SIZE)
    assert answer.json()["chunked"] == chunked


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_both_directions_flow_at_once(pair, chunked):
    """The response may begin before the request has ended."""
    size = 8 * 1024 * 1024
    c = pair.client()
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))
    c.send_request("POST", "/echo", [framing])

    def upload():
        for piece in pattern_pieces(size):
            if chunked:
                c.send_chunk(piece)
            else:
                c.send(piece)
        if chunked:
            c.send_chunk(b"")

    sender = threading.Thread(target=upload)
    sender.start()
    answer = c.read_response("POST")
    sender.join(DEADLINE)
    assert answer.status == 200
    assert hashlib.sha256(answer.body).hexdigest() == pattern_sha256(size)


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 65535, 65536, 65537, 1000003])
def test_sizes_around_buffer_boundaries_are_exact(pair, size):
    """Off-by-one lives at the edges."""
    c = pair.client()
    for chunked in (0, 1):
        head, got, digest = download(c, f"/stream/{size}?chunked={chunked}")
        assert head.status == 200 and (got, digest) == (size, pattern_sha256(size))


def test_tiny_chunks_arrive_whole(pair):
    """A client may send one byte a chunk."""
    c = pair.client()
    c.send_request("POST", "/sink", [("Transfer-Encoding", "chunked")])
    for byte in b"slowly but surely":
        c.send_chunk(bytes([byte]))
    c.send_chunk(b"")
    answer = c.read_response("POST")
    assert answer.status == 200
    assert answer.json()["sha256"] == hashlib.sha256(b"slowly but surely").hexdigest()


def test_slow_reader_holds_the_backend_back(pair):
    """A client that does not read stops the backend, not the gateway's memory; then all arrives."""
    c = pair.client(receive_buffer=16384)
    with Watch(pair):
        c.send_request("GET", f"/stream/{SIZE}")
        head = c.read_head()
        pieces = c.read_pieces(head)
        first = next(pieces)
        digest, received = hashlib.sha256(first), len(first)
        # Still: the data plane's memory does not change any more, far below the whole.
        marks = []

        def stands_still():
            marks.append(pair.dataplane.memory())
            return len(marks) > 50 and max(marks[-50:]) - min(marks[-50:]) <= 1024 * 1024
        wait_until(stands_still, "the transfer stands still")
        for piece in pieces:
            digest.update(piece)
            received += len(piece)
    assert received == SIZE and digest.hexdigest() == pattern_sha256(SIZE)


def test_slow_backend_holds_the_client_back(pair):
    """An upload waits until the backend reads, and then is exact."""
    c = pair.client()
    size = 32 * 1024 * 1024
    with Watch(pair):
        c.send_request("POST", "/sink?pause=1", [("Content-Length", str(size))])
        for piece in pattern_pieces(size):
            c.send(piece)
        answer = c.read_response("POST")
    assert answer.json()["sha256"] == pattern_sha256(size)


def test_many_transfers_at_once_stay_apart(pair):
    """Each of twenty clients gets its own bytes."""
    results = {}

    def run(number):
        size = 1000000 + number
        results[number] = download(pair.client(), f"/stream/{size}")[1:] == (size, pattern_sha256(size))
    threads = [threading.Thread(target=run, args=(n,)) for n in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(DEADLINE)
    assert results == {n: True for n in range(20)}


def test_body_over_the_routes_limit_is_413(make_pair, backend):
    """By its announced length at once, by its chunks as soon as they are too many."""
    pair = make_pair([route("all", "/", backend, max_body_bytes=1000)])
    assert pair.request("POST", "/sink", body=b"x" * 1000).status == 200
    c = pair.client()
    c.send_request("POST", "/sink", [("Content-Length", "1001")])
    answer = c.read_response("POST")
    assert answer.status == 413 and c.is_closed()
    c = pair.client()
    c.send_request("POST", "/sink", [("Transfer-Encoding", "chunked")])
    c.send_chunk(b"x" * 1001)
    answer = c.read_response("POST")
    assert answer.status == 413 and c.is_closed()
