"""What a request costs once the first ones have warmed everything up: no heap, four I/O calls, no lock worth a system call."""
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from harness import route, wait_until

pytestmark = pytest.mark.heavy  # sanitizers replace malloc and make system calls of their own

CLIENTS = 8
WARM_UP = 200
REQUESTS = 2000
GATHER_SECONDS = 0.005  # of log_writer.c


def tasks(pid):
    """{thread id: name} of a process."""
    return {int(t.name): (t / "comm").read_text().strip() for t in Path(f"/proc/{pid}/task").iterdir()}


def send_requests(clients, rounds, path="/steady"):
    """Keep-alive requests, all clients at once in each round."""
    request = f"GET {path} HTTP/1.1\r\nHost: steady\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n".encode()
    for _ in range(rounds):
        for c in clients:
            c.send(request)
        for c in clients:
            assert c.read_response().status == 200


@pytest.fixture
def warm(make_pair, backend):
    """Warms a pair with one worker up; (pair, clients)."""
    def start(env=None):
        pair = make_pair([route("all", "/", backend)], server={"workers": 1}, start=False)
        pair.dataplane.env = env
        pair.start()
        clients = [pair.client() for _ in range(CLIENTS)]
        send_requests(clients, 2, "/delay/0.2")  # so that all have been under way at the same time
        send_requests(clients, WARM_UP)
        return pair, clients
    return start


def test_workers_take_nothing_from_the_heap(warm, tmp_path):
    """The worker's count of malloc, calloc and realloc calls does not move over thousands of requests."""
    library, counts = tmp_path / "counter.so", tmp_path / "counts"
    source = Path(__file__).with_name("malloc_counter.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    pair, clients = warm({"LD_PRELOAD": str(library), "MALLOC_COUNTER_FILE": str(counts)})
    workers = [tid for tid, name in tasks(pair.dataplane.pid).items() if name.startswith("worker-")]
    assert len(workers) == 1

    def calls():
        table = dict(struct.iter_unpack("=QQ", counts.read_bytes()))
        return table[workers[0]]

    before = calls()
    assert before > 0, "the counter does not count"
    send_requests(clients, REQUESTS // CLIENTS)
    # libev's array of pending events may still double once or twice, when more sockets are ready at once than ever before.
    assert calls() <= before + 2


def test_a_request_is_four_io_calls(warm, tmp_path):
    """recv and send on each side; epoll_wait is shared; nothing else is called at all."""
    pair, clients = warm()
    (worker,) = [tid for tid, name in tasks(pair.dataplane.pid).items() if name.startswith("worker-")]
    out = tmp_path / "strace"
    tracer = subprocess.Popen(["strace", "-c", "-U", "calls,name", "-p", str(worker), "-o", str(out)],
                              stderr=subprocess.PIPE, text=True)
    try:
        assert "attached" in tracer.stderr.readline()
        start = time.monotonic()
        send_requests(clients, REQUESTS // CLIENTS)
        seconds = time.monotonic() - start
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
    calls = {m[2]: int(m[1]) for m in re.finditer(r"^\s*(\d+)\s+(\w+)\s*$", out.read_text(), re.M)
             if m[2] != "total"}
    waits = calls.pop("epoll_wait", 0) + calls.pop("epoll_pwait", 0)
    io = sum(calls.pop(name, 0) for name in ("recvfrom", "sendto", "sendmsg"))
    # The log writer's eventfd: it sleeps at least that long after each, however many requests there are meanwhile.
    pokes = calls.pop("write", 0)
    # A response that the kernel delivers in two pieces takes two more calls; that is the backend's doing, and rare.
    assert 4 * REQUESTS <= io <= 4.2 * REQUESTS, (io, calls)
    assert pokes <= seconds / GATHER_SECONDS + 2, (pokes, seconds)
    assert waits <= 2.1 * REQUESTS + 100
    assert sum(calls.values()) <= 20, calls


def test_superseded_snapshots_are_freed(make_pair, backend):
    """One snapshot is alive at rest; one more for as long as a request lives under the old one, and no longer."""
    pair = make_pair([route("all", "/", backend)])
    slow = pair.client()
    slow.send("GET /delay/3 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: pair.metric("gateway_downstream_requests_active") >= 1, "the slow request is under way")
    for i in range(5):
        text = pair.yaml(routes=[route("all", "/", backend), route(f"r{i}", f"/r{i}", backend)])
        answer = pair.push(text)
        assert answer.status == 200, answer
    wait_until(lambda: pair.metric("gateway_snapshots_alive") == 2, "the first snapshot and the last one are alive")
    assert slow.read_response().status == 200
    wait_until(lambda: pair.metric("gateway_snapshots_alive") == 1, "only the last snapshot is alive")
