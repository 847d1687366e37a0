"""gwpctl limits: who is counted; gwpctl limits reset: and is forgotten, here and in Redis."""
import pytest

from harness import route, wait_until
from redisserver import Redis

TRUST = {"trusted_proxies": ["127.0.0.1"]}


def limited(backend, name="all", prefix="/", **more):
    """A limit of 3 that gives nothing back while a test runs."""
    return route(name, prefix, backend, rate_limit={"rate": 0.001, "burst": 3, **more})


def statuses(pair, count, headers=(), target="/"):
    """That many requests, one after the other on one connection."""
    c = pair.client()
    return [c.request("GET", target, list(headers)).status for _ in range(count)]


def limits(pair, *args):
    """The document, by route."""
    done = pair.ctl("limits", *args, "-o", "json")
    assert done.code == 0, done
    return {r["route"]: r for r in done.json()["routes"]}


def test_busiest_and_most_limited_are_shown(make_pair, backend):
    """In their order, merged over workers; IPv6 by its network."""
    pair = make_pair([limited(backend), limited(backend, "users", "/users", key_by="user"),
                      route("free", "/free", backend)], server=TRUST)
    for n, address in ((6, "203.0.113.7"), (2, "203.0.113.8"), (5, "2001:db8::5")):
        statuses(pair, n, [("X-Forwarded-For", address)])
    statuses(pair, 4, [("X-User-ID", "alice\xe9")], "/users")
    seen = limits(pair)
    assert set(seen) == {"all", "users"}
    assert seen["all"]["busiest"] == [{"key": "203.0.113.7", "requests": 6, "limited": 3},
                                      {"key": "2001:db8::/64", "requests": 5, "limited": 2},
                                      {"key": "203.0.113.8", "requests": 2, "limited": 0}]
    assert [k["key"] for k in seen["all"]["most_limited"]] == ["203.0.113.7", "2001:db8::/64"]
    assert [k["limited"] for k in seen["all"]["most_limited"]] == [3, 2]
    assert seen["users"]["busiest"] == [{"key": "alice?", "requests": 4, "limited": 1}]
    assert set(limits(pair, "users")) == {"users"}
    text = pair.ctl("limits").out
    assert "203.0.113.7" in text and "most limited" in text
    assert pair.admin("GET", "/api/v1/limits/clients", private=False).status == 403, "it names clients"


def test_lists_are_bounded(make_pair, backend):
    """Of many clients, the twenty first; those who come often are among them."""
    pair = make_pair([limited(backend)], server=TRUST)
    for _ in range(3):
        for n in range(30):
            statuses(pair, 1 + 2 * (n < 3), [("X-Forwarded-For", f"198.51.100.{n}")])
    busiest = limits(pair)["all"]["busiest"]
    assert len(busiest) == 20
    assert {k["key"] for k in busiest[:3]} == {f"198.51.100.{n}" for n in range(3)}
    assert all(k["requests"] == 9 for k in busiest[:3])


def test_api_keys_are_not_shown(make_pair, backend):
    """Only a hash, by which they can be reset, as by themselves."""
    pair = make_pair([limited(backend, key_by="api_key")])
    key = [("X-API-Key", "s3cret-" + "x" * 20)]
    assert statuses(pair, 4, key) == [200, 200, 200, 429]
    text = pair.ctl("limits").out + pair.ctl("limits", "-o", "json").out
    assert "s3cret" not in text
    shown = limits(pair)["all"]["busiest"][0]["key"]
    assert shown.startswith("#") and len(shown) == 13
    done = pair.ctl("limits", "reset", "all", shown)
    assert done.code == 0 and "1 key forgotten" in done.out
    assert statuses(pair, 4, key) == [200, 200, 200, 429]
    done = pair.ctl("limits", "reset", "all", key[0][1])
    assert done.code == 0 and "1 key forgotten" in done.out and "s3cret" not in done.out
    assert statuses(pair, 1, key) == [200]
    assert "s3cret" not in pair.controlplane.log() + pair.dataplane.log()


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_one_key_or_all_are_forgotten(make_pair, backend, algorithm):
    """The others stay limited; the whole route begins anew."""
    numbers = {"rate": 0.003, "window_seconds": 1000} if algorithm == "sliding_window" else {}
    config = limited(backend, algorithm=algorithm, **numbers)
    if numbers:
        del config["rate_limit"]["burst"]
    pair = make_pair([config, route("free", "/free", backend)], server=TRUST)
    one, other = ([("X-Forwarded-For", f"203.0.113.{n}")] for n in (1, 2))
    assert statuses(pair, 4, one) == statuses(pair, 4, other) == [200, 200, 200, 429]
    assert pair.ctl("limits", "reset", "all", "203.0.113.1").code == 0
    assert statuses(pair, 4, one) == [200, 200, 200, 429]
    assert statuses(pair, 1, other) == [429]
    done = pair.ctl("limits", "reset", "all")
    assert done.code == 0 and "2 keys forgotten" in done.out
    assert limits(pair) == {}
    assert statuses(pair, 4, other) == [200, 200, 200, 429]
    unknown, free = pair.ctl("limits", "reset", "nobody"), pair.ctl("limits", "reset", "free")
    assert unknown.code == 1 and "no route" in unknown.err
    assert free.code == 1 and "no rate limit" in free.err


def test_what_redis_counts_is_forgotten_too(make_pair, backend):
    """One key, then thousands; and it is said when Redis is away."""
    redis = Redis()
    try:
        pair = make_pair([limited(backend, redis_url=redis.url, redis_timeout_ms=1000)], server=TRUST)
        wait_until(lambda: pair.metric("gateway_redis_connections_active") == 2, "Redis is asked")
        one, other = ([("X-Forwarded-For", f"203.0.113.{n}")] for n in (1, 2))
        assert statuses(pair, 4, one) == statuses(pair, 4, other) == [200, 200, 200, 429]
        assert pair.ctl("limits", "reset", "all", "203.0.113.1").code == 0
        wait_until(lambda: redis.ask("DBSIZE") == 4, "one key is gone")
        assert statuses(pair, 4, one) == [200, 200, 200, 429]
        assert statuses(pair, 1, other) == [429]
        prefix = [k for k in redis.ask("KEYS", "gwp:*:b:i:*")][0].rsplit(":", 1)[0]
        redis.ask("EVAL", "for i=1,5000 do redis.call('SET',ARGV[1]..':'..i,1) end", 0, prefix)
        redis.ask("SET", "somebody:else", 1)
        assert pair.ctl("limits", "reset", "all").code == 0
        wait_until(lambda: redis.ask("DBSIZE") == 4, "all keys are gone but the gateways' three and others'")
        assert statuses(pair, 4, one) == [200, 200, 200, 429]
        redis.kill()
        wait_until(lambda: pair.metric("gateway_redis_connections_active") == 0, "Redis is away")
        done = pair.ctl("limits", "reset", "all")
        assert done.code == 0 and "Redis" in done.out
    finally:
        redis.close()


def test_limits_without_data_plane(make_pair, backend):
    """It says that nobody answered, instead of nothing."""
    pair = make_pair([limited(backend)])
    pair.dataplane.stop()
    wait_until(lambda: not pair.status()["dataplanes"], "it is gone")
    done = pair.ctl("limits")
    assert done.code == 0 and "0 of 0 data planes answered" in done.out
