"""Configurations come and go while traffic flows."""
import re
import signal
import threading
import time

import pytest
import yaml

from harness import BUILD, DEADLINE, SCALE, free_port, route, run_ctl, wait_until
from rawhttp import Client


def place_of(text, word):
    """Line and column, from 1, where a word first stands."""
    for number, line in enumerate(text.splitlines(), 1):
        if word in line:
            return number, line.index(word) + 1
    raise AssertionError(f"{word} is not in the text")


def test_push_adds_a_route_and_traffic_follows(make_pair, backends):
    """Once gwpctl has returned, the very next request finds the route."""
    a, b = backends("a", "b")
    pair = make_pair([route("a", "/a", a)])
    assert pair.get("/b").status == 404
    before = pair.generation()
    pushed = pair.ctl("push", "config", "-", stdin=pair.yaml([route("a", "/a", a),
                                                              route("b", "/b", b)]))
    assert pushed.code == 0, pushed
    assert str(before + 1) in pushed.out and "route b added" in pushed.out
    assert pair.get("/b").json()["name"] == "b"
    assert pair.get("/a").json()["name"] == "a"
    config = pair.status()["config"]
    assert (config["generation"], config["origin"], config["source"]) == (before + 1, "push", "stdin")


def test_push_removes_and_changes_routes(make_pair, backends):
    """What changed is said."""
    a, b = backends("a", "b")
    pair = make_pair([route("one", "/one", a), route("two", "/two", a)])
    pushed = pair.ctl("push", "config", "-", stdin=pair.yaml([route("one", "/one", b)]))
    assert pushed.code == 0 and "route two removed" in pushed.out and "route one" in pushed.out
    assert pair.get("/two").status == 404
    assert pair.get("/one").json()["name"] == "b"


def test_file_edit_is_taken(pair, backend):
    """Saving the file is enough."""
    pair.write_config(pair.yaml([route("new", "/new", backend)]))
    wait_until(lambda: pair.get("/").status == 404, "the edited file is in force")
    assert pair.get("/new").status == 200
    assert pair.status()["config"]["origin"] == "file"


def test_file_written_in_place_is_taken(pair, backend):
    """Not every editor renames."""
    pair.config_path.write_text(pair.yaml([route("new", "/new", backend)]))
    wait_until(lambda: pair.get("/").status == 404, "the edited file is in force")
    assert pair.get("/new").status == 200


def test_broken_push_is_refused_with_places(pair):
    """Exit 1, every error as file:line:column, and nothing changed."""
    pair.expect_refusal()
    text = pair.yaml().replace("path_prefix", "path_prefx").replace("shutdown_grace_seconds: 10",
                                                                    "shutdown_grace_seconds: soon")
    before = pair.generation()
    path = pair.folder / "broken.yaml"
    path.write_text(text)
    pushed = pair.ctl("push", "config", path)
    assert pushed.code == 1
    said = pushed.out + pushed.err
    line, column = place_of(text, "path_prefx")
    assert f"broken.yaml:{line}:{column}: " in said and 'did you mean "path_prefix"?' in said
    line, _ = place_of(text, "soon")
    assert re.search(rf"broken\.yaml:{line}:\d+: ", said)
    assert pair.get("/").status == 200 and pair.generation() == before


def test_broken_file_keeps_the_old_configuration(pair, backend):
    """Status tells, traffic does not notice, and mending the file is enough."""
    pair.expect_refusal()
    before = pair.generation()
    pair.write_config("routes: [\n")
    wait_until(lambda: pair.status()["config"]["last_reload"]["ok"] is False, "status tells")
    assert "gateway.yaml" in str(pair.status()["config"]["last_reload"]["message"])
    assert pair.get("/").status == 200 and pair.generation() == before
    pair.write_config(pair.yaml([route("new", "/new", backend)]))
    wait_until(lambda: pair.get("/").status == 404, "the mended file is in force")
    assert pair.get("/new").status == 200
    wait_until(lambda: pair.status()["config"]["last_reload"]["ok"] is True, "status tells")


def test_empty_file_keeps_the_old_configuration(pair):
    """An editor that truncates first must not take the gateway down."""
    pair.expect_refusal()
    pair.config_path.write_text("")
    wait_until(lambda: pair.status()["config"]["last_reload"]["ok"] is False, "status tells")
    assert pair.get("/").status == 200


def test_sighup_reads_the_file_again(pair, backend):
    """The signal is as good as the change."""
    pushed = pair.push(pair.yaml([route("pushed", "/pushed", backend)]))
    assert pushed.status == 200
    assert pair.get("/").status == 404
    pair.controlplane.signal(signal.SIGHUP)
    wait_until(lambda: pair.get("/").status == 200, "the file is in force again")


def test_reload_command_reads_the_file_again(pair, backend):
    """And waits for it."""
    assert pair.push(pair.yaml([route("pushed", "/pushed", backend)])).status == 200
    reloaded = pair.ctl("reload")
    assert reloaded.code == 0, reloaded
    assert pair.get("/").status == 200


def test_dry_run_changes_nothing(pair, backend):
    """Checked here and in the data plane, then forgotten."""
    pair.expect_refusal()
    before = pair.generation()
    text = pair.yaml([route("new", "/new", backend)])
    dry = pair.ctl("push", "config", "-", "--dry-run", stdin=text)
    assert dry.code == 0 and "route new added" in dry.out, dry
    assert pair.get("/").status == 200  # the pushed text has only /new
    assert pair.generation() == before
    bad = pair.ctl("push", "config", "-", "--dry-run", stdin=text.replace("routes", "rutes"))
    assert bad.code == 1 and "stdin:" in bad.out + bad.err


def test_same_configuration_again_is_no_change(pair):
    """Said as such, and exit 0."""
    before = pair.generation()
    again = pair.ctl("push", "config", pair.config_path)
    assert again.code == 0
    assert pair.generation() == before and "nothing changed" in again.out


def test_push_under_load_loses_no_request(make_pair, backends):
    """Forty generations while eight connections ask without a pause."""
    a, b = backends("a", "b")
    pair = make_pair([route("all", "/", a)])
    stop, problems, counts = threading.Event(), [], []

    def load(number):
        done = 0
        with Client(pair.address, DEADLINE) as c:
            while not stop.is_set():
                try:
                    answer = c.request("GET", f"/{number}/{done}")
                except Exception as e:  # whatever it is, it must not happen
                    problems.append(repr(e))
                    return
                if answer.status != 200 or answer.json()["path"] != f"/{number}/{done}":
                    problems.append(repr(answer))
                done += 1
        counts.append(done)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    try:
        for i in range(40):
            pushed = pair.push(pair.yaml([route("all", "/", (a, b)[i % 2]),
                                          route(f"extra{i}", f"/extra{i}", a)]), "&wait=10")
            assert pushed.status == 200, pushed
            assert all(p["accepted"] for p in pushed.json()["dataplanes"])
    finally:
        stop.set()
        for t in threads:
            t.join(DEADLINE)
    assert not problems, problems[:5]
    assert len(counts) == 8 and all(counts)


def test_request_keeps_the_snapshot_it_began_under(make_pair, backend):
    """Its route may be gone when its answer comes."""
    pair = make_pair([route("slow", "/delay", backend)])
    c = pair.client()
    c.send_request("GET", "/delay/1")
    wait_until(lambda: backend.get("/connections")["requests"] == 1, "the request is under way")
    assert pair.push(pair.yaml([route("other", "/other", backend)]), "&wait=10").status == 200
    assert pair.get("/delay/0").status == 404
    assert c.read_response().status == 200


def test_old_snapshots_are_freed(make_pair, backend):
    """After many pushes, idle and upgraded connections hold none of them."""
    pair = make_pair([route("all", "/", backend)])
    idle = pair.client()
    assert idle.request("GET", "/").status == 200
    tunnel = pair.client()
    tunnel.send_request("GET", "/upgrade", [("Connection", "Upgrade"), ("Upgrade", "echo")])
    assert tunnel.read_head().status == 101
    for i in range(10):
        text = pair.yaml([route("all", "/", backend), route(f"r{i}", f"/r{i}", backend)])
        assert pair.push(text, "&wait=10").status == 200
    wait_until(lambda: pair.metric("gateway_snapshots_alive") == 1, "one snapshot is alive")
    tunnel.send(b"still here")
    assert tunnel.sock.recv(100) == b"still here"


def test_ten_thousand_routes_are_taken(make_pair, backend):
    """With three backends each, and the last of them is found: within a second, and in less than 100 MiB each."""
    pair = make_pair([route("all", "/", backend)])
    routes = [route(f"r{i}", f"/r/{i}", f"{backend.url}/a", f"{backend.url}/b", f"{backend.url}/c", health_check={"enabled": False})
              for i in range(10000)]
    text = yaml.dump(pair.document(routes), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
                     sort_keys=False)
    path = pair.folder / "ten-thousand.yaml"
    best = 1e9
    for tag in ("once", "again"):
        path.write_text(f"# {tag}\n{text}")
        began = time.monotonic()
        pushed = pair.ctl("push", "config", path, "--wait", "30")
        best = min(best, time.monotonic() - began)
        assert pushed.code == 0, pushed
    assert pair.get("/r/9999/x").status == 200 and pair.get("/r/10000").status == 404
    if SCALE == 1:  # sanitizers take their share of both
        most = [p.memory("VmHWM") / 2**20 for p in (pair.controlplane, pair.dataplane)]
        print(f"\npushed in {best * 1000:.0f} ms; at most {most[0]:.0f} and {most[1]:.0f} MiB")
        assert best < 1 and max(most) < 100, (best, most)


def test_deep_prefixes_cost_no_more_than_their_text(tmp_path):
    """Whoever is below whom is asked of every route, for every segment of its prefix."""
    path = tmp_path / "deep.yaml"
    path.write_text("routes:\n" + "".join(
        f"  - {{name: r{i}, path_prefix: /{i}{'/a' * 500}, methods: [GET], backends: [{{url: http://h}}]}}\n" for i in range(1500)))
    bound = "ulimit -v 200000; " if SCALE == 1 else ""  # KiB
    answer = run_ctl(["sh", "-c", bound + 'exec "$@"', "sh", BUILD / "gwpctl", "validate", path])
    assert answer.code == 0 and "1500 routes" in answer.out, answer


def test_environment_is_expanded(make_pair, backend, monkeypatch):
    """${VAR} and ${VAR:-default}."""
    monkeypatch.setenv("E2E_BACKEND", backend.url)
    pair = make_pair([route("all", "/", "${E2E_BACKEND}")])
    assert pair.get("/").status == 200
    between_braces = pair.yaml([]).replace("routes: []", "routes: [{path_prefix: /flow, backends: [{url: ${E2E_BACKEND}}]}]")
    assert pair.push(between_braces, "&wait=10").status == 200
    assert pair.get("/flow").status == 200
    pair.expect_refusal()
    refused = pair.push(pair.yaml([route("all", "/", "${E2E_MISSING}")]))
    assert refused.status == 422 and "E2E_MISSING" in refused.json()["text"]


def test_concurrent_pushes_do_not_mix(make_pair, backend):
    """Each is in force, refused or told to wait; the last word is a whole one."""
    pair = make_pair([route("all", "/", backend)])
    pair.expect_refusal()
    answers = []

    def push(number):
        answers.append(pair.push(pair.yaml([route("base", "/base", backend),
                                            route(f"p{number}", f"/p{number}", backend)]),
                                 "&wait=10").status)
    threads = [threading.Thread(target=push, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(DEADLINE)
    assert len(answers) == 8 and set(answers) <= {200, 409} and 200 in answers
    found = [n for n in range(8) if pair.get(f"/p{n}").status == 200]
    assert len(found) == 1


def test_listen_address_can_change(make_pair, backend):
    """New listeners open, those that are gone close."""
    pair = make_pair([route("all", "/", backend)])
    other = free_port()
    pushed = pair.push(pair.yaml(server={"addr": [f"127.0.0.1:{pair.port}", f"127.0.0.1:{other}"]}),
                       "&wait=10")
    assert pushed.status == 200, pushed
    with Client(("127.0.0.1", other), DEADLINE) as c:
        assert c.request("GET", "/").status == 200
    assert pair.push(pair.yaml(), "&wait=10").status == 200

    def refused():
        try:
            Client(("127.0.0.1", other), 1).close()
        except ConnectionRefusedError:
            return True
        return False
    wait_until(refused, "the port that is gone from the file is closed")
    assert pair.get("/").status == 200


@pytest.mark.parametrize("edit", [
    ("routes:", "rutes:"), ("path_prefix: /", "path_prefix: nope"), ("http://", "gopher://"),
    ("workers: 2", "workers: -1"),
], ids=["unknown-key", "bad-prefix", "bad-url", "out-of-range"])
def test_every_kind_of_error_is_refused(pair, edit):
    """422 with at least one diagnostic that has a place."""
    pair.expect_refusal()
    text = pair.yaml()
    assert edit[0] in text
    refused = pair.push(text.replace(*edit))
    assert refused.status == 422 and refused.json()["error"] == "invalid_config"
    first = refused.json()["diagnostics"][0]
    assert first["severity"] in ("error", "warning") and first["message"]
    assert any(d["line"] > 0 and d["column"] > 0 for d in refused.json()["diagnostics"])
    assert refused.json()["text"]
