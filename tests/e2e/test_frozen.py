"""One of the two is killed while the other one hangs: SIGSTOP is what a hanging disk or a machine that swaps looks like."""
import contextlib
import signal
import time
from pathlib import Path

from harness import DEADLINE, route, wait_until
from rawhttp import Client
from test_breaker import breaker_route, trip
from test_limit import limited, statuses
from test_takeover import another, at_rest, kept


@contextlib.contextmanager
def frozen(program):
    """Until the end of the block, or thaw()."""
    program.signal(signal.SIGSTOP)
    try:
        yield lambda: program.signal(signal.SIGCONT)
    finally:
        program.signal(signal.SIGCONT)


def listening_sockets(port):
    """How many there are of that port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(1 for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A")


def waiting_client(where):
    """It has asked, and nobody has accepted it yet."""
    c = Client(where, DEADLINE)
    c.send_request("GET", "/free")
    return c


def counted(pair, total):
    """So many requests, in the end."""
    def all_counted():
        count = pair.metric("gateway_requests_total")
        assert count == total, count
        return True
    wait_until(all_counted, f"{total} requests are counted")


def test_data_plane_that_is_killed_while_the_control_plane_hangs_comes_back_alone(make_pair, backend):
    """It serves the last accepted snapshot beside the kept sockets; who waits at these is served when they are handed out."""
    pair = make_pair([limited(backend, burst=3), route("free", "/free", backend)], start=False)
    front = str(pair.folder / "front.sock")
    pair.server = {"addr": [f"127.0.0.1:{pair.port}", f"unix:{front}"]}
    pair.start()
    kept(pair)
    generation = pair.generation()
    assert statuses(pair, 4) == [200, 200, 200, 429]
    at_rest(pair.dataplane)
    with frozen(pair.controlplane) as thaw:
        pair.dataplane.kill()
        waiting = [waiting_client(where) for where in (pair.address, front)]
        pair.dataplane.start()
        wait_until(lambda: "in force from the state directory" in pair.dataplane.log(), "it serves")
        with Client(front, DEADLINE) as c:
            assert c.request("GET", "/free").status == 200
        for _ in range(10):
            assert pair.get("/free").status == 200
        thaw()
        assert [c.read_response().status for c in waiting] == [200, 200]
        for c in waiting:
            c.close()
    pair.wait_synced(generation)
    assert pair.generation() == generation
    wait_until(lambda: listening_sockets(pair.port) == 1, "all is as it was")
    assert sorted(p.name for p in pair.folder.glob("front*")) == ["front.sock"]
    assert statuses(pair, 4) == [200, 200, 200, 429], "limits began anew, and hold"
    counted(pair, 4 + 1 + 10 + 2 + 4)
    assert pair.metric("gateway_stand_in_responses_total") == 0
    kept(pair)
    pair.dataplane.kill()
    waiting = [waiting_client(where) for where in (pair.address, front)]
    pair.dataplane.start()
    assert [c.read_response().status for c in waiting] == [200, 200], "the sockets are kept as before"
    for c in waiting:
        c.close()
    pair.wait_ready()


def test_data_plane_that_is_killed_twice_while_the_control_plane_hangs_forgets_nobody(make_pair, backend):
    """Who waits at the kept sockets waits through both, and no file is left over."""
    pair = make_pair([route("free", "/free", backend)], start=False)
    front = str(pair.folder / "front.sock")
    pair.server = {"addr": [f"127.0.0.1:{pair.port}", f"unix:{front}"]}
    pair.start()
    kept(pair)
    wait_until((pair.state / "snapshot").exists, "there is something to start with")
    with frozen(pair.controlplane):
        pair.dataplane.kill()
        waiting = [waiting_client(where) for where in (pair.address, front)]
        for n in (1, 2):
            pair.dataplane.start()
            wait_until(lambda n=n: pair.dataplane.log().count("in force from the state directory") == n, "it serves")
            for where in (pair.address, front):
                with Client(where, DEADLINE) as c:
                    assert c.request("GET", "/free").status == 200
            if n == 1:
                pair.dataplane.kill()
    assert [c.read_response().status for c in waiting] == [200, 200]
    for c in waiting:
        c.close()
    wait_until(lambda: listening_sockets(pair.port) == 1, "all is as it was")
    assert sorted(p.name for p in pair.folder.glob("front*")) == ["front.sock"]
    with Client(front, DEADLINE) as c:
        assert c.request("GET", "/free").status == 200


def test_control_plane_that_is_killed_while_the_data_plane_hangs_finds_it_again(make_pair, backend):
    """Clients wait for the data plane; generation, counts and limits are as before."""
    pair = make_pair([limited(backend, burst=3), route("free", "/free", backend)])
    kept(pair)
    generation = pair.generation()
    assert statuses(pair, 4) == [200, 200, 200, 429]
    with frozen(pair.dataplane) as thaw:
        pair.controlplane.kill()
        pair.controlplane.start()
        wait_until(pair.status, "it is there")
        waiting = waiting_client(pair.address)
        thaw()
        assert waiting.read_response().status == 200
        waiting.close()
    pair.wait_synced(generation)
    kept(pair)
    assert pair.generation() == generation
    assert statuses(pair, 1) == [429]
    counted(pair, 6)
    assert pair.metric("gateway_stand_in_responses_total") == 0


def test_data_plane_that_came_while_the_control_plane_was_held_up_is_seen_first(pair):
    """What lies unread is read before anybody is answered in its place."""
    kept(pair)
    pair.dataplane.kill()
    wait_until(lambda: not pair.status()["dataplanes"], "that it has gone is known")
    with frozen(pair.controlplane) as thaw:
        waiting = [waiting_client(pair.address) for _ in range(8)]
        pair.dataplane.start()
        over = time.monotonic() + 1.2  # more than the second that clients wait without an answer
        wait_until(lambda: time.monotonic() > over, "time passes")
        thaw()
        assert {c.read_response().status for c in waiting} <= {200, 404}
        for c in waiting:
            c.close()
    pair.wait_ready()
    assert pair.metric("gateway_stand_in_responses_total") == 0


def at_the_door(pair):
    """How many connections the control plane's socket has, or has still to accept."""
    return sum(line.endswith(f" {pair.socket}") for line in Path("/proc/net/unix").read_text().splitlines())


def test_data_plane_that_is_held_up_at_its_start_hears_the_control_plane_first(make_pair, backend):
    """What was said to it meanwhile counts, not that its patience is over: limits go on."""
    pair = make_pair([limited(backend, burst=3)])
    kept(pair)
    assert statuses(pair, 4) == [200, 200, 200, 429]
    with frozen(pair.controlplane) as thaw:
        pair.dataplane.kill()
        before = at_the_door(pair)
        pair.dataplane.start()
        wait_until(lambda: at_the_door(pair) > before, "it has knocked")
        with frozen(pair.dataplane):
            thaw()
            time.sleep(1.3)  # more than it waits for
    pair.wait_ready()
    assert statuses(pair, 1) == [429]
    assert "from the state directory" not in pair.dataplane.log()


def test_data_plane_that_comes_before_the_one_it_replaces_is_back_goes_on_with_its_limits(make_pair, backend):
    """The control plane is new and has nothing to give; breakers and limits come with the addresses, when they are left."""
    pair = make_pair([breaker_route(backend, breaker={"open_duration_seconds": 300}), limited(backend, "few", "/few", burst=3)])
    kept(pair)
    trip(pair, backend)
    assert statuses(pair, 4, target="/few")[-1] == 429
    with frozen(pair.dataplane) as thaw:
        pair.controlplane.kill()
        pair.controlplane.start()
        wait_until(pair.status, "it is there")
        with another(pair) as second:
            wait_until(lambda: "was refused" in second.log(), "its addresses are taken")
            thaw()
            assert pair.dataplane.wait() == 0
            assert pair.get("/").json()["error"] == "breaker_open"
            assert statuses(pair, 1, target="/few") == [429]
            assert "is not used" not in second.log()
            pair.expect_log("in use")
            pair.dataplane.start()
            assert second.wait() == 0
    pair.wait_ready()
    assert pair.get("/").json()["error"] == "breaker_open"
    assert statuses(pair, 1, target="/few") == [429]
