"""Limits that Redis counts: shared by gateways, and what happens when Redis is not there."""
import contextlib
import signal
import socket
import struct
import threading
import time
from datetime import datetime, timezone

import pytest

from faultproxy import FaultProxy
from harness import SCALE, Pair, free_port, route, wait_until
from rawhttp import Client
from redisserver import Redis, RedisError

WAITS_MS = int(5000 * SCALE)  # a redis_timeout_ms that lets requests wait for as long as a test wants
TRUST = {"trusted_proxies": ["127.0.0.1"]}
ALGORITHMS = ["token_bucket", "sliding_window"]


@pytest.fixture
def make_redis():
    """Starts redis-servers: make_redis("--requirepass", "x")."""
    started = []

    def make(*options):
        started.append(Redis(*options))
        return started[-1]
    yield make
    for redis in started:
        redis.close()


@pytest.fixture
def redis(make_redis):
    """One redis-server."""
    return make_redis()


@pytest.fixture
def proxy(redis):
    """A proxy before it that can go wrong."""
    made = FaultProxy(("127.0.0.1", redis.port))
    yield made
    made.close()


def limited(backend, url, name="all", prefix="/", **more):
    """A route whose limit is counted in Redis and gives nothing back while a test runs, unless told otherwise."""
    if more.get("algorithm") == "sliding_window":
        numbers = {"rate": more.pop("quota", 3) / 1000, "window_seconds": 1000}
    else:
        numbers = {"rate": 0.001, "burst": more.pop("quota", 3)}
    return route(name, prefix, backend,
                 rate_limit={**numbers, "redis_url": url, "redis_timeout_ms": int(500 * SCALE), **more})


def through(proxy):
    """As redis_url."""
    return f"redis://127.0.0.1:{proxy.port}/0"


def statuses(pair, count, headers=(), target="/"):
    """That many requests, one after the other on one connection."""
    c = pair.client()
    return [c.request("GET", target, list(headers)).status for _ in range(count)]


def redis_log(pair):
    """What the data plane has said of Redis."""
    return [line for line in pair.dataplane.log().splitlines() if '"module":"redis"' in line]


def last_said(pair):
    """The last of it."""
    return (redis_log(pair) or [""])[-1]


def wait_up(pair):
    """Until every worker's connection to Redis is in use: said when the last of them is."""
    wait_until(lambda: any(word in last_said(pair) for word in (" answers: ", " is back: ")), "Redis is asked")


def wait_away(pair):
    """Until no worker asks Redis any more. (It is said when the first of them does not; a report that knows of that tells of
    all of them.)"""
    def away():
        told = pair.metrics()
        return list(told["gateway_redis_up"].values()) == [0] and not sum(told["gateway_redis_connections_active"].values())
    wait_until(away, "Redis is not asked any more")


def wait_heard(pair, gateways):
    """Until the data plane knows of so many gateways on its Redis."""
    wait_until(lambda: pair.metric("gateway_redis_gateways") == gateways, f"it has heard of {gateways}")


def now():
    """As the access log writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- counting there ----

@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_gateways_share_a_limit(make_pair, backend, redis, algorithm):
    """What one has let pass, the other counts; refused requests cost nothing; fields say the whole limit."""
    routes = [limited(backend, redis.url, algorithm=algorithm, quota=5)]
    one, other = make_pair(routes), make_pair(routes)
    wait_up(one)
    wait_up(other)
    assert statuses(one, 3) == [200] * 3
    assert statuses(other, 4) == [200, 200, 429, 429]
    refused = one.get("/")
    assert refused.status == 429 and refused.get("x-ratelimit-remaining") == "0"
    assert "share" not in refused.get("ratelimit-policy") and ";q=5;" in refused.get("ratelimit-policy")
    assert int(refused.get("retry-after")) > 1
    keys = [k for k in redis.ask("KEYS", "gwp:*") if k not in ("gwp:gateways", "gwp:secret", "gwp:since")]
    assert len(keys) == 1 and "127.0.0.1" not in keys[0], "no address is told"
    assert redis.ask("PTTL", keys[0]) > 0, "it goes by itself"
    assert redis.ask("ZCARD", "gwp:gateways") == 2
    wait_until(lambda: one.metric("gateway_redis_decisions_total") == 4, "each decision is counted")


def test_redis_over_a_unix_socket_with_database(make_pair, backend, redis):
    """unix:///path?db=N."""
    pair = make_pair([limited(backend, f"unix://{redis.socket}?db=3")])
    wait_up(pair)
    assert statuses(pair, 4) == [200, 200, 200, 429]
    assert "db3:keys=4" in redis.ask("INFO", "keyspace")


@pytest.mark.parametrize("user", ["", "gateway"])
def test_redis_with_login_keeps_it_to_itself(make_pair, backend, make_redis, user):
    """AUTH, with and without a user; the password is nowhere to be read."""
    redis = make_redis("--requirepass", "hunter2/:")
    if user:
        redis.ask("ACL", "SETUSER", user, "on", ">hunter2/:", "~gwp:*", "+@all", password="hunter2/:")
    pair = make_pair([limited(backend, f"redis://{user}:hunter2/:@127.0.0.1:{redis.port}/1")])
    wait_up(pair)
    assert statuses(pair, 4) == [200, 200, 200, 429]
    told = [pair.dataplane.log(), pair.controlplane.log(), pair.admin("GET", "/metrics").body.decode()]
    told += [pair.admin("GET", f"/api/v1/{what}").body.decode() for what in ("status", "routes", "backends")]
    told += [pair.ctl(what).out for what in ("status", "routes")]
    assert not any("hunter2" in text for text in told)
    for path in pair.state.iterdir():
        assert path.stat().st_mode & 0o077 == 0, "the stored snapshot, which holds it, is for its owner only"


def test_host_name_of_redis_is_resolved_by_the_control_plane(make_pair, backend, redis):
    """The data plane looks nothing up."""
    pair = make_pair([limited(backend, f"redis://localhost:{redis.port}")])
    wait_up(pair)
    assert statuses(pair, 4) == [200, 200, 200, 429]


def test_clients_and_routes_are_told_apart_there(make_pair, backend, redis):
    """By address, IPv6 by prefix, by header; per route."""
    pair = make_pair([limited(backend, redis.url, quota=1),
                      limited(backend, redis.url, "users", "/users", quota=1, key_by="user")], server=TRUST)
    wait_up(pair)

    def of(address):
        return statuses(pair, 2, [("X-Forwarded-For", address)])
    assert of("203.0.113.1") == [200, 429]
    assert of("203.0.113.2") == [200, 429]
    assert of("2001:db8::1") == [200, 429]
    assert of("2001:db8::2") == [429, 429]
    assert statuses(pair, 2, [("X-User-ID", "alice")], "/users") == [200, 429]
    assert statuses(pair, 2, [("X-User-ID", "bob")], "/users") == [200, 429]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_changed_rate_applies_to_what_is_counted_there(make_pair, backend, redis, algorithm):
    """What is spent stays spent; another quota counts from now on."""
    pair = make_pair([limited(backend, redis.url, algorithm=algorithm, quota=3)])
    wait_up(pair)
    assert statuses(pair, 4) == [200, 200, 200, 429]
    assert pair.push(pair.yaml([limited(backend, redis.url, algorithm=algorithm, quota=5)])).status == 200
    pair.wait_synced(2)
    assert statuses(pair, 3) == [200, 200, 429]
    assert pair.push(pair.yaml([limited(backend, redis.url, algorithm=algorithm, quota=4)])).status == 200
    pair.wait_synced(3)
    assert statuses(pair, 1) == [429]


def test_waiting_as_told_is_enough(make_pair, backend, redis):
    """Who comes back after Retry-After is served."""
    pair = make_pair([limited(backend, redis.url, rate=1, quota=1),
                      route("w", "/w", backend, rate_limit={"algorithm": "sliding_window", "rate": 1,
                                                            "redis_url": redis.url, "redis_timeout_ms": 500})])
    wait_up(pair)
    targets = ("/", "/w")
    assert [pair.get(target).status for target in targets] == [200] * 2
    refused = [pair.get(target) for target in targets]
    assert [r.status for r in refused] == [429] * 2
    time.sleep(max(int(r.get("retry-after")) for r in refused))
    assert [pair.get(target).status for target in targets] == [200] * 2


def test_flushed_scripts_are_sent_again(make_pair, backend, redis):
    """NOSCRIPT costs nobody an answer; a flushed database begins anew and keeps its secret."""
    pair = make_pair([limited(backend, redis.url)])
    wait_up(pair)
    assert statuses(pair, 2) == [200] * 2
    redis.ask("SCRIPT", "FLUSH")
    assert statuses(pair, 2) == [200, 429]
    secret = redis.ask("GET", "gwp:secret")
    redis.ask("FLUSHALL")
    assert statuses(pair, 4) == [200, 200, 200, 429]
    wait_until(lambda: redis.ask("GET", "gwp:secret") == secret, "the secret is there again")
    assert pair.metric("gateway_redis_failures_total") == 0


def test_requests_wait_in_turn_on_a_slow_redis(make_pair, backend, redis, proxy):
    """Waiting requests go on when Redis answers: bodies, pipelines, and those whose snapshot is superseded."""
    pair = make_pair([limited(backend, through(proxy), quota=100, redis_timeout_ms=WAITS_MS)])
    wait_up(pair)
    proxy.hold()
    answers = []

    def post():
        answers.append(pair.request("POST", "/echo", body=b"x" * 100000))
    threads = [threading.Thread(target=post) for _ in range(8)]
    for t in threads:
        t.start()
    wait_until(lambda: pair.metric("gateway_redis_waiting") == 8, "they wait")
    assert pair.push(pair.yaml([limited(backend, through(proxy), quota=101, redis_timeout_ms=WAITS_MS)])).status == 200
    proxy.release()
    for t in threads:
        t.join()
    assert [a.status for a in answers] == [200] * 8
    proxy.delay = 0.05
    c = pair.client()
    c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
    assert [c.read_response().status for _ in range(5)] == [200] * 5
    assert pair.metric("gateway_redis_timeouts_total") == 0
    wait_until(lambda: pair.metric("gateway_redis_waiting") == 0, "nobody waits")


def test_first_requests_wait_for_the_first_connection(make_pair, backend, redis, proxy):
    """What comes before Redis has answered at all is not decided without it."""
    proxy.hold()
    pair = make_pair([limited(backend, through(proxy), quota=2, redis_timeout_ms=WAITS_MS)])
    clients = [pair.client() for _ in range(5)]
    for c in clients:
        c.send_request("GET", "/")
    wait_until(lambda: pair.metric("gateway_redis_waiting") == 5, "they wait")
    clients.pop().close()
    wait_until(lambda: pair.metric("gateway_redis_waiting") == 4, "one has left")
    proxy.release()
    assert sorted(c.read_response().status for c in clients) == [200, 200, 429, 429]
    wait_until(lambda: pair.metric("gateway_redis_decisions_total") == 4, "Redis has decided")
    assert pair.metric("gateway_redis_unasked_total") == 0


def test_first_requests_do_not_wait_for_a_redis_that_is_silent(make_pair, backend, redis, proxy):
    """Not longer than for an answer; who comes later does not wait at all."""
    proxy.mode = "hole"
    pair = make_pair([limited(backend, through(proxy), redis_timeout_ms=300)])
    c, sent = pair.client(), time.monotonic()
    assert [c.request("GET", "/").status for _ in range(4)] == [200, 200, 200, 429]
    assert time.monotonic() - sent < 2 * SCALE
    assert "does not answer in time" in redis_log(pair)[0]


def test_client_that_goes_while_waiting_leaves_nothing(make_pair, backend, redis, proxy):
    """Its answer is not waited for; the connection to Redis stays in step."""
    pair = make_pair([limited(backend, through(proxy), quota=100, redis_timeout_ms=WAITS_MS)])
    wait_up(pair)
    proxy.hold()
    for _ in range(20):
        with Client(pair.address, 5) as c:
            c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: sum(x["status"] == 499 for x in pair.access_lines()) == 20, "all went before the answer")
    proxy.release()
    wait_until(lambda: pair.metric("gateway_redis_waiting") == 0, "nobody waits")
    answer = pair.get("/")
    assert answer.status == 200 and answer.get("x-ratelimit-remaining") == "79", "what was asked has been counted"


def test_draining_lets_waiting_requests_finish(make_pair, backend, redis, proxy):
    """SIGTERM while they wait."""
    pair = make_pair([limited(backend, through(proxy), redis_timeout_ms=WAITS_MS)])
    wait_up(pair)
    proxy.hold()
    c = pair.client()
    c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_until(lambda: pair.metric("gateway_redis_waiting") == 1, "it waits")
    pair.dataplane.signal(signal.SIGTERM)
    wait_until(lambda: "shutting down" in pair.dataplane.log(), "it was told")
    proxy.release()
    assert c.read_response().status == 200
    assert pair.dataplane.wait() == 0


def test_requests_that_come_together_ask_together(make_pair, backend, redis):
    """Twenty requests in one turn of the loop: one write to Redis, and one read of its answers."""
    pair = make_pair([limited(backend, redis.url, quota=1000)], server={"workers": 1})
    wait_up(pair)

    def reads():
        return int(dict(line.split(":") for line in redis.ask("INFO", "stats").split("\r\n") if ":" in line)
                   ["total_reads_processed"])
    clients = [pair.client() for _ in range(20)]
    for c in clients:
        assert c.request("GET", "/").status == 200
    own = -reads() + reads()  # what asking costs
    before = reads()
    pair.dataplane.signal(signal.SIGSTOP)
    for c in clients:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    pair.dataplane.signal(signal.SIGCONT)
    answers = [c.read_response() for c in clients]
    assert [a.status for a in answers] == [200] * 20
    assert reads() - before - own <= 3, "greetings included"
    assert min(int(a.get("x-ratelimit-remaining")) for a in answers) == 1000 - 40


# ---- when it is not there ----

FAULTS = ["refuse", "hole", "slow", "nonsense"]


def break_it(proxy, fault):
    """From now on."""
    if fault == "slow":
        proxy.delay = 2
    else:
        proxy.mode = fault


def mend(proxy):
    """As before."""
    proxy.release()


class Stream:
    """Connections that ask as fast as they are answered until stop(); how it went."""

    def __init__(self, pair, connections=4):
        self.statuses, self.slowest, self.lock = {}, 0, threading.Lock()
        self.stopping = False
        self.pair = pair
        self.threads = [threading.Thread(target=self.run) for _ in range(connections)]
        for t in self.threads:
            t.start()

    def run(self):
        """One connection."""
        with Client(self.pair.address, 30) as c:
            while not self.stopping:
                sent = time.monotonic()
                status = c.request("GET", "/").status
                with self.lock:
                    self.statuses[status] = self.statuses.get(status, 0) + 1
                    self.slowest = max(self.slowest, time.monotonic() - sent)

    def count(self):
        """So far."""
        with self.lock:
            return sum(self.statuses.values())

    def stop(self):
        """How often which status came."""
        self.stopping = True
        for t in self.threads:
            t.join()
        return self.statuses


@pytest.mark.parametrize("policy", ["local", "allow"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_request_fails_for_redis_sake(make_pair, backend, redis, proxy, fault, policy):
    """Under load: it goes away, is noticed, is told once, is asked no more, comes back by itself."""
    pair = make_pair([limited(backend, through(proxy), quota=1000000, redis_timeout_ms=250,
                              on_redis_failure=policy)])
    wait_up(pair)
    stream = Stream(pair)
    wait_until(lambda: stream.count() > 50, "requests pass")
    break_it(proxy, fault)
    wait_away(pair)
    away, before = now(), stream.count()
    wait_until(lambda: stream.count() > before + 500, "requests pass, quickly, without Redis")
    decided, mended = pair.metric("gateway_redis_decisions_total"), now()
    mend(proxy)
    wait_up(pair)
    wait_until(lambda: pair.metric("gateway_redis_decisions_total") > decided + 50, "Redis decides again")
    answered = stream.stop()
    assert set(answered) == {200}, answered
    assert stream.slowest < 2 * SCALE, "nobody waits for a Redis that is away"
    word = {"local": "local_allowed", "allow": "unchecked_allowed"}[policy]
    wait_until(lambda: len(pair.access_lines()) == sum(answered.values()), "all is logged")
    assert {x["limiter"] for x in pair.access_lines() if away < x["ts"] < mended} == {word}, "Redis is asked nothing"
    said = redis_log(pair)
    assert 3 <= len(said) <= 12, said
    assert " answers: " in said[0] and " is away: " in said[1] and " is back: " in said[-1]


def test_deny_refuses_what_cannot_be_checked(make_pair, backend, redis, proxy):
    """503 with Retry-After; not counted as the backend's failure; over when Redis is back."""
    pair = make_pair([limited(backend, through(proxy), on_redis_failure="deny")])
    wait_up(pair)
    assert pair.get("/").status == 200
    proxy.mode = "refuse"
    wait_away(pair)
    refused = pair.get("/")
    assert refused.status == 503 and refused.json()["error"] == "limited"
    assert refused.get("retry-after") == "1" and refused.get("ratelimit") is None
    proxy.mode = "pass"
    wait_up(pair)
    assert pair.get("/").status == 200
    wait_until(lambda: [(x["status"], x["limiter"]) for x in sorted(pair.access_lines(), key=lambda x: x["ts"])]
               == [(200, "allowed"), (503, "unchecked_denied"), (200, "allowed")], "the verdicts are logged")


def test_redis_that_never_was_there(make_pair, backend):
    """Nobody listens: local from the first request on, alone, so by the whole limit."""
    pair = make_pair([limited(backend, "redis://127.0.0.1:1/0")])
    wait_until(lambda: pair.metric("gateway_redis_connections_away") == 2, "it is away")
    assert statuses(pair, 4) == [200, 200, 200, 429]
    wait_until(lambda: pair.metric("gateway_redis_unasked_total") == 4, "each is counted")
    assert len(redis_log(pair)) == 1 and "cannot be connected to" in redis_log(pair)[0]


def test_redis_that_is_killed_and_comes_back_empty(make_pair, backend, redis):
    """Under load; what it counted is gone with it."""
    pair = make_pair([limited(backend, redis.url, quota=1000000)])
    wait_up(pair)
    stream = Stream(pair)
    wait_until(lambda: stream.count() > 50, "requests pass")
    redis.kill()
    wait_away(pair)
    redis.start()
    wait_up(pair)
    assert set(stream.stop()) == {200}
    assert "closed the connection" in redis_log(pair)[1] or "cannot be connected" in redis_log(pair)[1]


def test_read_only_replica_is_not_used(make_pair, backend, redis):
    """A failover leaves us at a replica: it is noticed, and used again when it is a primary."""
    pair = make_pair([limited(backend, redis.url, quota=5, redis_timeout_ms=500)])
    wait_up(pair)
    assert statuses(pair, 2) == [200] * 2
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    assert statuses(pair, 3) == [200] * 3
    wait_away(pair)
    assert "read-only replica" in redis_log(pair)[1]
    redis.ask("REPLICAOF", "NO", "ONE")
    wait_up(pair)
    assert statuses(pair, 1) == [200]


def test_redis_that_wants_another_password(make_pair, backend, make_redis):
    """Told as what it is, without the password."""
    redis = make_redis("--requirepass", "right")
    pair = make_pair([limited(backend, f"redis://:hunter2@127.0.0.1:{redis.port}"),
                      limited(backend, redis.url, "other", "/other")])
    wait_until(lambda: pair.metric("gateway_redis_connections_away") == 4, "both are away")
    assert statuses(pair, 4) == [200, 200, 200, 429]
    wait_until(lambda: sum("user or password" in line for line in redis_log(pair)) == 2, "both are told")
    assert "hunter2" not in pair.dataplane.log()


def test_password_demanded_in_mid_life(make_pair, backend, redis):
    """Under load: nobody is refused for that, it is told as what it is, and over when it is."""
    pair = make_pair([limited(backend, redis.url, quota=1000000)])
    wait_up(pair)
    stream = Stream(pair)
    wait_until(lambda: stream.count() > 50, "requests pass")
    redis.ask("CONFIG", "SET", "requirepass", "new")
    redis.ask("CLIENT", "KILL", "TYPE", "normal", password="new")
    wait_until(lambda: "user or password" in last_said(pair), "it is told")
    before = stream.count()
    wait_until(lambda: stream.count() > before + 50, "requests pass")
    redis.ask("CONFIG", "SET", "requirepass", "", password="new")
    wait_up(pair)
    assert set(stream.stop()) == {200}


CAUSES = {  # word of the log: how redis-server is started, the rest of the URL, what it is told
    "memory is full": ((), "", [("CONFIG", "SET", "maxmemory", "1000")]),
    "a script keeps it busy": (("--busy-reply-threshold", "10"), "", [("EVAL", "while true do end", "0")]),
    "takes no writes": ((), "", [("CONFIG", "SET", "min-replicas-to-write", "1")]),
    "part of a cluster": (("--cluster-enabled", "yes", "--cluster-port", free_port()), "", []),
    "no database of that number": ((), "/99", []),
    "may not do": ((), "", [("ACL", "SETUSER", "default", "-evalsha")]),
}


def tell(redis, order):
    """Some orders are never answered, or with an error."""
    with contextlib.suppress(OSError, RedisError, ValueError):
        redis.ask(*order)


@pytest.mark.parametrize("cause", CAUSES)
def test_errors_are_told_as_what_they_are(make_pair, backend, make_redis, cause):
    """What an operator has to look for stands in the log; nobody is refused for it."""
    options, database, orders = CAUSES[cause]
    redis = make_redis(*options)
    pair = make_pair([limited(backend, f"redis://127.0.0.1:{redis.port}{database}", quota=1000000)])
    if orders:
        wait_up(pair)
    for order in orders:
        threading.Thread(target=tell, args=(redis, order), daemon=True).start()
    c = pair.client()

    def told():
        assert c.request("GET", "/").status == 200
        return any(cause in line for line in redis_log(pair))
    wait_until(told, "the cause is told")


DENIED = (b"-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default "
          b"user. In this mode connections are only accepted from the loopback interface.\r\n")


def test_protected_mode_is_no_wrong_password(make_pair, backend, redis):
    """What a Redis without password tells other machines, which speaks of passwords."""
    proxy = FaultProxy(("127.0.0.1", redis.port))
    try:
        pair = make_pair([limited(backend, through(proxy), quota=1000000)])
        wait_up(pair)
        proxy.nonsense = DENIED
        proxy.mode = "nonsense"

        def told():
            assert pair.get("/").status == 200
            return any("protected mode" in line for line in redis_log(pair))
        wait_until(told, "the cause is told")
    finally:
        proxy.close()


HOSTILE = [b"+OK\r\n", b"+OK\r\n" * 100, b":1\r\n" * 10, b"$1000000000\r\n" + b"x" * 1000, b"*1000000000\r\n",
           b"*4\r\n:1\r\n:1\r\n:1\r\n*1\r\n:1\r\n", b"*-1\r\n" * 20, b"-ERR no\r\n" * 20, b"\0" * 1000,
           b"%2\r\n+a\r\n+b\r\n", b"$-1\r\n", b"*2\r\n:-5\r\n$3\r\nabc\r\n" * 9, b"*0\r\n" * 9]


def test_hostile_answers_harm_nobody(make_pair, backend, redis):
    """Whatever is said instead of an answer, all of it at once, each for a route of its own: local limits go on, and so
    does the process."""
    proxies = [FaultProxy(("127.0.0.1", redis.port)) for _ in HOSTILE]
    try:
        pair = make_pair([limited(backend, through(proxy), f"r{n}", f"/{n}", quota=100000,
                                  redis_timeout_ms=int(200 * SCALE)) for n, proxy in enumerate(proxies)],
                         server={"workers": 1})

        def up():
            return pair.metric("gateway_redis_up") == len(proxies)
        wait_until(up, "all are asked")
        for proxy, answer in zip(proxies, HOSTILE):
            proxy.nonsense = answer
            proxy.mode = "nonsense"
        accepted = [proxy.accepted for proxy in proxies]
        for n in range(len(proxies)):
            assert set(statuses(pair, 10, target=f"/{n}")) == {200}
        for proxy, before in zip(proxies, accepted):
            wait_until(lambda p=proxy, b=before: p.accepted > b + 1, f"{proxy.nonsense[:20]} is given up, and tried again")
        wait_until(lambda: pair.metric("gateway_redis_up") == 0, "all are away")
        for proxy in proxies:
            proxy.mode = "pass"
        wait_until(up, "all are back")
        decided = pair.metric("gateway_redis_decisions_total")
        for n in range(len(proxies)):
            assert pair.get(f"/{n}").status == 200
        wait_until(lambda: pair.metric("gateway_redis_decisions_total") == decided + len(proxies), "Redis decides again")
    finally:
        for proxy in proxies:
            proxy.close()


def test_share_is_the_limit_divided_by_the_gateways(make_pair, backend, redis, proxy):
    """And RateLimit-Policy says so; gateways that are gone do not count."""
    routes = [limited(backend, through(proxy), quota=10)]
    pairs = [make_pair(routes) for _ in range(2)]
    for pair in pairs:
        wait_up(pair)
    for pair in pairs:
        wait_heard(pair, 2)
    proxy.mode = "refuse"
    for pair in pairs:
        wait_away(pair)
        answer = pair.get("/")
        assert answer.get("ratelimit-policy").endswith(";share=2") and ";q=5;" in answer.get("ratelimit-policy")
        assert answer.get("x-ratelimit-limit") == "5" and answer.get("x-ratelimit-remaining") == "4"
        assert statuses(pair, 6) == [200] * 4 + [429] * 2
    pairs[1].dataplane.stop()
    proxy.mode = "pass"
    wait_up(pairs[0])
    oldest = redis.ask("ZRANGE", "gwp:gateways", 0, 0)[0]
    redis.ask("ZINCRBY", "gwp:gateways", -5000, oldest)  # as if it had gone five seconds ago
    wait_heard(pairs[0], 1)
    proxy.mode = "refuse"
    wait_away(pairs[0])
    assert "share" not in pairs[0].get("/").get("ratelimit-policy")


def test_gateway_that_ends_says_so(make_pair, backend, redis):
    """The others need not wait until Redis forgets it."""
    routes = [limited(backend, redis.url)]
    pairs = [make_pair(routes) for _ in range(2)]
    for pair in pairs:
        wait_up(pair)
    wait_until(lambda: redis.ask("ZCARD", "gwp:gateways") == 2, "both are there")
    assert pairs[1].dataplane.stop() == 0
    wait_until(lambda: redis.ask("ZCARD", "gwp:gateways") == 1, "it is not any more", 2)
    wait_heard(pairs[0], 1)


def test_share_stays_small_when_redis_comes_back_empty_and_goes_again(make_pair, backend, redis, proxy):
    """Who is first on an empty Redis does not take itself for the only one."""
    pairs = [make_pair([limited(backend, url, quota=10)]) for url in (through(proxy), redis.url)]
    for pair in pairs:
        wait_up(pair)
    wait_heard(pairs[0], 2)
    proxy.mode = "refuse"
    wait_away(pairs[0])
    redis.kill()
    wait_away(pairs[1])
    redis.start()
    wait_up(pairs[1])
    wait_until(lambda: redis.ask("ZCARD", "gwp:gateways") == 1, "the other one is not there yet")
    redis.kill()
    wait_away(pairs[1])
    assert pairs[1].get("/").get("ratelimit-policy").endswith(";share=2")
    redis.start()
    wait_up(pairs[1])
    redis.ask("SET", "gwp:since", "1")  # as if nobody else had come for long
    wait_heard(pairs[1], 1)


def test_share_is_remembered_by_who_takes_over(make_pair, backend, redis):
    """A data plane that starts while Redis is away goes on with the share of the one before."""
    pairs = [make_pair([limited(backend, redis.url, quota=10)]) for _ in range(2)]
    for pair in pairs:
        wait_up(pair)
    wait_heard(pairs[0], 2)
    assert pairs[0].get("/").status == 200
    redis.kill()
    wait_away(pairs[0])
    pairs[0].dataplane.kill()
    pairs[0].dataplane.start()
    assert pairs[0].get("/").get("ratelimit-policy").endswith(";share=2")


def test_share_names_the_time_it_takes(make_pair, backend, redis):
    """A share of less than a request is one request, and its time is longer."""
    pairs = [make_pair([limited(backend, redis.url, rate=0.1, burst=1)]) for _ in range(2)]
    for pair in pairs:
        wait_up(pair)
    for pair in pairs:
        wait_heard(pair, 2)
    redis.kill()
    wait_away(pairs[0])
    assert pairs[0].get("/").get("ratelimit-policy") == '"all";q=1;w=20;share=2'


def test_share_counts_what_redis_had_let_pass(make_pair, backend, redis, proxy):
    """Who spent its limit through Redis has no fresh share in the process that let it pass."""
    pair = make_pair([limited(backend, through(proxy), quota=10)])
    wait_up(pair)
    assert statuses(pair, 8) == [200] * 8
    proxy.mode = "refuse"
    wait_away(pair)
    assert statuses(pair, 3) == [200, 200, 429]


class Greedy:
    """Clients of both gateways that ask for one route far more often than its limit allows, until stop()."""

    def __init__(self, pairs, target):
        self.passed, self.lock, self.over, self.target = [], threading.Lock(), threading.Event(), target
        self.threads = [threading.Thread(target=self.run, args=(pairs[i % len(pairs)],)) for i in range(4)]
        for t in self.threads:
            t.start()

    def run(self, pair):
        """One connection."""
        with Client(pair.address, 30) as c:
            while not self.over.wait(0.003):
                sent = time.monotonic()
                status = c.request("GET", self.target).status
                assert status in (200, 429)
                if status == 200:
                    with self.lock:
                        self.passed.append((sent, time.monotonic()))

    def stop(self):
        """When each that passed was sent and answered."""
        self.over.set()
        for t in self.threads:
            t.join()
        return sorted(self.passed)


def most_passed(passed, window, changes):
    """The most that were sent and answered within any window: one in which nothing changes, and any other."""
    worst = {False: 0, True: 0}
    for sent, _ in passed:
        held = sum(1 for s, a in passed if s >= sent and a <= sent + window)
        # Meanwhile they may have disagreed about Redis; and a bucket may have been fuller before.
        near = any(since - window <= sent <= until + window for since, until in changes)
        worst[near] = max(worst[near], held)
    return worst[False], worst[True]


@pytest.mark.heavy
def test_overshoot_while_redis_goes_and_comes_back(make_pair, backend, redis):
    """Two gateways, one client of each kind of limit: twice the limit at most over a span in which the gateways change, or
    disagree whether Redis is there; the limit over any other."""
    rate, window, spell = 100 / SCALE, 1.0, 1.7
    kinds = {"token_bucket": {"burst": 20}, "sliding_window": {"window_seconds": window}}
    routes = [route(kind, f"/{kind}", backend,
                    rate_limit={"algorithm": kind, "rate": rate, "redis_url": redis.url, "redis_timeout_ms": 1000, **more})
              for kind, more in kinds.items()]
    pairs = [make_pair(routes, server={"workers": 1}) for _ in range(2)]
    for pair in pairs:
        wait_heard(pair, 2)
    clients = {kind: Greedy(pairs, f"/{kind}") for kind in kinds}
    began = time.monotonic()
    time.sleep(spell)
    gone = time.monotonic()
    redis.kill()
    for pair in pairs:
        wait_away(pair)
    changes = [(gone, time.monotonic())]
    time.sleep(window + spell)
    back = time.monotonic()
    redis.start()
    for pair in pairs:
        wait_up(pair)
    changes.append((back, time.monotonic()))
    time.sleep(window + spell)
    took = time.monotonic() - began
    for kind, more in kinds.items():
        passed = clients[kind].stop()
        most = rate * window + more.get("burst", 0)
        steady, around = most_passed(passed, window, changes)
        print(f"\n| {kind} | limit {most:.0f} | steady {steady} | around a change {around} |")
        assert 0 < steady <= most + 1, "a share is rounded down, but each gateway has at least one request"
        assert around <= 2 * most
        assert len(passed) >= 0.8 * rate * took, "and nobody is starved meanwhile"
