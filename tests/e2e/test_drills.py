"""Outage drills: what the outage of one of three backends costs those who send requests, and for how long.

Steady load from paced clients all the while. Each drill has a phase before, during and after its fault, states how many
requests may fail, and asserts that none fails at the backend once it is left alone, and none at all when all is over. The
rows of the README's table are what the heavy drills print and write into build/drills/.
"""
import signal
import threading
import time
from pathlib import Path

import pytest

from harness import BUILD, DEADLINE, SCALE, Backend, free_port, route, wait_until
from nameserver import NameServer
from rawhttp import Client, Cut

CLIENTS = 12
RATE = 240 / SCALE  # requests per second, all clients together
TIMEOUT = 1.0 * SCALE
OPEN = 2.0 * SCALE
PROBES = 3
EJECT = 3.7 * SCALE  # two failed checks: two intervals, a tenth more each, and a timeout; a second for a busy machine

CHECK = {"path": "/healthz", "interval_seconds": 1.0 * SCALE, "unhealthy_interval_seconds": 0.5 * SCALE,
         "timeout_seconds": 0.5 * SCALE, "unhealthy_threshold": 2, "healthy_threshold": 2}
BREAKER = {"failure_threshold": 50, "min_requests": 10, "window_seconds": 2.0 * SCALE,
           "open_duration_seconds": OPEN, "half_open_requests": PROBES}


class Load:
    """Clients that send a GET each so often; what became of each."""

    def __init__(self, pair):
        self.pair = pair
        self.done = []  # (began, ended, status or None, who answered, request id)
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(CLIENTS)]

    def run(self, number):
        """One client, on one connection for as long as that is kept."""
        pause = CLIENTS / RATE
        due = time.monotonic() + pause * number / CLIENTS
        client = None
        while not self.stopped.wait(max(0.0, due - time.monotonic())):
            began = time.monotonic()
            due = max(due + pause, began)
            status, name, request = None, None, None
            try:
                client = client or Client(self.pair.address, DEADLINE)
                answer = client.request("GET", "/")
                status, request = answer.status, answer.get("x-request-id")
                name = answer.json().get("name") if status == 200 else None
                if answer.get("connection") == "close":
                    client.close()
                    client = None
            except (Cut, OSError):
                if client:
                    client.close()
                client = None
            self.done.append((began, time.monotonic(), status, name, request))
        if client:
            client.close()

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for t in self.threads:
            t.join()

    def failed(self, since=0.0, until=float("inf")):
        """Requests that began within that time and were not answered 200."""
        return [d for d in self.done if since <= d[0] < until and d[2] != 200]

    def failed_at(self, backend, since):
        """Of these, those of which that backend was asked."""
        asked = {line["request_id"] for line in self.pair.access_lines()
                 if line["endpoint"] == f"{backend.host}:{backend.port}"}
        return [d for d in self.failed(since) if d[4] is None or d[4] in asked]

    def calm(self):
        """Until a second has passed in which nothing failed. (A machine that is busy with other things may keep any
        backend from answering in time.)"""
        start = time.monotonic()
        wait_until(lambda: time.monotonic() - max([start, *(d[1] for d in self.failed())]) >= 1.0,
                   "a second without a failure", 10)

    def first_from(self, name, since):
        """When the first answer of that backend came to a request that began after that moment."""
        return min((d[1] for d in self.done if d[0] >= since and d[3] == name), default=None)

    def last_from(self, name):
        """When its last answer came."""
        return max((d[1] for d in self.done if d[3] == name), default=None)

    def after(self, seconds):
        """Goes on for so long."""
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= end, "time passes", seconds + DEADLINE)


class Told:
    """What the control plane tells of one endpoint, looked at all the time."""

    def __init__(self, pair, backend):
        self.pair = pair
        self.address = f"{backend.host}:{backend.port}"

    def state(self):
        """Its document."""
        (r,) = self.pair.admin("GET", "/api/v1/backends").json()["routes"]
        return next(e for b in r["backends"] for e in b["endpoints"] if e["address"] == self.address)

    def ejector(self):
        """What keeps it out: "checks", "breaker", or None."""
        state = self.state()
        return "checks" if state["health"] == "down" else "breaker" if state["breaker"] == "open" else None

    def is_well(self):
        """Checked, up, closed."""
        state = self.state()
        return state["health"] == "up" and state["breaker"] == "closed"


# ---- faults: one to begin it, one to end it ----

def kill(b):
    """Its process is gone: connections are refused."""
    b.kill()


def freeze(b):
    """Its kernel accepts connections, nobody answers."""
    b.signal(signal.SIGSTOP)


def thaw(b):
    """It goes on, with what has queued up meanwhile."""
    b.signal(signal.SIGCONT)


def fault(path, spare=""):
    """It answers everything as that path."""
    return lambda b: b.get(f"/set?fault={path}&spare={spare}")


# What may fail until it is left alone, after so many seconds.

def what_retries_leave(_):
    """Another one answers, but for what goes beyond the retries' budget when all fail at once."""
    return CLIENTS


def what_waits(seconds):
    """One of each client for each timeout: what timed out is not tried again."""
    return CLIENTS * (int(seconds / TIMEOUT) + 1)


def what_is_answered(seconds):
    """Its share of the load, and what all clients have under way then: an answer is an answer."""
    return RATE / 3 * seconds + CLIENTS


# name: begin, end, bound, do the breaker's probes go on failing while it is left alone
DRILLS = {
    "killed": (kill, Backend.start, what_retries_leave, False),
    "resetting": (fault("/reset"), fault(""), what_retries_leave, False),
    "garbage": (fault("/garbage"), fault(""), what_retries_leave, False),
    "frozen": (freeze, thaw, what_waits, False),
    "slow": (fault("/delay/30"), fault(""), what_waits, False),
    "500s": (fault("/status/500"), fault(""), what_is_answered, False),
    "500s, checks pass": (fault("/status/500", "/healthz"), fault(""), what_is_answered, True),
}


def make_row(name, load, bound, eject, back, by):
    """A row of the table, kept for the README."""
    seconds = [f"{s:.2f} s" if s is not None else "–" for s in (eject, back)]
    row = f"| {name} | {len(load.failed())} of {len(load.done)} | {bound:.0f} | {seconds[0]}{by} | {seconds[1]} |"
    print(row)
    folder = Path(BUILD) / "drills"
    folder.mkdir(exist_ok=True)
    (folder / name.replace(" ", "-")).write_text(row + "\n")


def run_drill(make_pair, backends, name, hold):
    """One fault of one of three, under load from before it until after it."""
    begin, end, bound_after, is_probed = DRILLS[name]
    a, b, c = backends("a", "b", "c")
    pair = make_pair([route("all", "/", a, b, c, timeout_seconds=TIMEOUT, retries=1, health_check=CHECK,
                            circuit_breaker=BREAKER)])
    told = Told(pair, b)
    wait_until(told.is_well, "it is up")
    with Load(pair) as load:
        load.calm()
        began = time.monotonic()
        begin(b)
        by = wait_until(told.ejector, "it is left alone")
        ejected = time.monotonic()
        load.after(hold)
        ended = time.monotonic()
        end(b)
        wait_until(lambda: load.first_from("b", ended), "it is asked again")
        wait_until(told.is_well, "it is well again")
        load.calm()
    eject, back = ejected - began, load.first_from("b", ended) - ended
    bound = bound_after(eject) + (int(hold / OPEN) + 1) * PROBES * is_probed
    make_row(name, load, bound, eject, back, f" ({by})")
    assert eject <= EJECT, eject
    assert len(load.failed(since=began)) <= bound, load.failed()
    if not is_probed:
        assert not load.failed_at(b, since=ejected + 0.1 * SCALE), "it was left alone"


FOR_SANITIZERS_TOO = {"killed", "frozen", "500s"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FOR_SANITIZERS_TOO else pytest.mark.heavy) for n in DRILLS])
def test_one_of_three_fails(make_pair, backends, name):
    """The table. Only a breaker that is probed has to be left alone for longer than it is open."""
    is_probed = DRILLS[name][3]
    run_drill(make_pair, backends, name, 1.5 * OPEN if is_probed else 1.0)


@pytest.mark.heavy
def test_one_of_three_flaps_every_second(make_pair, backends):
    """A second of resets, a second without, five times: each costs no more than a single one."""
    a, b, c = backends("a", "b", "c")
    pair = make_pair([route("all", "/", a, b, c, timeout_seconds=TIMEOUT, retries=1, health_check=CHECK,
                            circuit_breaker=BREAKER)])
    told = Told(pair, b)
    wait_until(told.is_well, "it is up")
    with Load(pair) as load:
        load.calm()
        for _ in range(5):
            b.get("/set?fault=/reset")
            load.after(1.0)
            b.get("/set?fault=")
            load.after(1.0)
        wait_until(told.is_well, "it is well again")
        load.calm()
    bound = 5 * CLIENTS
    make_row("flapping every second, 10 s", load, bound, None, None, "")
    assert len(load.failed()) <= bound, load.failed()


def test_dns_answer_changes_under_load(make_pair, tmp_path):
    """Who leaves the answer is asked no more, who enters it is, within the shortest TTL that counts; nothing fails."""
    port = free_port()
    made = {name: Backend(name, tmp_path, port, f"127.0.0.{n}").start() for n, name in enumerate("abc", 1)}
    try:
        with NameServer({"pool.test": ["127.0.0.1", "127.0.0.2"]}) as server:
            pair = make_pair([route("all", "/", f"http://pool.test:{port}", health_check=CHECK,
                                    circuit_breaker=BREAKER)], start=False)
            pair.controlplane.argv += ["--dns-servers", server.address]
            pair.start()
            with Load(pair) as load:
                wait_until(lambda: load.first_from("a", 0) and load.first_from("b", 0), "both are used")
                assert not load.first_from("c", 0)
                changed = time.monotonic()
                server.names["pool.test"] = ["127.0.0.3", "127.0.0.1"]
                wait_until(lambda: load.first_from("c", changed), "the new one is used")
                load.after(0.5)
                gone = load.last_from("b")
                made["b"].kill()
                load.after(1.0)
                assert load.last_from("b") == gone, "nobody asks it any more"
                server.names["pool.test"] = []
                queries = server.queries
                wait_until(lambda: server.queries >= queries + 4, "an empty answer was given")
                load.after(0.5)
        make_row("DNS answer changes", load, 0, gone - changed, load.first_from("c", changed) - changed, " (TTL)")
        assert not load.failed(), "nothing fails, and an answer without addresses changes nothing"
        assert gone - changed <= 6 * SCALE + 1
        assert pair.metric("gateway_dns_changes_total") == 1
    finally:
        for b in made.values():
            b.kill()
