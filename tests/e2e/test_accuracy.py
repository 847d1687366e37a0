"""How exact limits are: algorithm, where it is counted, by how many, at which load. With -s each run prints a row."""
import threading
import time

import pytest

from harness import SCALE, route
from rawhttp import Client
from redisserver import Redis

RATE = 100 / SCALE  # a second
BURST = 50
WINDOW = 1.0
SECONDS = 5 * SCALE
CLIENTS = 8  # of each gateway, for each load
LOADS = (1, 2, 10)


class Paced:
    """Clients that send so many requests a second between them; when each that passed was sent and answered."""

    def __init__(self, pairs, target, rate):
        self.passed, self.sent, self.lock = [], 0, threading.Lock()
        count = CLIENTS * len(pairs)
        self.target = target
        self.step = count / rate
        self.start = time.monotonic() + 0.2
        self.threads = [threading.Thread(target=self.run, args=(pairs[i % len(pairs)], i / count)) for i in range(count)]
        for t in self.threads:
            t.start()

    def wait(self):
        """Until they are done."""
        for t in self.threads:
            t.join()
        return self

    def run(self, pair, phase):
        """One connection, which makes up for being late."""
        passed, sent = [], 0
        with Client(pair.address, 30) as c:
            due = self.start + phase * self.step
            while due < self.start + SECONDS:
                time.sleep(max(0, due - time.monotonic()))
                before = time.monotonic()
                if c.request("GET", self.target).status == 200:
                    passed.append((before, time.monotonic()))
                sent += 1
                due += self.step
        with self.lock:
            self.passed += passed
            self.sent += sent


def most_in_a_window(passed):
    """The most that were sent and answered within any window: each of these was decided in it."""
    return max(sum(1 for s, a in passed if s >= sent and a <= sent + WINDOW) for sent, _ in passed)


def check(algorithm, place, load, paced):
    """What passed of one load: a row of the table."""
    first, last = min(p[0] for p in paced.passed), max(p[1] for p in paced.passed)
    took = last - first
    if algorithm == "token_bucket":
        allowed, least = BURST + RATE * took, BURST + RATE * SECONDS
        assert len(paced.passed) <= allowed
    else:
        allowed, least = RATE * WINDOW * (took // WINDOW + 1), RATE * SECONDS
        assert most_in_a_window(paced.passed) <= RATE * WINDOW
    share = len(paced.passed) / min(least, paced.sent)
    print(f"\n| {algorithm} | {place} | {load}x | {paced.sent} | {len(paced.passed)} | {allowed:.0f} | "
          f"{share * 100:.2f} % |", flush=True)
    if load > 1 and paced.sent >= 0.95 * RATE * SECONDS * load:
        assert share >= 0.99


@pytest.mark.heavy
@pytest.mark.parametrize("where", ["process-1", "process-2", "redis-4"])
@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_no_more_than_the_limit_and_99_percent_of_it(make_pair, backend, algorithm, where):
    """One key, asked for everywhere at once: in one process by its workers, or through Redis by four gateways. All loads
    at the same time, each on a route of its own."""
    place, count = where.split("-")
    redis = Redis() if place == "redis" else None
    try:
        limit = {"algorithm": algorithm, "rate": RATE}
        limit |= {"burst": BURST} if algorithm == "token_bucket" else {"window_seconds": WINDOW}
        if redis:
            limit |= {"redis_url": redis.url, "redis_timeout_ms": 2000, "on_redis_failure": "deny"}
        routes = [route(f"load-{load}", f"/{load}", backend, rate_limit=limit) for load in LOADS]
        pairs = [make_pair(routes, server={"workers": 1 if redis else int(count)})
                 for _ in range(int(count) if redis else 1)]
        runs = [Paced(pairs, f"/{load}", RATE * load) for load in LOADS]
        for load, paced in zip(LOADS, runs):
            check(algorithm, where, load, paced.wait())
        assert all(p.metric("gateway_redis_timeouts_total") == 0 for p in pairs)
    finally:
        if redis:
            redis.close()
