"""Balancing as clients see it: shares, stickiness, and who is left out."""
import select
import socket
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import swarm
from harness import DEADLINE, Program, route, wait_until
from rawhttp import Client


def counted(pair, target="/", count=120, threads=4, headers=None):
    """Many requests on several connections at once, so that every worker has some: who answered."""
    names, lock = Counter(), threading.Lock()

    def run(n):
        with pair.client() as c:
            for i in range(count // threads):
                answer = c.request("GET", target, headers(n * 1000 + i) if headers else [])
                name = answer.json()["message"].split()[-1] if answer.status == 200 else answer.status
                with lock:
                    names[name] += 1
    running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    return names


def pool(backends, algorithm, weights=None, **more):
    """A route to all of them."""
    r = route("all", "/", *backends, lb_algorithm=algorithm, **more)
    r.setdefault("health_check", {"enabled": False})
    for one, weight in zip(r["backends"], weights or []):
        one["weight"] = weight
    return r


def test_round_robin_shares_alike(make_pair, backends):
    """All workers take turns from one position."""
    all_three = backends("a", "b", "c")
    pair = make_pair([pool(all_three, "round_robin")], server={"workers": 4})
    assert counted(pair) == {"a": 40, "b": 40, "c": 40}


def test_weighted_shares_are_exact(make_pair, backends):
    """Over all workers."""
    all_three = backends("a", "b", "c")
    pair = make_pair([pool(all_three, "weighted", [5, 3, 2])], server={"workers": 4})
    assert counted(pair) == {"a": 60, "b": 36, "c": 24}


def test_least_conn_avoids_the_busy_one(make_pair, backends):
    """Who has requests under way gets no more while others have none."""
    all_two = backends("a", "b")
    pair = make_pair([pool(all_two, "least_conn")], server={"workers": 4})
    held = [pair.client() for _ in range(4)]
    for c in held:
        c.send_request("GET", "/delay/3")
    wait_until(lambda: pair.metric("gateway_downstream_requests_active") == 4, "four are under way")
    busy = [b.get("/connections")["requests"] for b in all_two]
    assert sorted(busy) == [2, 2]
    for c in held:
        assert c.read_response("GET").status == 200


def test_least_conn_takes_turns_among_idle_ones(make_pair, backends):
    """Whichever worker asks. One request at a time: of several at once those who are served faster come back
    sooner, and the faster backend has more of them, which is what least_conn is for. What ends on one worker
    may be noted after the next one has begun on another: that is made up for, but for the last."""
    pair = make_pair([pool(backends("a", "b"), "least_conn")], server={"workers": 4})
    clients = [pair.client() for _ in range(8)]
    names = Counter(clients[i % 8].request("GET", "/").json()["name"] for i in range(400))
    assert abs(names["a"] - names["b"]) <= 2, names


def test_least_conn_shares_alike_among_equals(make_pair, backends):
    """Several at once at backends that take the same time."""
    pair = make_pair([pool(backends("a", "b"), "least_conn")], server={"workers": 4})
    names = counted(pair, "/delay/0.05")
    assert abs(names["a"] - names["b"]) <= 12, names


class Swarm(Program):
    """tests/e2e/swarm.py as a child process."""

    def __init__(self, folder):
        super().__init__("swarm", [sys.executable, "-B", Path(swarm.__file__)], folder)
        self.port = None

    def start(self):
        """Until it listens."""
        super().start()
        self.port = int(wait_until(lambda: self.out_path.read_text().strip(), "it prints its port"))
        return self

    def pool(self, algorithm, weights, **more):
        """A route to as many of its backends as there are weights."""
        urls = [f"http://{swarm.address(i)}:{self.port}" for i in range(len(weights))]
        return pool(urls, algorithm, weights, **more)

    def counts(self, count):
        """Requests by backend."""
        with Client(("127.0.0.1", self.port), DEADLINE) as c:
            found = c.request("GET", "/counts").json()
        return [found.get(swarm.address(i), 0) for i in range(count)]


def storm(pair, requests, clients=64):
    """So many requests, one after another on each of so many connections."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    poll, socks, left = select.epoll(), {}, requests
    for _ in range(clients):
        s = socket.create_connection(pair.address)
        socks[s.fileno()] = s
        poll.register(s.fileno(), select.EPOLLIN)
        s.send(request)
        left -= 1
    answered = 0
    while answered < requests:
        ready = poll.poll(DEADLINE)
        assert ready, f"{answered} of {requests} were answered"
        for fd, _ in ready:
            data = socks[fd].recv(4096)
            assert data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"hi\n"), data
            answered += 1
            if left > 0:
                socks[fd].send(request)
                left -= 1
    for s in socks.values():
        s.close()
    poll.close()


@pytest.mark.heavy
@pytest.mark.parametrize("algorithm, weights", [
    ("round_robin", [1] * 7), ("weighted", [1, 2, 3, 4, 10]), ("weighted", [500, 300, 200]),
    ("least_conn", [1] * 5), ("least_conn", [2, 3, 5]), ("ip_hash", None)])
def test_shares_of_a_hundred_thousand_requests(make_pair, tmp_path, algorithm, weights):
    """Over eight workers within 1 % of the ideal."""
    count = 100000
    backends = Swarm(tmp_path).start()
    try:
        if algorithm == "ip_hash":
            weights = [1] * 4
        pair = make_pair([backends.pool(algorithm, weights)], server={"workers": 8})
        storm(pair, count)
        counts = backends.counts(len(weights))
        assert sum(counts) == count
        if algorithm == "ip_hash":  # all of them are one client
            assert sorted(counts) == [0, 0, 0, count]
            return
        ideal = [count * w / sum(weights) for w in weights]
        off = max(abs(c - i) / i for c, i in zip(counts, ideal))
        print(f"{algorithm} {weights}: {counts}, at most {100 * off:.3f} % off")
        assert off <= 0.01, counts
    finally:
        backends.kill()


def forwarded(n):
    """A client of its own behind a trusted proxy."""
    return [("X-Forwarded-For", f"198.51.{n // 200 % 250}.{n % 200 + 1}")]


def test_ip_hash_keeps_clients_where_they_are(make_pair, backends):
    """One leaves: only its clients move; it returns: so do they. Restarts change nothing."""
    all_three = backends("a", "b", "c")
    one = pool(all_three, "ip_hash")
    pair = make_pair([one], server={"workers": 4, "trusted_proxies": ["127.0.0.0/8"]})

    def homes():
        with pair.client() as c:
            return [c.request("GET", "/", forwarded(n)).json()["message"].split()[-1]
                    for n in range(150)]
    before = homes()
    assert all(30 <= n <= 75 for n in Counter(before).values()), Counter(before)
    less = {**one, "backends": [one["backends"][0], one["backends"][2]]}
    assert pair.push(pair.yaml([less])).status == 200
    without = homes()
    assert all(x == y for x, y in zip(before, without) if x != "b")
    assert "b" not in without
    assert pair.push(pair.yaml([one])).status == 200
    assert homes() == before
    pair.dataplane.stop()
    pair.dataplane.start()
    wait_until(pair.can_connect, "it is back")
    assert homes() == before


@pytest.mark.parametrize("algorithm", ["round_robin", "least_conn", "weighted", "ip_hash"])
def test_full_backends_are_passed_over(make_pair, backends, algorithm):
    """max_connections is of the process, whichever worker has them."""
    all_two = backends("a", "b")
    one = pool(all_two, algorithm)
    for b in one["backends"]:
        b["max_connections"] = 2
    pair = make_pair([one], server={"workers": 4})
    held = [pair.client() for _ in range(4)]
    for c in held:
        c.send_request("GET", "/delay/3")
    wait_until(lambda: pair.metric("gateway_downstream_requests_active") == 4, "four are under way")
    answer = pair.get("/")
    assert answer.status == 503 and answer.json()["error"] == "no_endpoint"
    assert sorted(b.get("/connections")["requests"] for b in all_two) == [2, 2]
    for c in held:
        assert c.read_response("GET").status == 200
    assert pair.get("/").status == 200
