"""Either program may come first, die, hang or be replaced; traffic flows on."""
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from harness import BUILD, DEADLINE, SCALE, route, wait_until


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


def test_new_control_plane_goes_on_counting(pair, backend):
    """What was pushed is in force again, as the generation that it was; a changed file is a new one."""
    pushed = pair.push(pair.yaml([route("new", "/new", backend)]), "&wait=10").json()
    assert pair.get("/new").status == 200
    pair.controlplane.kill()
    assert pair.get("/new").status == 200
    pair.controlplane.start()
    pair.wait_ready(pushed["generation"])
    assert pair.get("/new").status == 200
    config = pair.status()["config"]
    assert config["generation"] == config["accepted_as"] == pushed["generation"]
    pair.controlplane.kill()
    pair.write_config(pair.yaml([route("file", "/file", backend)]))
    pair.controlplane.start()
    pair.wait_ready(pushed["generation"] + 1)
    assert pair.get("/file").status == 200 and pair.get("/new").status == 404


def test_hanging_control_plane_stops_nothing(pair):
    """Stopped, not dead."""
    pair.controlplane.signal(signal.SIGSTOP)
    try:
        for _ in range(20):
            assert pair.get("/").status == 200
    finally:
        pair.controlplane.signal(signal.SIGCONT)
    pair.wait_ready()


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


def test_signals_for_the_other_program_end_nothing(pair):
    """Whoever sends SIGHUP or SIGUSR1 to both."""
    before = pair.status()["config"]["last_reload"]["at"]
    for program in (pair.dataplane, pair.controlplane):
        program.signal(signal.SIGUSR1)
        program.signal(signal.SIGHUP)
    wait_until(lambda: pair.status()["config"]["last_reload"]["at"] != before, "the file is read again")
    assert pair.get("/").status == 200
    assert pair.dataplane.running and pair.controlplane.running


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


def test_control_plane_on_a_broken_file_starts_with_the_last_good_one(make_pair, backend):
    """It says what is wrong, and a mended file is taken."""
    pair = make_pair([route("all", "/", backend)])
    assert pair.controlplane.stop() == 0
    pair.expect_log('"module":"start"|path_prefx')
    pair.write_config(pair.yaml().replace("path_prefix", "path_prefx"))
    pair.controlplane.start()
    pair.wait_ready(1)
    config = pair.status()["config"]
    assert config["accepted_as"] == 1 and config["last_reload"]["ok"] is False
    assert "path_prefx" in pair.controlplane.log() and "gateway.yaml:" in pair.controlplane.log()
    assert pair.get("/").status == 200
    pair.write_config(pair.yaml([route("mended", "/mended", backend)]))
    wait_until(lambda: pair.get("/mended").status == 200, "the mended file is served")
    wait_until(lambda: pair.status()["config"]["last_reload"]["ok"], "it is in force")


def test_control_plane_without_anything_good_does_not_start(make_pair, backend):
    """Every mistake is told, and the data plane serves on."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.write_config(pair.yaml().replace("path_prefix", "path_prefx"))
    pair.controlplane.start()
    assert pair.controlplane.wait() == 1
    assert "path_prefx" in pair.controlplane.log() and "gateway.yaml:" in pair.controlplane.log()


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


def self_check(pair):
    """gwp-dataplane --self-check: its exit code and what it says."""
    done = subprocess.run([BUILD / "gwp-dataplane", "--self-check", f"127.0.0.1:{pair.port}"],
                          capture_output=True, text=True, check=False, timeout=DEADLINE)
    return done.returncode, done.stderr


def test_self_check_sees_whether_the_data_plane_works(pair):
    """A data plane that hangs takes connections still, since the kernel does that. The check is no request: it is
    neither counted nor logged."""
    assert self_check(pair) == (0, "")
    pair.dataplane.signal(signal.SIGSTOP)
    threads = Path(f"/proc/{pair.dataplane.pid}/task")
    wait_until(lambda: all("\nState:\tT" in t.read_text() for t in threads.glob("*/status")), "all threads have stopped")
    code, said = self_check(pair)
    pair.dataplane.signal(signal.SIGCONT)
    assert code == 1 and "nobody there has answered" in said
    wait_until(lambda: self_check(pair)[0] == 0, "it works again")
    assert pair.access_lines() == [] and pair.metric("gateway_requests_total") == 0
    pair.dataplane.kill()
    wait_until(lambda: "no data plane serves" in self_check(pair)[1], "the control plane answers instead")
    pair.controlplane.stop()
    code, said = self_check(pair)
    assert code == 1 and f"127.0.0.1:{pair.port} takes no connection" in said


def test_self_check_takes_a_full_data_plane_for_healthy(make_pair, backend):
    """No room for another client is no reason to restart it."""
    pair = make_pair([route("all", "/", backend)], server={"max_connections": 1})
    busy = pair.client()
    busy.send(b"GET /delay/30 HTTP/1.1\r\nHost: gateway\r\n\r\n")
    wait_until(lambda: backend.get("/connections")["requests"] == 1, "the request is under way")
    assert pair.get("/").status == 503
    assert self_check(pair) == (0, "")


def test_taken_address_is_tried_again_without_haste(make_pair, backend):
    """Until it is free; meanwhile the data plane costs next to nothing."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.expect_log("in use")
    pair.write_config()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(pair.address)
        other.listen()
        pair.controlplane.start()
        pair.dataplane.start()
        wait_until(lambda: "in use" in pair.dataplane.log() + pair.controlplane.log(), "it has tried")
        before, start = pair.dataplane.cpu_seconds(), time.monotonic()
        wait_until(lambda: time.monotonic() - start > 1, "it has tried some times more")
        assert pair.dataplane.cpu_seconds() - before < 0.2 * SCALE
    pair.wait_ready()
    assert pair.get("/").status == 200
