"""What is kept and what is lost when something happens to a proxy: the pair, and nginx and HAProxy by the same measure.

    python3 tests/drill/kept.py             prints the table
    python3 tests/drill/kept.py --write     and puts it into README.md
    python3 tests/drill/kept.py --only gateway-pro

Each event happens to a fresh proxy that has been brought into a state before: a client over its limit, a backend that is left
alone because it failed, one that is down, one that an operator has drained, requests counted, a tunnel, a request under way,
and clients that connect all the while. What can be told of that state afterwards is what the table says.
"""
import argparse
import collections
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "e2e")]

from harness import ROOT, Backend, Pair, Program, free_port, route, wait_until  # noqa: E402
from rawhttp import Client, Cut  # noqa: E402

ROWS = ["rate limit", "breaker", "health", "overrides", "counters", "tunnels", "connections waiting", "requests in flight"]
EVENTS = ["configuration change", "upgrade", "kill -9", "control plane upgrade", "control plane kill -9"]
KEPT, LOST, NONE = "kept", "lost", "-"


class Subject:
    """A proxy, and how what happens to it is done. `has` are the rows that it can have at all."""

    name = ""
    has = set(ROWS)
    events = EVENTS

    def __init__(self, folder, backends):
        self.folder, self.backends = Path(folder), backends
        self.port = free_port()

    @property
    def address(self):
        """Where clients connect."""
        return ("127.0.0.1", self.port)

    def restart(self, argv, env=None):
        """A program that goes on in the foreground."""
        program = Program(self.name, argv, self.folder, env)
        return program.start()


class OurPair(Subject):
    """gateway-pro."""

    name = "gateway-pro"

    def start(self):
        """Both programs."""
        a, b, dead = self.backends
        quiet = {"health_check": {"enabled": False}, "retries": 0}
        check = {"health_check": {"path": "/healthz", "interval_seconds": 0.2, "unhealthy_threshold": 2}, "retries": 0}
        breaker = {"circuit_breaker": {"min_requests": 5, "failure_threshold": 40, "window_seconds": 60,
                                       "open_duration_seconds": 60}}
        self.pair = Pair([route("limit", "/limit", a, rate_limit={"rate": 0.01, "burst": 5}, **quiet),
                          route("breaker", "/breaker", a, b, strip_prefix=True, **quiet, **breaker),
                          route("health", "/health", a, dead, **check),
                          route("override", "/override", a, b, **quiet),
                          route("all", "/", a, **quiet)])
        self.pair.start()
        self.port = self.pair.port
        self.pids = []
        self.kept()
        wait_until(lambda: self.pair.metric("gateway_endpoint_health", route="health") == 1, "health is known")

    def kept(self):
        """Until a data plane serves."""
        def there():
            planes = self.pair.status()["dataplanes"]
            assert [p["role"] for p in planes] == ["serving"] and planes[0]["state"] == "in_sync"
            return True
        wait_until(there, "one serves")

    def override(self):
        """The second backend gets no new requests."""
        address = self.backends[1].url.removeprefix("http://")
        assert self.pair.ctl("drain", address, "--route", "override").code == 0

    def count(self):
        """Requests since ever."""
        return self.pair.metric("gateway_requests_total")

    def do(self, event):
        """One of EVENTS."""
        if event == "configuration change":
            self.pair.write_config(self.pair.yaml(server={"max_headers": 77}))
            wait_until(lambda: self.pair.generation() > 1, "it is in force")
        elif event == "upgrade":
            answer = self.pair.ctl("replace", "-o", "json")
            assert answer.code == 0, answer
            self.pids.append(answer.json()["new_pid"])
        elif event == "kill -9":
            self.pair.dataplane.kill()
            self.pair.dataplane.start()
            self.kept()
        else:
            assert event.endswith("kill -9") or self.pair.controlplane.stop() == 0
            self.pair.controlplane.kill()
            self.pair.controlplane.start()
            self.kept()

    def stop(self):
        """Everything."""
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.pair.destroy()


NGINX = """
worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1000; }}
http {{
    access_log off; keepalive_requests 100000; proxy_next_upstream off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    proxy_http_version 1.1; proxy_set_header Connection $connection_or; proxy_set_header Upgrade $http_upgrade;
    map $http_upgrade $connection_or {{ default upgrade; '' ''; }}
    limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
    upstream one {{ server {a}; }}
    upstream failing {{ zone failing 64k; server {a} max_fails=0; server {b} max_fails=3 fail_timeout=60s; }}
    upstream down {{ zone down 64k; server {a} max_fails=0; server {dead} max_fails=1 fail_timeout=60s; }}
    server {{
        listen 127.0.0.1:{port};
        location /limit {{ limit_req zone=one burst=4 nodelay; limit_req_status 429; proxy_pass http://one; }}
        location /breaker/ {{ proxy_next_upstream error timeout http_503 non_idempotent;
                              proxy_pass http://failing/; }}
        location /health {{ proxy_pass http://down; }}
        location /status {{ stub_status; }}
        location / {{ proxy_pass http://one; }}
    }}
}}
"""


class Nginx(Subject):
    """nginx: one program that is both planes; its master is replaced by signals."""

    name = "nginx"
    has = set(ROWS) - {"overrides"}  # of the free version
    events = EVENTS[:3]

    def start(self):
        """In the foreground."""
        a, b, dead = (x.url.removeprefix("http://") for x in self.backends)
        self.config = self.folder / "nginx.conf"
        self.config.write_text(NGINX.format(folder=self.folder, port=self.port, a=a, b=b, dead=dead))
        self.launch()

    def launch(self):
        """As a daemon: in the foreground it takes no new binary."""
        subprocess.run(["/usr/sbin/nginx", "-c", self.config, "-e", self.folder / "early.log"], check=True)
        wait_until(lambda: ask(self, "/") == 200, "nginx answers")

    def pid(self):
        """Of the master."""
        return int((self.folder / "nginx.pid").read_text())

    def count(self):
        """Requests since it was started."""
        with Client(self.address, 5) as c:
            return int(c.request("GET", "/status").body.decode().split()[9])

    def workers(self, pid):
        """Its children."""
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait_for_end(self, workers):
        """Until they accept no more."""
        def leave():
            return all(not os.path.exists(f"/proc/{p}") or b"shutting down" in Path(f"/proc/{p}/cmdline").read_bytes()
                       for p in workers)
        wait_until(leave, "the old workers leave")

    def do(self, event):
        """Reload; a new binary; kill -9 of all of it, as when its container dies, and a start."""
        old = self.pid()
        before = self.workers(old)
        if event == "configuration change":
            self.config.write_text(self.config.read_text().replace("100000;", "100001;"))
            os.kill(old, signal.SIGHUP)
            wait_until(lambda: set(self.workers(old)) - set(before), "new workers are there")
            self.wait_for_end(before)
        elif event == "upgrade":
            os.kill(old, signal.SIGUSR2)
            wait_until(lambda: self.pid() != old and len(self.workers(self.pid())) == 2, "the new master is there")
            os.kill(old, signal.SIGQUIT)
            self.wait_for_end(before)
        else:
            for pid in (old, *before):
                os.kill(pid, signal.SIGKILL)
            self.launch()

    def stop(self):
        """All of them."""
        pid = self.pid()
        for one in (pid, *self.workers(pid)):
            os.kill(one, signal.SIGKILL)


HAPROXY = """
global
    stats socket {folder}/stats.sock mode 600 level admin expose-fd listeners
    server-state-file {folder}/state
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 2s
    timeout tunnel 60s
    retries 0
frontend clients
    bind 127.0.0.1:{port}
    stick-table type ip size 10k expire 10m store http_req_rate(10m)
    acl limited path_beg /limit
    http-request track-sc0 src if limited
    http-request deny deny_status 429 if limited {{ sc_http_req_rate(0) gt 5 }}
    use_backend failing if {{ path_beg /breaker }}
    use_backend down if {{ path_beg /health }}
    use_backend override if {{ path_beg /override }}
    default_backend one
backend one
    server a {a}
backend failing
    http-request replace-path /breaker(.*) \\1
    server a {a}
    server b {b} check port {checked} inter 1s rise 1000 observe layer7 error-limit 3 on-error mark-down
backend down
    option httpchk GET /healthz
    server a {a}
    server dead {dead} check inter 200ms fall 2
backend override
    server a {a}
    server b {b}
"""


class Haproxy(Subject):
    """HAProxy in master-worker mode: its reload is its upgrade."""

    name = "HAProxy"
    events = EVENTS[:3]

    def start(self):
        """In the foreground."""
        a, b, dead = (x.url.removeprefix("http://") for x in self.backends)
        self.config = self.folder / "haproxy.cfg"
        self.config.write_text(HAPROXY.format(folder=self.folder, port=self.port, a=a, b=b, dead=dead,
                                              checked=b.split(":")[1]))
        self.program = self.restart(["haproxy", "-W", "-f", self.config])
        wait_until(lambda: ask(self, "/") == 200, "HAProxy answers")
        wait_until(lambda: ",DOWN," in next(x for x in self.tell("show stat").splitlines() if x.startswith("down,dead")),
                   "the dead one is found")

    def tell(self, words):
        """Its stats socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(str(self.folder / "stats.sock"))
            s.sendall(words.encode() + b"\n")
            answer = b""
            while piece := s.recv(65536):
                answer += piece
            return answer.decode()

    def override(self):
        """The second backend gets no new requests."""
        self.tell("set server override/b state drain")

    def count(self):
        """Requests of the frontend since it was started."""
        for line in self.tell("show stat").splitlines():
            fields = line.split(",")
            if fields[:2] == ["clients", "FRONTEND"]:
                return int(fields[48])
        raise AssertionError("no frontend in show stat")

    def do(self, event):
        """Reload with whatever is on disk; or kill -9 of all of it and a start."""
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children")
        before = children.read_text().split()
        if event == "kill -9":
            for pid in (self.program.pid, *map(int, before)):
                os.kill(pid, signal.SIGKILL)
            self.program.wait(5)
            self.program.start()
        else:
            self.config.write_text(self.config.read_text().replace("timeout connect 2s", "timeout connect 3s"))
            self.program.signal(signal.SIGUSR2)
            wait_until(lambda: set(children.read_text().split()) - set(before), "a new worker is there")
        wait_until(lambda: ask(self, "/") == 200, "HAProxy answers")

    def stop(self):
        """All of it."""
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children").read_text().split()
        for pid in (self.program.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self.program.kill()


# ---- asking ----

def ask(subject, target):
    """The status of one request."""
    with Client(subject.address, 5) as c:
        return c.request("GET", target).status


def answers(subject, target, count):
    """Who answered: statuses, and of 200 the backend's name."""
    seen = collections.Counter()
    for _ in range(count):
        with Client(subject.address, 5) as c:
            answer = c.request("GET", target)
            seen[answer.json()["message"][-1] if answer.status == 200 else answer.status] += 1
    return seen


class Knocking(threading.Thread):
    """Connects anew all the while; how often that was refused or reset."""

    def __init__(self, address):
        super().__init__()
        self.address, self.refused, self.ending = address, 0, False
        self.start()

    def run(self):
        while not self.ending:
            try:
                with Client(self.address, 10) as c:
                    c.request("GET", "/", [("Connection", "close")])
            except ConnectionRefusedError:
                self.refused += 1
            except (OSError, Cut, AssertionError):
                pass  # under way: another row
            time.sleep(0.001)

    def end(self):
        """How often."""
        self.ending = True
        self.join()
        return self.refused


def measure(make, event):
    """One event: {row: KEPT, LOST or NONE}."""
    folder = tempfile.mkdtemp(prefix="gwp-kept-")
    backends = [Backend(name, folder).start() for name in "ab"]
    dead = Backend("c", folder).start()
    dead.kill()
    subject = make(folder, (*backends, dead))
    try:
        subject.start()
        return look(subject, event, backends)
    finally:
        subject.stop()
        for backend in backends:
            backend.kill()
        shutil.rmtree(folder, ignore_errors=True)


def look(subject, event, backends):
    """Brings about the state, then the event, then sees."""
    assert 429 in [ask(subject, "/limit") for _ in range(8)]
    backends[1].get("/set?health=503")
    for _ in range(30):
        ask(subject, "/breaker/healthz")
    backends[1].get("/set?health=200")
    assert answers(subject, "/breaker/", 20)["b"] == 0, "the failing backend is left alone"
    for _ in range(10):
        ask(subject, "/health")
    wait_until(lambda: answers(subject, "/health", 20)["a"] == 20, "the dead backend is known")
    if "overrides" in subject.has:
        subject.override()
        assert answers(subject, "/override", 20)["b"] == 0, "the order is in effect"
    with Client(subject.address, 10) as c:  # more than what comes afterwards: who begins anew does not get there
        assert {c.request("GET", "/").status for _ in range(3000)} == {200}
    tunnel, slow = (Client(subject.address, 15) for _ in range(2))
    tunnel.send_request("GET", "/upgrade", [("Connection", "Upgrade"), ("Upgrade", "chat/2")])
    assert tunnel.read_head().status == 101
    slow.send_request("GET", "/delay/4")
    before = subject.count()
    knocking = Knocking(subject.address)
    time.sleep(0.1)
    subject.do(event)
    found = {"rate limit": ask(subject, "/limit") == 429,
             "breaker": answers(subject, "/breaker/", 20)["b"] == 0,
             "health": answers(subject, "/health", 20)["a"] == 20,
             "overrides": "overrides" in subject.has and answers(subject, "/override", 20)["b"] == 0,
             "tunnels": echoes(tunnel), "requests in flight": is_answered(slow)}
    found["connections waiting"] = knocking.end() == 0
    found["counters"] = goes_on(subject, before)
    return {row: NONE if row not in subject.has else KEPT if found[row] else LOST for row in ROWS}


def goes_on(subject, before):
    """Is the count where it was, and further? Reports may take a moment."""
    try:
        wait_until(lambda: subject.count() > before, "the count goes on", 3)
    except AssertionError:
        return False
    return True


def echoes(tunnel):
    """Does the tunnel bring back what it is given?"""
    try:
        tunnel.send(b"still there?")
        return tunnel.sock.recv(100) == b"still there?"
    except OSError:
        return False


def is_answered(client):
    """Does the answer come?"""
    try:
        return client.read_response().status == 200
    except (OSError, Cut, http.client.HTTPException):
        return False


# ---- the table ----

def table(results):
    """Markdown: a column for each event of each subject."""
    columns = [(s, e) for s in results for e in results[s]]
    head = ["", *(f"{s}:<br>{e}" for s, e in columns)]
    lines = [head, ["---"] * len(head)]
    for row in ROWS:
        lines.append([row, *(results[s][e][row] for s, e in columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_readme(text):
    """Between its two marks."""
    path = ROOT / "README.md"
    begin, end = "<!-- kept: written by tests/drill/kept.py -->\n", "<!-- /kept -->"
    readme = path.read_text()
    first, last = readme.index(begin) + len(begin), readme.index(end)
    path.write_text(readme[:first] + text + "\n" + readme[last:])


def main():
    """Measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results = {}
    for make in (OurPair, Nginx, Haproxy):
        if options.only and make.name != options.only:
            continue
        if make is not OurPair and not shutil.which(make.name.lower(), path=os.environ["PATH"] + ":/usr/sbin"):
            print(f"{make.name} is not installed: left out", file=sys.stderr)
            continue
        results[make.name] = {}
        for event in make.events:
            results[make.name][event] = measure(make, event)
            print(make.name, event, results[make.name][event], file=sys.stderr, flush=True)
    print(table(results))
    if options.write:
        write_readme(table(results))


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin"
    main()
