"""What the control plane keeps for the data planes: sockets and counters outlive the process."""
import threading

from harness import DEADLINE, wait_until
from rawhttp import Client, Cut


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
    assert total() >= 5
    assert pair.get("/").status == 200
    wait_until(lambda: total() == 6, "six requests")
    pair.controlplane.kill()
    assert pair.get("/").status == 200
    pair.controlplane.start()
    pair.wait_ready()
    wait_until(lambda: total() >= 7, "what happened meanwhile is counted")
