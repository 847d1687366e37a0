"""The fields of the application logs: what an event is about, for those who filter lines."""
import getpass
import re
import socket

from harness import LOG_FIELDS, LOG_HEAD, ROOT, SCALE, free_port, route, wait_until

ME = getpass.getuser()


def fields(program, module, said):
    """Those of the one line that says it, once it is there."""
    def there():
        lines = program.log_lines(module, said)
        assert len(lines) == 1, lines
        return lines
    line = wait_until(there, f"{program.name} says {said}")[0]
    return {name: value for name, value in line.items() if name not in LOG_HEAD}


def test_the_readme_has_the_closed_list():
    """All of them, and none that there is not."""
    text = (ROOT / "README.md").read_text().split("**Application logs**")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", text)) == LOG_FIELDS | set(LOG_HEAD)


def test_a_data_plane_that_comes_and_goes(pair):
    """Name, instance, version and process; why it left."""
    came = fields(pair.controlplane, "session", "data plane dp-1 connected")
    plane = pair.status()["dataplanes"][0]
    assert came == {"dataplane": "dp-1", "instance_id": came["instance_id"], "version": plane["version"],
                    "process": pair.dataplane.pid}
    assert pair.dataplane.stop() == 0
    assert fields(pair.dataplane, "control", "shutting down") == {"cause": "SIGTERM"}
    went = fields(pair.controlplane, "session", "data plane dp-1 disconnected")
    assert went == {"dataplane": "dp-1", "instance_id": came["instance_id"], "cause": went["cause"]} and went["cause"]


def test_generations_from_the_file_and_by_a_user(pair):
    """Number, the one before, where from and by whom; what each data plane serves."""
    assert fields(pair.controlplane, "publisher", "generation 0 -> 1 in force") == {
        "generation": 1, "origin": "file", "source": "gateway.yaml"}
    assert fields(pair.dataplane, "rollout", "generation 1 is in force") == {"generation": 1, "source": "gateway.yaml"}
    assert pair.ctl("push", "config", "-", stdin=pair.yaml(server={"workers": 2, "max_connections": 900})).code == 0
    pushed = fields(pair.controlplane, "publisher", "generation 1 -> 2 in force")
    assert pushed.pop("source")
    assert pushed == {"generation": 2, "previous": 1, "origin": "push", "user": ME}
    assert fields(pair.dataplane, "rollout", "generation 2 is in force")["previous"] == 1
    assert fields(pair.controlplane, "publisher", "serves generation 2") == {"dataplane": "dp-1", "generation": 2}


def test_generations_that_are_not_in_force(pair):
    """A text with an error, and one that the data plane refuses: by whom it came and why it is not."""
    pair.expect_refusal()
    text = pair.yaml().replace("path_prefix: /", "path_prefix: nowhere")
    line = next(i for i, one in enumerate(text.splitlines(), 1) if "nowhere" in one)
    assert pair.push(text).status == 422
    wrong = fields(pair.controlplane, "publisher", "a configuration (push) is not in force")
    assert "nowhere" in wrong.pop("cause")
    assert wrong == {"origin": "push", "user": ME, "source": "push.yaml", "line": line}
    diagnosed = fields(pair.controlplane, "config", "nowhere")
    assert "nowhere" in diagnosed.pop("cause") and diagnosed == {"source": "push.yaml", "line": line}

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert pair.push(pair.yaml(server={"addr": address})).status == 409
    refused = fields(pair.dataplane, "rollout", "was refused")
    assert refused == {"generation": 2, "cause": refused["cause"]} and address in refused["cause"]
    assert fields(pair.controlplane, "publisher", "dp-1 refused generation 2") == {"dataplane": "dp-1", **refused}
    given_up = fields(pair.controlplane, "publisher", "generation 2 (push) is not in force")
    assert refused["cause"] in given_up.pop("cause")
    assert given_up == {"generation": 2, "origin": "push", "user": ME, "source": "push.yaml"}


def test_breakers_that_change_their_state(make_pair, backend):
    """Both programs tell the same of it; which data plane it was, the one that may have several."""
    pair = make_pair([route("all", "/", backend, retries=0, health_check={"enabled": False},
                            circuit_breaker={"failure_threshold": 50, "min_requests": 4, "open_duration_seconds": 60})])
    while pair.get("/status/503").get("retry-after") is None:
        pass
    opened = fields(pair.dataplane, "breaker", "closed -> open")
    line = next(i for i, one in enumerate(pair.yaml().splitlines(), 1) if "circuit_breaker" in one)
    assert opened == {"route": "all", "endpoint": f"127.0.0.1:{backend.port}", "from": "closed", "to": "open",
                      "cause": opened["cause"], "source": "gateway.yaml", "line": line}
    assert "requests failed" in opened["cause"]
    assert fields(pair.controlplane, "breaker", "closed -> open") == {**opened, "dataplane": "dp-1"}


def test_verdicts_and_orders(make_pair, backend):
    """Of which endpoint and route, and who has ordered it."""
    pair = make_pair([route("all", "/", backend, health_check={
        "path": "/healthz", "interval_seconds": 0.1, "unhealthy_threshold": 1, "timeout_seconds": SCALE})])
    endpoint = f"127.0.0.1:{backend.port}"
    assert pair.ctl("drain", endpoint, "--route", "all").code == 0
    assert pair.ctl("breaker", "reset", endpoint).code == 0
    assert fields(pair.controlplane, "endpoints", "draining") == {"endpoint": endpoint, "route": "all", "user": ME}
    assert fields(pair.controlplane, "endpoints", "breaker reset") == {"endpoint": endpoint, "user": ME}
    wait_until(lambda: '"up"' in pair.admin("GET", "/api/v1/backends").body.decode(), "it is up")
    backend.get("/set?health=503")
    down = fields(pair.controlplane, "health", "up -> down")
    line = next(i for i, one in enumerate(pair.yaml().splitlines(), 1) if "url:" in one)
    assert "status 503" in down.pop("cause")
    assert down == {"endpoint": endpoint, "route": "all", "from": "up", "to": "down", "source": "gateway.yaml", "line": line}


def test_redis_that_is_away(make_pair, backend):
    """Which, without its password, and why."""
    port = free_port()
    pair = make_pair([route("all", "/", backend, rate_limit={
        "rate": 1000, "burst": 1000, "redis_url": f"redis://:s3cret@127.0.0.1:{port}/0"})])
    pair.get("/")
    away = fields(pair.dataplane, "redis", "is away")
    assert away == {"redis": away["redis"], "to": "away", "cause": "it cannot be connected to"}
    assert str(port) in away["redis"] and "s3cret" not in away["redis"]


def test_a_hostile_name_stays_in_its_field(make_pair, backend):
    """What another process calls itself is text, and takes no room from the rest."""
    name = "a},{level:error,x:é " + "n" * 900
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.dataplane.argv[pair.dataplane.argv.index("--id") + 1] = name
    pair.start()
    came = next(line for line in pair.controlplane.log_lines("session") if " connected: " in line["msg"])
    assert name.startswith(came["dataplane"]) and len(came["dataplane"]) > 200
    assert came["process"] == pair.dataplane.pid
