"""Backends that fail their checks get no requests, and get them again when they recover."""
from harness import free_port, route, wait_until

OFTEN = {"path": "/healthz", "interval_seconds": 0.1, "unhealthy_interval_seconds": 0.1,
         "unhealthy_threshold": 1, "healthy_threshold": 1}


def test_no_healthy_backend_is_503_with_retry_after(make_pair, backend):
    """Health checks have found that nobody is there."""
    pair = make_pair([route("all", "/", backend, health_check=OFTEN)])
    assert pair.get("/").status == 200
    backend.get("/set?health=503")
    wait_until(lambda: pair.get("/").status == 503, "the route is without a backend")
    answer = pair.get("/")
    assert answer.json()["error"] == "no_endpoint"
    assert int(answer.get("retry-after")) >= 1
    backend.get("/set?health=200")
    wait_until(lambda: pair.get("/").status == 200, "the backend is back")


def test_readyz_follows_the_backends(make_pair, backend):
    """503 while there is no healthy backend."""
    pair = make_pair([route("all", "/", backend, health_check=OFTEN)])

    def ready():
        return pair.admin("GET", "/readyz", private=False).status
    wait_until(lambda: ready() == 200, "ready")
    backend.get("/set?health=503")
    wait_until(lambda: ready() == 503, "not ready")
    backend.get("/set?health=200")
    wait_until(lambda: ready() == 200, "ready again")


def test_backends_are_listed_with_health(make_pair, backends):
    """Up and down, route by route."""
    a, = backends("a")
    dead = f"http://127.0.0.1:{free_port()}"
    pair = make_pair([route("all", "/", a, dead, health_check={**OFTEN, "path": ""})])

    def health():
        document = pair.admin("GET", "/api/v1/backends").json()
        return {b["url"]: [e["health"] for e in b["endpoints"]]
                for b in document["routes"][0]["backends"]}
    wait_until(lambda: health()[dead] not in (["up"], ["healthy"], ["unknown"])
               and health()[a.url] in (["up"], ["healthy"]), "both verdicts")
