"""Rate limits: who is counted, what clients are told, what survives a change, and how exact it is under load."""
import bisect
import threading
import time

import pytest

from harness import SCALE, route, wait_until
from rawhttp import Client

TRUST = {"trusted_proxies": ["127.0.0.1"]}


def limit(**more):
    """A limit that gives nothing back while a test runs, unless told otherwise."""
    return {"rate": 0.001, "burst": 3, **more}


def limited(backend, name="all", prefix="/", **more):
    """A route with that limit."""
    return route(name, prefix, backend, rate_limit=limit(**more))


def statuses(pair, count, headers=(), target="/"):
    """That many requests, one after the other on one connection."""
    c = pair.client()
    return [c.request("GET", target, list(headers)).status for _ in range(count)]


def test_refusal_says_everything(make_pair, backend):
    """429 with the time to wait, the policy and what is left; the same on answers that passed."""
    pair = make_pair([limited(backend, rate=0.1, burst=2)])
    first, second, third = (pair.get("/") for _ in range(3))
    assert [r.status for r in (first, second, third)] == [200, 200, 429]
    for answer, left, reset in ((first, 1, 10), (second, 0, 20), (third, 0, 10)):
        assert answer.get("ratelimit-policy") == '"all";q=2;w=20'
        assert answer.get("ratelimit") in (f'"all";r={left};t={reset}', f'"all";r={left};t={reset - 1}')
        assert answer.get("x-ratelimit-limit") == "2"
        assert answer.get("x-ratelimit-remaining") == str(left)
        assert int(answer.get("x-ratelimit-reset")) in (reset, reset - 1)
    assert first.get("retry-after") is None
    assert int(third.get("retry-after")) in (9, 10)
    assert third.get("retry-after") == third.get("x-ratelimit-reset"), "one point in time"
    assert third.json()["error"] == "limited"
    assert third.get("connection") is None, "the connection goes on"
    wait_until(lambda: pair.metric("gateway_requests_total", route="all", status="429") == 1, "it is counted")
    wait_until(lambda: sorted((x["limiter"], x["reason"]) for x in pair.access_lines())
               == [("allowed", "ok"), ("allowed", "ok"), ("limited", "limited")], "the verdicts are logged")


def test_waiting_as_told_is_enough(make_pair, backend):
    """Who comes back after Retry-After is served."""
    pair = make_pair([limited(backend, rate=1, burst=1), limited(backend, "window", "/w", algorithm="sliding_window",
                                                                 rate=1)])
    for target in ("/", "/w"):
        assert pair.get(target).status == 200
        refused = pair.get(target)
        assert refused.status == 429
        time.sleep(int(refused.get("retry-after")))
        assert pair.get(target).status == 200


def test_sliding_window_announces_its_quota(make_pair, backend):
    """rate times window; all of it may come at once."""
    pair = make_pair([limited(backend, algorithm="sliding_window", rate=0.1, window_seconds=50)])
    assert statuses(pair, 6) == [200] * 5 + [429]
    assert pair.get("/").get("ratelimit-policy") == '"all";q=5;w=50'


def test_backend_is_not_asked_and_body_is_taken(make_pair, backend):
    """A refused request costs the backend nothing; its connection goes on behind its body."""
    pair = make_pair([limited(backend, burst=1)])
    c = pair.client()
    assert c.request("POST", "/echo", body=b"x" * 100).status == 200
    backend.kill()
    for _ in range(3):
        assert c.request("POST", "/echo", body=b"x" * 100).status == 429


def test_fields_can_be_kept_back(make_pair, backend):
    """headers: false leaves Retry-After alone, and the backend's own fields as they are."""
    own = b"HTTP/1.1 200 OK\r\nRateLimit: mine\r\nX-RateLimit-Limit: 7\r\nContent-Length: 0\r\n\r\n"
    pair = make_pair([limited(backend, headers=False), limited(backend, "told", "/told")])
    answer = pair.request("POST", "/raw", body=own)
    assert answer.get("ratelimit") == "mine" and answer.get("x-ratelimit-limit") == "7"
    assert statuses(pair, 3) == [200, 200, 429]
    refused = pair.get("/")
    assert refused.get("ratelimit") is None and refused.get("x-ratelimit-limit") is None
    assert int(refused.get("retry-after")) >= 1


def test_fields_of_the_backend_give_way_to_ours(make_pair, backend):
    """Each stands there once; a route's own edits have the last word."""
    own = (b"HTTP/1.1 200 OK\r\nratelimit: mine\r\nRateLimit-Policy: mine\r\nX-RateLimit-Limit: 7\r\n"
           b"X-RateLimit-Remaining: 7\r\nX-RateLimit-Reset: 7\r\nContent-Length: 0\r\n\r\n")
    pair = make_pair([route("all", "/", backend, rate_limit=limit(),
                            headers={"response": {"remove": ["RateLimit"], "set": {"X-RateLimit-Reset": "never"}}})])
    answer = pair.request("POST", "/raw", body=own)
    assert answer.get("ratelimit") is None
    assert answer.get("ratelimit-policy") == '"all";q=3;w=3000'
    assert answer.get("x-ratelimit-limit") == "3"
    assert answer.get("x-ratelimit-remaining") == "2"
    assert answer.get("x-ratelimit-reset") == "never"


# ---- keys ----

def test_every_client_has_its_own_limit(make_pair, backend):
    """By the address that counts as the client's; IPv6 by its prefix."""
    pair = make_pair([limited(backend)], server=TRUST)

    def of(address, count=4):
        return statuses(pair, count, [("X-Forwarded-For", address)])
    assert of("203.0.113.1") == [200, 200, 200, 429]
    assert of("203.0.113.2") == [200, 200, 200, 429]
    assert of("2001:db8::1", 2) == [200, 200]
    assert of("2001:db8::ffff:2", 2) == [200, 429]
    assert of("2001:db8:0:1::1", 1) == [200]


@pytest.mark.parametrize("key_by, header", [("user", "X-User-ID"), ("api_key", "X-API-Key")])
def test_key_is_a_headers_value(make_pair, backend, key_by, header):
    """Without the header the address counts, apart from whoever sends the address as a value."""
    pair = make_pair([limited(backend, key_by=key_by)])
    assert statuses(pair, 4, [(header, "alice")]) == [200, 200, 200, 429]
    assert statuses(pair, 4, [(header.lower(), "bob")]) == [200, 200, 200, 429]
    assert statuses(pair, 4) == [200, 200, 200, 429]
    assert statuses(pair, 4, [(header, "127.0.0.1")]) == [200, 200, 200, 429]
    assert statuses(pair, 1, [(header, "alice")]) == [429]


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_header_that_stands_there_twice_is_no_key(make_pair, backend, header):
    """Nobody knows which one the backend takes: with a new one beside it each time nobody would be limited."""
    pair = make_pair([limited(backend, key_by="api_key", api_key_header=header)])
    c = pair.client()
    assert [c.request("GET", "/", [(header, str(n)), (header, "real")]).status for n in range(4)] == [200] * 3 + [429]
    assert statuses(pair, 1, [(header, "real")]) == [200]


def test_header_may_be_one_that_the_gateway_knows(make_pair, backend):
    """Such as Authorization."""
    pair = make_pair([limited(backend, key_by="api_key", api_key_header="authorization")])
    assert statuses(pair, 4, [("Authorization", "Bearer a")]) == [200, 200, 200, 429]
    assert statuses(pair, 1, [("Authorization", "Bearer b")]) == [200]


def test_routes_do_not_share_limits(make_pair, backend):
    """Each has its table."""
    pair = make_pair([limited(backend, "a", "/a"), limited(backend, "b", "/b"), route("rest", "/", backend)])
    assert statuses(pair, 4, target="/a") == [200, 200, 200, 429]
    assert statuses(pair, 4, target="/b") == [200, 200, 200, 429]
    assert statuses(pair, 5) == [200] * 5
    assert pair.get("/").get("ratelimit") is None


def test_observing_refuses_nothing(make_pair, backend):
    """It counts and logs, and tells clients nothing."""
    pair = make_pair([limited(backend, mode="observe")])
    assert statuses(pair, 5) == [200] * 5
    assert pair.get("/").get("ratelimit") is None
    wait_until(lambda: [pair.metric(f"gateway_limit{n}_total") for n in ("_allowed", "ed", "_observed")] == [3, 0, 3],
               "all six are counted")
    wait_until(lambda: sorted(x["limiter"] for x in pair.access_lines()) == ["allowed"] * 3 + ["observed"] * 3,
               "the verdicts are logged")


# ---- changes ----

def push(pair, routes):
    """Brings other routes into force."""
    generation = pair.generation() + 1
    answer = pair.push(pair.yaml(routes))
    assert answer.status in (200, 202), answer
    pair.wait_synced(generation)


def test_limits_survive_a_change_of_other_things(make_pair, backends):
    """Another backend, another timeout, and twice in a row: whoever is limited stays so."""
    a, b = backends("a", "b")
    pair = make_pair([limited(a)])
    assert statuses(pair, 4) == [200, 200, 200, 429]
    push(pair, [dict(limited(b), timeout_seconds=7)])
    assert statuses(pair, 2) == [429, 429]
    push(pair, [limited(a), route("other", "/other", b)])
    assert statuses(pair, 2) == [429, 429]


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_changed_rate_applies_at_once(make_pair, backend, algorithm):
    """To keys that have a state already: what is spent stays spent, the rest is new."""
    def with_rate(rate, burst):
        if algorithm == "token_bucket":
            return [limited(backend, rate=rate, burst=burst)]
        return [route("all", "/", backend, rate_limit={"algorithm": algorithm, "rate": burst / 1000,
                                                       "window_seconds": 1000})]
    pair = make_pair(with_rate(0.001, 3))
    assert statuses(pair, 4) == [200, 200, 200, 429]
    push(pair, with_rate(0.001, 5))
    assert statuses(pair, 3) == [200, 200, 429]
    push(pair, with_rate(0.001, 2))
    assert statuses(pair, 1) == [429]
    if algorithm == "token_bucket":
        push(pair, with_rate(1000, 2))
        wait_until(lambda: pair.get("/").status == 200, "the new rate fills it in no time", 1)


def test_another_way_of_counting_begins_anew(make_pair, backend):
    """Another kind of key: what was counted means nothing to it."""
    pair = make_pair([limited(backend)])
    assert statuses(pair, 4) == [200, 200, 200, 429]
    push(pair, [limited(backend, key_by="user")])
    assert statuses(pair, 4) == [200, 200, 200, 429]



# ---- under load ----

class Load:
    """Connections that ask as fast as they can; when each request that passed was sent and answered."""

    def __init__(self, pair, connections, seconds):
        self.pair, self.seconds = pair, seconds
        self.passed, self.last = [], []
        self.lock = threading.Lock()
        threads = [threading.Thread(target=self.run) for _ in range(connections)]
        self.start = time.monotonic()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.took = time.monotonic() - self.start

    def run(self):
        """One connection."""
        passed, status = [], None
        with Client(self.pair.address, 30) as c:
            while time.monotonic() < self.start + self.seconds:
                sent = time.monotonic()
                status = c.request("GET", "/").status
                if status == 200:
                    passed.append((sent, time.monotonic()))
        with self.lock:
            self.passed += passed
            self.last.append(status)


@pytest.mark.heavy
def test_bucket_is_exact_under_load(make_pair, backend):
    """Two workers, many connections: never more than the limit, and at least 99 % of it."""
    pair = make_pair([limited(backend, rate=100 / SCALE, burst=200)])
    load = Load(pair, 8, 4 * SCALE)
    assert len(load.passed) <= 200 + 100 / SCALE * load.took
    assert load.last.count(429) > 0, "the load was beyond the limit to the end"
    assert len(load.passed) >= 0.99 * (200 + 100 / SCALE * load.seconds)


@pytest.mark.heavy
def test_no_window_holds_more_than_the_quota(make_pair, backend):
    """Whatever was sent and answered within a window was decided within it."""
    window = 0.5
    pair = make_pair([limited(backend, algorithm="sliding_window", rate=100, window_seconds=window)])
    load = Load(pair, 8, 4)
    answered = sorted(load.passed, key=lambda p: p[1])
    times = [p[1] for p in answered]
    for sent in (p[0] for p in answered):
        end = bisect.bisect_right(times, sent + window)
        held = sum(1 for s, _ in answered[max(0, end - 200):end] if s >= sent)
        assert held <= 50
    assert len(load.passed) >= 0.9 / SCALE * 100 * load.seconds
