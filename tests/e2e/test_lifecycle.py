"""Either program may come first, die, hang or be replaced; traffic flows on."""
import os
import signal
import socket
import threading
import time

from harness import DEADLINE, route, wait_until
from rawhttp import Client, Cut


def test_control_plane_may_come_first(make_pair, backend):
    """It waits for data planes."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.write_config()
    pair.controlplane.start()
    wait_until(lambda: pair.status()["dataplanes"] == [], "the control plane answers")
    pair.dataplane.start()
    pair.wait_ready()
    assert pair.get("/").status == 200


def test_data_plane_may_come_first(make_pair, backend):
    """It tries again until there is a control plane."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.write_config()
    pair.dataplane.start()
    wait_until(lambda: pair.dataplane.running and pair.dataplane.log(), "the data plane is up")
    pair.controlplane.start()
    pair.wait_ready()
    assert pair.get("/").status == 200


def test_traffic_flows_on_without_control_plane(pair):
    """Killed: nothing happens to requests, old connections or new ones."""
    c = pair.client()
    assert c.request("GET", "/").status == 200
    pair.controlplane.kill()
    for _ in range(20):
        assert c.request("GET", "/").status == 200
        assert pair.get("/").status == 200
    lines = pair.dataplane.log().count("\n")
    for _ in range(50):
        assert c.request("GET", "/").status == 200
    assert pair.dataplane.log().count("\n") - lines < 10  # nothing is logged per request about it
    pair.controlplane.start()
    pair.wait_ready()
    assert pair.status()["dataplanes"][0]["name"] == "dp-1"


def test_new_control_plane_goes_on_where_the_old_one_stopped(pair, backend):
    """What was pushed is still in force, and the generation does not go back."""
    pushed = pair.push(pair.yaml([route("all", "/", backend), route("new", "/new", backend)]),
                       "&wait=10").json()
    pair.controlplane.kill()
    pair.controlplane.start()
    pair.wait_ready()
    assert pair.get("/new").status == 200
    assert pair.generation() >= pushed["generation"]


def test_hanging_control_plane_stops_nothing(pair):
    """Stopped, not dead."""
    pair.controlplane.signal(signal.SIGSTOP)
    try:
        for _ in range(20):
            assert pair.get("/").status == 200
    finally:
        pair.controlplane.signal(signal.SIGCONT)
    pair.wait_ready()


def test_killed_data_plane_is_replaced_without_refusals(pair):
    """The listening sockets live on in the control plane: who connects meanwhile is served."""
    assert pair.get("/").status == 200
    pair.dataplane.kill()
    waiting = Client(pair.address, DEADLINE)
    waiting.send_request("GET", "/")
    pair.dataplane.start()
    answer = waiting.read_response()
    waiting.close()
    assert answer.status in (200, 503)
    pair.wait_ready()
    assert pair.get("/").status == 200


def test_missing_data_plane_is_answered_503(pair):
    """If nobody takes over within a second, clients do not hang."""
    pair.dataplane.kill()

    def told():
        with Client(pair.address, DEADLINE) as c:
            answer = c.request("GET", "/")
            return answer.status == 503 and int(answer.get("retry-after")) >= 1
    wait_until(told, "the control plane answers in its place")
    pair.dataplane.start()
    wait_until(lambda: pair.get("/").status == 200, "the new data plane serves")


def test_data_plane_restart_is_seen_as_such(pair):
    """Another instance of the same name."""
    before = pair.status()["dataplanes"][0]
    assert pair.dataplane.stop() == 0
    pair.dataplane.start()
    pair.wait_ready()
    after = pair.status()["dataplanes"][0]
    assert after["name"] == before["name"] == "dp-1"
    assert after["instance_id"] != before["instance_id"] and after["pid"] == pair.dataplane.pid


def test_sigterm_lets_requests_finish(pair, backend):
    """In flight when the signal comes: answered; then exit 0; new ones are not taken."""
    c = pair.client()
    c.send_request("GET", "/delay/1")
    idle = pair.client()
    assert idle.request("GET", "/").status == 200
    wait_until(lambda: backend.get("/connections")["requests"] >= 2, "the slow request is under way")
    pair.dataplane.signal(signal.SIGTERM)
    answer = c.read_response()
    assert answer.status == 200 and answer.get("connection") == "close"
    assert idle.is_closed()
    assert pair.dataplane.wait() == 0


def test_sigterm_does_not_wait_for_ever(make_pair, backend):
    """shutdown_grace_seconds is the end of patience."""
    pair = make_pair([route("all", "/", backend, timeout_seconds=60)],
                     server={"shutdown_grace_seconds": 0.5})
    c = pair.client()
    c.send_request("GET", "/delay/50")
    wait_until(lambda: backend.get("/connections")["requests"] == 1, "the request is under way")
    start = time.monotonic()
    assert pair.dataplane.stop() == 0
    assert time.monotonic() - start < 20


def test_data_plane_starts_cold_from_its_own_state(pair):
    """Without a control plane it serves what it last accepted."""
    assert pair.dataplane.stop() == 0
    pair.controlplane.kill()
    pair.dataplane.start()
    wait_until(lambda: pair.get("/").status == 200, "the last accepted snapshot is served")


def test_data_plane_without_state_or_control_plane_waits(make_pair, backend):
    """Nothing to serve: it says so, stays, and serves once it is told what."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.write_config()
    pair.dataplane.start()
    wait_until(lambda: pair.dataplane.log(), "the data plane has said something")
    assert pair.dataplane.running
    assert pair.dataplane.stop() == 0


def test_control_plane_with_broken_file_stays_and_recovers(make_pair, backend):
    """Started on a broken file it serves what it last had in force, or waits for a good one."""
    pair = make_pair([route("all", "/", backend)])
    pair.expect_log(r"gateway\.yaml|configuration")
    assert pair.controlplane.stop() == 0
    pair.write_config("routes: {\n")
    pair.controlplane.start()
    wait_until(lambda: pair.status()["config"]["last_reload"]["ok"] is False, "status tells")
    assert pair.get("/").status == 200
    pair.write_config()
    wait_until(lambda: pair.status()["config"]["last_reload"]["ok"] is True, "the file is mended")
    pair.wait_ready()


def test_second_data_plane_joins_and_leaves(pair):
    """Several may be connected: that is how one replaces another."""
    second = pair.make_dataplane("dp-2")
    second.argv[second.argv.index("--state-dir") + 1] = str(pair.folder / "dp2-state")
    (pair.folder / "dp2-state").mkdir()
    second.start()
    try:
        pair.wait_synced(1, count=2)
        names = {p["name"] for p in pair.status()["dataplanes"]}
        assert names == {"dp-1", "dp-2"}
        for _ in range(20):
            assert pair.get("/").status == 200
        assert second.stop() == 0
    finally:
        second.kill()
    wait_until(lambda: len(pair.status()["dataplanes"]) == 1, "the second one has left")
    assert pair.get("/").status == 200


def test_replacing_the_data_plane_under_load_loses_no_request(pair):
    """The new one is there before the old one goes; clients that connect anew never notice."""
    stop, problems, count = threading.Event(), [], [0]

    def load():
        while not stop.is_set():
            try:
                answer = pair.get("/", [("Connection", "close")])
                if answer.status != 200:
                    problems.append(repr(answer))
            except (OSError, Cut) as e:
                problems.append(repr(e))
            count[0] += 1
    threads = [threading.Thread(target=load) for _ in range(4)]
    for t in threads:
        t.start()
    old = pair.dataplane
    fresh = pair.make_dataplane("dp-2")
    fresh.argv[fresh.argv.index("--state-dir") + 1] = str(pair.folder / "dp2-state")
    (pair.folder / "dp2-state").mkdir()
    fresh.start()
    pair.dataplane = fresh
    try:
        pair.wait_synced(1, count=2)
        assert old.stop() == 0
        goal = count[0] + 50
        wait_until(lambda: count[0] >= goal, "the new one alone has served")
    finally:
        stop.set()
        for t in threads:
            t.join(DEADLINE)
        old.kill()
    assert not problems, problems[:5]


def test_nonsense_on_the_control_socket_harms_nobody(pair):
    """A malformed frame ends that session only."""
    for data in (b"", b"\x00" * 64, b"\xff" * 64, os.urandom(4096), b"GET / HTTP/1.1\r\n\r\n"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(DEADLINE)
            s.connect(str(pair.socket))
            s.sendall(data)
            if not data:
                continue
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert len(pair.status()["dataplanes"]) == 1
    assert pair.push(pair.yaml(server={"max_headers": 50}), "&wait=10").status == 200


def test_leftover_sockets_do_not_hinder_a_start(pair):
    """kill -9 leaves the files of Unix sockets behind."""
    pair.controlplane.kill()
    assert pair.socket.exists()
    pair.controlplane.start()
    pair.wait_ready()
