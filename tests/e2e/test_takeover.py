"""What the control plane keeps for the data planes: sockets, limits, breakers and counts outlive the process."""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import BUILD, DEADLINE, SCALE, route, wait_until
from rawhttp import Client, Cut
from test_breaker import breaker_route, endpoint, is_in, trip
from test_limit import limited, statuses


class Load:
    """Clients that connect anew for each request (or keep their connection), and say what went wrong."""

    def __init__(self, address, threads=4, keep=False, target="/"):
        self.address, self.keep, self.target = address, keep, target
        self.count, self.refused, self.failed, self.answers = 0, [], [], {}
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        wait_until(lambda: self.count >= 20, "the load is on")
        return self

    def __exit__(self, *_):
        self.ending.set()
        for t in self.threads:
            t.join(DEADLINE)

    def run(self):
        """One client after the other."""
        client = None
        while not self.ending.is_set():
            try:
                client = client or Client(self.address, DEADLINE)
            except OSError as e:
                self.refused.append(repr(e))
                continue
            client = self.ask(client)
        if client:
            client.close()

    def ask(self, client):
        """One request; the connection if it can be used again."""
        try:
            answer = client.request("GET", self.target, [] if self.keep else [("Connection", "close")])
            with self.lock:
                self.count += 1
                self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
            if answer.status == 200:
                assert answer.json()["message"] == "hello from a", answer
            if self.keep and answer.get("connection") is None:
                return client
        except (OSError, Cut, AssertionError) as e:
            self.failed.append(repr(e))
        client.close()
        return None

    def wait_for(self, more):
        """Until that many more requests were answered."""
        goal = self.count + more
        wait_until(lambda: self.count >= goal, f"{more} requests are answered")


@contextlib.contextmanager
def another(pair, name="dp-1"):
    """A second data plane, with a state directory of its own."""
    state = pair.folder / "second-state"
    state.mkdir(exist_ok=True)
    second = pair.make_dataplane(name)
    second.err_path = pair.folder / "second.err"
    second.argv[second.argv.index("--state-dir") + 1] = str(state)
    second.start()
    try:
        yield second
    finally:
        second.kill()


def crash_and_restart(pair):
    """kill -9, and a new one."""
    pair.dataplane.kill()
    pair.dataplane.start()
    pair.wait_ready()


def kept(pair):
    """Has the control plane got the sockets?"""
    def there():
        planes = pair.status()["dataplanes"]
        assert planes and all(p["role"] == "serving" for p in planes), planes
        return True
    return wait_until(there, "the data plane has left its sockets")


def at_rest(program):
    """What clients have the answer of is counted a moment later: until every thread of that data plane sleeps."""
    folder = f"/proc/{program.pid}/task"

    def asleep():
        return all(Path(f"{folder}/{t}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S" for t in os.listdir(folder))
    wait_until(asleep, "the data plane is at rest")


# ---- sockets ----

def test_killed_data_plane_is_replaced_without_refusals(pair):
    """The listening sockets live on in the control plane: who connects meanwhile is served."""
    kept(pair)
    pair.dataplane.kill()
    waiting = Client(pair.address, DEADLINE)
    waiting.send_request("GET", "/")
    pair.dataplane.start()
    answer = waiting.read_response()
    waiting.close()
    assert answer.status == 200
    pair.wait_ready()


def test_kills_under_load_refuse_nobody(pair):
    """Who is in flight is lost, and only they; a new one serves within milliseconds."""
    kept(pair)
    with Load(pair.address) as load:
        for _ in range(5):
            pair.dataplane.kill()
            start = time.monotonic()
            pair.dataplane.start()
            load.wait_for(20)
            assert time.monotonic() - start < 5 * SCALE
            kept(pair)
    assert not load.refused
    assert set(load.answers) == {200}
    assert len(load.failed) <= 5 * 4, "one for each client and kill"


def test_new_data_plane_takes_over_from_a_control_plane_that_was_restarted(pair):
    """What data planes have is left with every control plane that comes."""
    pair.controlplane.kill()
    pair.controlplane.start()
    pair.wait_ready()
    kept(pair)
    pair.dataplane.kill()
    with Client(pair.address, DEADLINE) as waiting:
        waiting.send_request("GET", "/")
        pair.dataplane.start()
        assert waiting.read_response().status == 200


def test_missing_data_plane_is_answered_503(pair):
    """If nobody takes over within a second, clients do not hang; and then they are served again."""
    kept(pair)
    assert pair.get("/").status == 200
    pair.dataplane.kill()
    start = time.monotonic()
    with Client(pair.address, DEADLINE) as c:
        answer = c.request("GET", "/")
        assert answer.status == 503 and int(answer.get("retry-after")) >= 1, answer
        assert 0.5 < time.monotonic() - start < 3 * SCALE
        assert answer.json()["error"] == "no_data_plane"
        assert answer.json()["request_id"] == answer.get("x-request-id")
        assert c.is_closed()
    with Client(pair.address, DEADLINE) as c:
        c.send_request("HEAD", "/")
        assert c.read_response(method="HEAD").status == 503 and c.is_closed()
    with Client(pair.address, DEADLINE) as c:
        c.send_request("POST", "/", body=b"x" * 500000)
        assert c.read_response().status == 503
    assert pair.metric("gateway_stand_in_responses_total") == 3
    assert pair.metric("gateway_stand_in") == 1
    pair.dataplane.start()
    pair.wait_ready()
    kept(pair)
    before = pair.metric("gateway_stand_in_responses_total")
    assert {pair.get("/").status for _ in range(50)} == {200}
    assert pair.metric("gateway_stand_in_responses_total") == before and pair.metric("gateway_stand_in") == 0
    pair.controlplane.kill()
    pair.controlplane.start()
    pair.wait_synced()
    assert pair.metric("gateway_stand_in_responses_total") == before, "it does not step back"


def test_crash_loop_is_answered_503(pair):
    """One that dies before it serves is no reason to wait another second."""
    kept(pair)
    pair.dataplane.kill()
    with Client(pair.address, DEADLINE) as c:
        assert c.request("GET", "/").status == 503
    pair.dataplane.start()
    wait_until(lambda: pair.status()["dataplanes"], "it has connected")
    pair.dataplane.kill()
    start = time.monotonic()
    with Client(pair.address, DEADLINE) as c:
        assert c.request("GET", "/").status in (200, 503)
    assert time.monotonic() - start < 3 * SCALE
    pair.dataplane.start()
    pair.wait_ready()


def test_stand_in_holds_out_against_silent_clients(pair):
    """More of them than it takes: those that ask are answered all the same, once the silent ones' time is over."""
    kept(pair)
    pair.dataplane.kill()
    silent = [Client(pair.address, DEADLINE) for _ in range(300)]
    try:
        with Client(pair.address, 10 + DEADLINE) as c:
            assert c.request("GET", "/").status == 503
        assert pair.controlplane.memory() < 40 << 20 or SCALE > 1
    finally:
        for c in silent:
            c.close()
    pair.dataplane.start()
    pair.wait_ready()


def test_changed_address_opens_and_closes_what_changed(pair, backend):
    """And the sockets that are kept follow."""
    kept(pair)
    old = pair.address
    pair.take_ports()
    document = pair.document()
    document["admin"]["addr"] = f"127.0.0.1:{pair.admin_port}"
    pair.write_config(pair.yaml())
    wait_until(lambda: pair.get("/").status == 200, "the new address is served")

    def refused():
        try:
            socket.create_connection(old, 1).close()
        except ConnectionRefusedError:
            return True
        return False
    wait_until(refused, "nobody listens on the old one, not even the control plane")
    pair.dataplane.kill()
    with Client(pair.address, DEADLINE) as waiting:
        waiting.send_request("GET", "/")
        pair.dataplane.start()
        assert waiting.read_response().status == 200
    assert refused()


def test_unix_socket_outlives_the_data_plane(make_pair, backend):
    """Its file stays, too."""
    pair = make_pair([route("all", "/", backend)], start=False)
    where = str(pair.folder / "front.sock")
    pair.server = {"addr": [f"127.0.0.1:{pair.port}", f"unix:{where}"]}
    pair.start()
    kept(pair)
    pair.dataplane.kill()
    with Client(where, DEADLINE) as waiting:
        waiting.send_request("GET", "/")
        pair.dataplane.start()
        assert waiting.read_response().status == 200
    pair.wait_ready()
    kept(pair)
    assert pair.dataplane.stop() == 0
    assert os.path.exists(where)
    pair.dataplane.start()
    pair.wait_ready()
    with Client(where, DEADLINE) as c:
        assert c.request("GET", "/").status == 200


def test_sockets_are_not_kept_for_ever(make_pair, backend):
    """Nobody comes for too long: refused, as if there had never been anybody."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.controlplane.argv += ["--keep-seconds", "1"]
    pair.start()
    kept(pair)
    pair.dataplane.kill()

    def refused():
        try:
            socket.create_connection(pair.address, 1).close()
        except ConnectionRefusedError:
            return True
        return False
    wait_until(refused, "the sockets are let go")
    pair.dataplane.start()
    pair.wait_ready()
    assert pair.get("/").status == 200


def test_connections_that_wait_when_it_leaves_are_served(pair):
    """SIGTERM under load: nothing is refused or reset, the next one goes on."""
    kept(pair)
    with Load(pair.address) as load:
        for _ in range(3):
            assert pair.dataplane.stop() == 0
            pair.dataplane.start()
            load.wait_for(20)
            kept(pair)
    assert not load.refused and not load.failed, (load.refused[:3], load.failed[:3])
    assert set(load.answers) <= {200, 503}, load.answers


def test_frozen_control_plane_does_not_hold_up_a_stop(pair):
    """It is told what can be told, and no longer waited for."""
    kept(pair)
    pair.controlplane.signal(signal.SIGSTOP)
    try:
        assert pair.dataplane.stop() == 0
    finally:
        pair.controlplane.signal(signal.SIGCONT)
    pair.dataplane.start()
    pair.wait_ready()


# ---- what is remembered ----

def test_counts_survive_a_kill_exactly(pair):
    """Those that no report had told yet are read from the memory that was left."""
    kept(pair)
    total = 0
    for n in (7, 11, 13):
        for _ in range(n):
            assert pair.get("/").status == 200
        total += n
        at_rest(pair.dataplane)
        pair.dataplane.kill()
        pair.dataplane.start()
        pair.wait_ready()
        counted = [0]

        def all_counted():
            counted[0] = pair.metric("gateway_requests_total")
            assert counted[0] == total, counted
            return True
        wait_until(all_counted, f"{total} requests")
    assert pair.metric("gateway_requests_total", route="all", status="200") == total
    assert pair.metric("gateway_downstream_connections_active") == 0, "who is gone has nothing open"


def test_counters_survive_either_restart(pair):
    """As Prometheus sees them they never go back."""
    def total():
        return pair.metric("gateway_requests_total")
    for _ in range(5):
        assert pair.get("/").status == 200
    wait_until(lambda: total() == 5, "five requests")
    assert pair.dataplane.stop() == 0
    pair.dataplane.start()
    pair.wait_ready()
    assert total() == 5
    assert pair.get("/").status == 200
    wait_until(lambda: total() == 6, "six requests")
    pair.controlplane.kill()
    assert pair.get("/").status == 200
    pair.controlplane.start()
    pair.wait_ready()
    wait_until(lambda: total() == 7, "what happened meanwhile is counted")


def test_counts_of_a_data_plane_that_ends_without_a_control_plane_are_told(pair):
    """By the next one, from the state directory, once there is a control plane again."""
    for _ in range(5):
        assert pair.get("/").status == 200
    wait_until(lambda: pair.metric("gateway_requests_total") == 5, "five requests")
    pair.controlplane.kill()
    total = 5
    for n in (7, 11):
        for _ in range(n):
            assert pair.get("/").status == 200
        total += n
        assert pair.dataplane.stop() == 0
        pair.dataplane.start()
        wait_until(pair.can_connect, "it serves")
    pair.controlplane.start()
    pair.wait_ready()

    def counted():
        count = pair.metric("gateway_requests_total", route="all", status="200")
        assert count == total, count
        return True
    wait_until(counted, f"{total} requests")
    assert not list(pair.state.glob("untold*"))


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_limits_survive_a_kill(make_pair, backend, algorithm):
    """Who had used all of theirs has still used all of theirs."""
    more = {"rate": 0.001, "burst": 3} if algorithm == "token_bucket" else {"rate": 0.01, "window_seconds": 300}
    pair = make_pair([limited(backend, algorithm=algorithm, **more)])
    kept(pair)
    assert statuses(pair, 5) == [200, 200, 200, 429, 429]
    crash_and_restart(pair)
    assert statuses(pair, 2) == [429, 429]
    assert pair.dataplane.stop() == 0
    pair.dataplane.start()
    pair.wait_ready()
    assert statuses(pair, 2) == [429, 429]


def test_open_breaker_survives_a_kill(make_pair, backend):
    """It is not closed by it, and its probes begin when they would have begun."""
    pair = make_pair([breaker_route(backend, breaker={"open_duration_seconds": 3 * SCALE})])
    kept(pair)
    trip(pair, backend)
    since = is_in(pair, backend, "open")["breaker_since"]
    before = backend.get("/connections")["requests"]
    crash_and_restart(pair)
    assert pair.get("/").json()["error"] == "breaker_open"
    assert backend.get("/connections")["requests"] == before, "it is left alone"
    assert is_in(pair, backend, "open")["breaker_since"][:-4] == since[:-4], "the same, but for rounding"
    wait_until(lambda: pair.get("/").status == 200, "it is probed")
    for _ in range(5):
        pair.get("/")
    is_in(pair, backend, "closed")
    wait_until(lambda: pair.metric("gateway_breaker_transitions_total", to="closed") == 1, "that is counted")
    assert pair.metric("gateway_breaker_transitions_total", to="open") == 1, "once, whoever told it"


def test_probes_lost_with_a_data_plane_do_not_block_the_breaker(make_pair, backend):
    """All places of the half-open breaker were taken when it was killed: they are free again."""
    pair = make_pair([breaker_route(backend, breaker={"open_duration_seconds": 0.5 * SCALE})])
    kept(pair)
    trip(pair, backend)

    def is_probing():
        c = pair.client()
        c.sock.settimeout(0.3 * SCALE)
        c.send_request("GET", "/delay/30")
        try:
            assert c.read_response().status == 503
        except TimeoutError:
            return True
        c.close()
        return False
    for _ in range(3):
        wait_until(is_probing, "a probe is under way")
    assert pair.get("/").status == 503, "all places are taken"
    crash_and_restart(pair)
    wait_until(lambda: pair.get("/").status == 200, "it is probed anew")


# ---- one replaces another ----

@pytest.mark.parametrize("keep", [False, True])
def test_replacing_the_data_plane_under_load_loses_no_request(pair, keep):
    """The new one is there before the old one goes; keep-alive clients are told, the others never notice."""
    kept(pair)
    with Load(pair.address, keep=keep) as load, another(pair) as second:
        assert pair.dataplane.wait() == 0, "the older one leaves by itself"
        load.wait_for(50)
        assert [p["pid"] for p in wait_until(lambda: pair.status()["dataplanes"], "one is there")] == [second.pid]
        pair.dataplane.start()
        assert second.wait() == 0
        load.wait_for(50)
    assert not load.refused and not load.failed, (load.refused[:3], load.failed[:3])
    assert set(load.answers) == {200}
    pair.wait_ready()
    wait_until(lambda: pair.metric("gateway_requests_total") == load.count, "each was counted once")


def test_replaced_data_plane_finishes_what_it_has(pair, backend):
    """Downloads and tunnels get the grace time; an idle client is told with its next response."""
    kept(pair)
    slow, idle = pair.client(), pair.client()
    assert idle.request("GET", "/").status == 200
    slow.send_request("GET", "/delay/1")
    wait_until(lambda: backend.get("/connections")["requests"] >= 2, "the slow request is under way")
    with another(pair) as second:
        def roles():
            return sorted(p["role"] for p in pair.status()["dataplanes"]) == ["draining", "serving"]
        wait_until(roles, "one serves, one is told to drain")
        wait_until(lambda: "shutting down" in pair.dataplane.log(), "it has heard it")

        def is_told():
            answer = idle.request("GET", "/")
            assert answer.status == 200
            return answer.get("connection") == "close"
        wait_until(is_told, "as soon as its worker knows")
        assert slow.read_response().status == 200
        assert pair.dataplane.wait() == 0
        assert second.running and pair.get("/").status == 200
        pair.dataplane.start()
        assert second.wait() == 0
    pair.wait_ready()


def test_data_plane_is_replaced_without_a_control_plane(pair):
    """The new one serves the same beside it; what is the old one's when the control plane is back is let go."""
    kept(pair)
    wait_until((pair.state / "snapshot").exists, "there is something to start with")
    pair.controlplane.kill()
    second = pair.make_dataplane("dp-1")
    second.err_path = pair.folder / "second.err"
    with Load(pair.address) as load:
        try:
            second.start()
            wait_until(lambda: "in force from the state directory" in second.log(), "it serves")
            assert pair.dataplane.stop() == 0
            load.wait_for(50)
            pair.controlplane.start()
            kept(pair)
            pair.dataplane.start()
            assert second.wait() == 0
            load.wait_for(50)
        finally:
            second.kill()
    assert not load.refused and not load.failed, (load.refused[:3], load.failed[:3])
    assert set(load.answers) == {200}
    pair.wait_ready()


def test_replaced_data_plane_may_be_stopped_as_well(pair, backend):
    """Whoever does it cannot know that it is leaving already: what is in flight is finished, idle clients are not waited for."""
    kept(pair)
    slow, idle = pair.client(), pair.client()
    assert idle.request("GET", "/").status == 200
    slow.send_request("GET", f"/delay/{1 + SCALE}")  # less than its grace
    wait_until(lambda: backend.get("/connections")["requests"] >= 2, "the slow request is under way")
    with another(pair) as second:
        wait_until(lambda: "has taken over" in pair.dataplane.log(), "it was told to leave")
        start = time.monotonic()
        pair.dataplane.signal(signal.SIGTERM)
        assert idle.is_closed()
        assert slow.read_response().status == 200
        assert pair.dataplane.wait() == 0
        assert time.monotonic() - start < 8 * SCALE, "less than the time that idle clients have when it is replaced"
        pair.dataplane.start()
        assert second.wait() == 0
    pair.wait_ready()


def test_changes_do_not_wait_for_who_is_leaving(make_pair, backend):
    """One that finishes what it has is not asked, whether another has taken its place or not; until then it takes what comes."""
    pair = make_pair([route("all", "/", backend)], server={"drain_delay_seconds": 2, "shutdown_grace_seconds": 60})
    kept(pair)
    versions = iter(range(20, 100))

    def push():
        answer = pair.push(pair.yaml([route("all", "/", backend, timeout_seconds=next(versions))]))
        assert answer.status == 200, answer
        return [plane["accepted"] for plane in answer.json()["dataplanes"]]
    tunnel = pair.client()
    tunnel.send_request("GET", "/upgrade", [("Connection", "Upgrade"), ("Upgrade", "echo")])
    assert tunnel.read_head().status == 101
    with another(pair) as second:
        roles = lambda: sorted(p["role"] for p in pair.status()["dataplanes"])
        wait_until(lambda: roles() == ["draining", "serving"], "one serves, one is told to drain")
        assert push() == [True]
        assert pair.metric("gateway_dataplane_generation") == pair.generation(), "of the one that serves"
        assert pair.admin("GET", "/readyz").status == 200
        idle = pair.client()
        assert idle.request("GET", "/").status == 200
        second.signal(signal.SIGTERM)
        wait_until(lambda: "shutting down" in second.log(), "it tells its clients to go")
        assert push() == [True]
        idle.send_request("GET", "/delay/4")
        wait_until(lambda: roles() == ["draining", "draining"], "it accepts no more")
        assert push() == []
        ready = pair.admin("GET", "/readyz")
        assert ready.status == 503 and ready.json()["reasons"][0].startswith("no data plane serves")
        assert idle.read_response().status == 200
        assert second.wait() == 0
    tunnel.close()
    assert pair.dataplane.wait() == 0
    pair.dataplane.start()
    pair.wait_ready()


def test_limits_and_breakers_go_along(make_pair, backend):
    """Both count in one memory while one replaces the other."""
    pair = make_pair([limited(backend, burst=3)], server={"shutdown_grace_seconds": 1})
    kept(pair)
    assert statuses(pair, 4) == [200, 200, 200, 429]
    with another(pair) as second:
        assert pair.dataplane.wait() == 0
        assert statuses(pair, 2) == [429, 429]
        pair.dataplane.start()
        assert second.wait() == 0
    assert statuses(pair, 2) == [429, 429]
    pair.wait_ready()


def test_data_planes_of_different_names_share_the_work(pair):
    """Nobody is told to leave; one that is killed is settled by the other."""
    kept(pair)
    with another(pair, "dp-2") as second:
        pair.wait_synced(1, count=2)
        for _ in range(40):
            assert pair.get("/").status == 200
        at_rest(second)
        second.kill()
        wait_until(lambda: len(pair.status()["dataplanes"]) == 1, "the second one is gone")
        for _ in range(10):
            assert pair.get("/").status == 200
        wait_until(lambda: pair.metric("gateway_requests_total") == 50, "nothing is lost, nothing counts twice")
    assert pair.dataplane.running


def test_successor_that_dies_changes_nothing(pair):
    """The old one is only told to leave when the new one serves."""
    kept(pair)
    with Load(pair.address) as load:
        for _ in range(3):
            with another(pair, "dp-2") as second:
                wait_until(lambda: second.pid in [p["pid"] for p in pair.status()["dataplanes"]], "it has connected")
                second.kill()
        load.wait_for(20)
        lost = len(load.failed)
    assert pair.dataplane.running and not load.refused and lost <= 3 * 4


# ---- another network ----

@pytest.mark.skipif(subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode != 0,
                    reason="no network namespace may be made")
def test_sockets_of_another_network_are_left_alone(pair):
    """A container that is started anew has a new network: nobody would come to the sockets of the old one."""
    kept(pair)
    pair.dataplane.kill()
    pair.dataplane.argv = ["unshare", "-n", *pair.dataplane.argv]
    pair.dataplane.start()

    def listens():
        lines = [line.split() for kind in ("tcp", "tcp6")
                 for line in Path(f"/proc/{pair.dataplane.pid}/net/{kind}").read_text().splitlines()[1:]]
        return [f for f in lines if f[3] == "0A" and int(f[1].rsplit(":")[-1], 16) == pair.port]
    wait_until(listens, "it listens in its own network")
    kept(pair)
    assert "is of another network: it is opened anew" in pair.dataplane.log()


# ---- gwpctl ----

def test_gwpctl_replaces_a_data_plane_without_losing_a_request(pair):
    """The old process starts the new one; with another program, too; one that cannot be started changes nothing."""
    kept(pair)
    other = pair.folder / "other-dataplane"
    shutil.copy(BUILD / "gwp-dataplane", other)
    pids = [pair.dataplane.pid]
    try:
        with Load(pair.address) as load:
            for more in ([], ["dp-1", "--binary", str(other)]):
                answer = pair.ctl("replace", *more, "-o", "json")
                assert answer.code == 0, answer
                assert answer.json()["name"] == "dp-1" and answer.json()["old_pid"] == pids[-1]
                pids.append(answer.json()["new_pid"])
                wait_until(lambda: [p["pid"] for p in pair.status()["dataplanes"]] == pids[-1:], "the old one has left")
                load.wait_for(20)
            assert os.readlink(f"/proc/{pids[-1]}/exe") == str(other)
            for binary, says in (("/nonexistent", "cannot be started"), ("/bin/false", "does not serve")):
                answer = pair.ctl("replace", "--binary", binary, "--wait", "1")
                assert answer.code == 1 and says in answer.err, answer
            assert pair.ctl("replace", "nobody").code == 1
            assert pair.ctl("replace", "--binary", "relative").code == 64
            load.wait_for(20)
        assert not load.refused and not load.failed, (load.refused[:3], load.failed[:3])
        assert set(load.answers) == {200}
        assert "PID" in pair.ctl("dataplanes").out and "serving" in pair.ctl("dataplanes").out
        pair.expect_log("succession|no successor")
        assert pair.dataplane.wait() == 0
    finally:
        for pid in pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    pair.dataplane.start()
    wait_until(lambda: [p["pid"] for p in pair.status()["dataplanes"]] == [pair.dataplane.pid], "only this one is left")
    kept(pair)
