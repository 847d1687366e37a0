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
CLIENTS = 8  # of each gateway


class Paced:
    """Clients that send so many requests a second between them; when each that passed was sent and answered."""

    def __init__(self, pairs, rate):
        self.passed, self.sent, self.lock = [], 0, threading.Lock()
        count = CLIENTS * len(pairs)
        self.step = count / rate
        self.start = time.monotonic() + 0.2
        threads = [threading.Thread(target=self.run, args=(pairs[i % len(pairs)], i / count)) for i in range(count)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def run(self, pair, phase):
        """One connection, which makes up for being late."""
        passed, sent = [], 0
        with Client(pair.address, 30) as c:
            due = self.start + phase * self.step
            while due < self.start + SECONDS:
                time.sleep(max(0, due - time.monotonic()))
                before = time.monotonic()
                if c.request("GET", "/").status == 200:
                    passed.append((before, time.monotonic()))
                sent += 1
                due += self.step
        with self.lock:
            self.passed += passed
            self.sent += sent


def most_in_a_window(passed):
    """The most that were sent and answered within any window: each of these was decided in it."""
    return max(sum(1 for s, a in passed if s >= sent and a <= sent + WINDOW) for sent, _ in passed)


@pytest.mark.heavy
@pytest.mark.parametrize("load", [1, 2, 10])
@pytest.mark.parametrize("where", ["process-1", "process-2", "redis-4"])
@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_no_more_than_the_limit_and_99_percent_of_it(make_pair, backend, algorithm, where, load):
    """One key, asked for everywhere at once: in one process by its workers, or through Redis by four gateways."""
    place, count = where.split("-")
    redis = Redis() if place == "redis" else None
    try:
        limit = {"algorithm": algorithm, "rate": RATE}
        if algorithm == "token_bucket":
            limit["burst"] = BURST
        else:
            limit["window_seconds"] = WINDOW
        if redis:
            limit |= {"redis_url": redis.url, "redis_timeout_ms": 2000, "on_redis_failure": "deny"}
        workers = 1 if redis else int(count)
        pairs = [make_pair([route("all", "/", backend, rate_limit=limit)], server={"workers": workers})
                 for _ in range(int(count) if redis else 1)]
        paced = Paced(pairs, RATE * load)
        first, last = min(p[0] for p in paced.passed), max(p[1] for p in paced.passed)
        took = last - first
        if algorithm == "token_bucket":
            allowed = BURST + RATE * took
            assert len(paced.passed) <= allowed
        else:
            allowed = RATE * WINDOW * (took // WINDOW + 1)
            assert most_in_a_window(paced.passed) <= RATE * WINDOW
        least = BURST + RATE * SECONDS if algorithm == "token_bucket" else RATE * SECONDS
        share = len(paced.passed) / min(least, paced.sent)
        print(f"\n| {algorithm} | {place} | {count} | {load}x | {paced.sent} | {len(paced.passed)} | {allowed:.0f} | "
              f"{share * 100:.2f} % |", flush=True)
        if load > 1 and paced.sent >= 0.95 * RATE * SECONDS * load:
            assert share >= 0.99
        assert all(p.metric("gateway_redis_timeouts_total") == 0 for p in pairs)
    finally:
        if redis:
            redis.close()
