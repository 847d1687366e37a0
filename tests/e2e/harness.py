"""The real programs, started in a temporary folder on free ports, watched to their end."""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from rawhttp import Client

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("GWP_BUILD", "build")).resolve()
BACKEND = ROOT / "tests" / "backend.py"

# Sanitizers slow the programs down, not the promises.
SCALE = {"asan": 3.0, "tsan": 6.0}.get(BUILD.name, 1.0)
DEADLINE = 15.0 * SCALE

SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|MemorySanitizer"
                       r"|runtime error:|Assertion .* failed")
LOG_FIELDS = set(re.findall(r"^(?:TEXT|NUMBER)_FIELD\((\w+)\)", (ROOT / "proto/base/log_fields.def").read_text(), re.M))
LOG_HEAD = ["level", "ts", "program", "module", "msg"]
ERROR_LINE = re.compile(r'"level":"error"|^\S+ error ')


def wait_until(condition, what, seconds=None):
    """Polls until `condition()` is true and returns its value; fails with `what` when it never is."""
    end = time.monotonic() + (DEADLINE if seconds is None else seconds * SCALE)
    problem = None
    while True:
        try:
            value = condition()
            if value:
                return value
            problem = None
        except (OSError, AssertionError, ValueError, KeyError) as e:
            problem = e
        if time.monotonic() > end:
            raise AssertionError(f"never came true: {what}" + (f" ({problem!r})" if problem else ""))
        time.sleep(0.01)


def free_port():
    """A port that nobody listens on right now, below those that the kernel gives to outgoing connections: one of these
    could otherwise take it before the program under test does."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def route(name, prefix, *targets, **more):
    """A route to backends, as the configuration wants it."""
    return {"name": name, "path_prefix": prefix,
            "backends": [{"url": t if isinstance(t, str) else t.url} for t in targets], **more}


class Program:
    """A child process; what it says goes to files, not to pipes that can fill up."""

    def __init__(self, name, argv, folder, env=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.err_path = Path(folder) / f"{name}.err"
        self.out_path = Path(folder) / f"{name}.out"
        self.env = env
        self.process = None

    def start(self):
        """Starts it, again if need be; the logs go on."""
        with open(self.err_path, "ab") as err, open(self.out_path, "ab") as out:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=err, env={**os.environ, **(self.env or {})})
        return self

    @property
    def pid(self):
        """Its process id."""
        return self.process.pid

    @property
    def running(self):
        """Is it there?"""
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        """Sends a signal."""
        self.process.send_signal(number)

    def wait(self, seconds=None):
        """Its exit status."""
        try:
            return self.process.wait(DEADLINE if seconds is None else seconds * SCALE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in time\n{self.log()[-2000:]}") from None

    def stop(self, seconds=None):
        """SIGTERM, then its exit status."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def log(self):
        """All it wrote on stderr."""
        return self.err_path.read_text(errors="replace") if self.err_path.exists() else ""

    def log_lines(self, module=None, said=""):
        """Its JSON lines as documents: of that module, with that in their sentence. A last line under way is left for later;
        what came before the configuration was read is for eyes."""
        lines = [json.loads(text) for text in self.log().split("\n")[:-1] if text.startswith("{")]
        return [line for line in lines if said in line["msg"] and module in (None, line.get("module"))]

    def fds(self):
        """Its open descriptors and what they are."""
        folder = f"/proc/{self.pid}/fd"
        found = {}
        for fd in os.listdir(folder):
            try:
                found[int(fd)] = os.readlink(f"{folder}/{fd}")
            except FileNotFoundError:
                pass
        return found

    def cpu_seconds(self):
        """Processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, key="VmRSS"):
        """Bytes of memory, by its name in /proc/PID/status."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M)[1]) * 1024


class Backend(Program):
    """tests/backend.py as a child process."""

    def __init__(self, name, folder, port=0, host="127.0.0.1"):
        super().__init__(f"backend-{name}", [sys.executable, "-B", BACKEND, "--name", name, "--host", host,
                                             "--port", port], folder)
        self.label = name
        self.port = port
        self.host = host

    def start(self):
        """Starts it; a second time on the port it had."""
        self.out_path.write_text("")
        if self.port:
            self.argv[-1] = str(self.port)
        super().start()
        self.port = int(wait_until(self._first_line, f"{self.name} prints its port"))
        return self

    def _first_line(self):
        assert self.running, self.log()
        text = self.out_path.read_text()
        return text.split("\n")[0] if "\n" in text else None

    @property
    def url(self):
        """As a route's backend."""
        return f"http://{self.host}:{self.port}"

    def get(self, target):
        """Asks it directly; the document it answers."""
        with Client((self.host, self.port), DEADLINE) as c:
            return c.request("GET", target).json()


class Answer:
    """What gwpctl did."""

    def __init__(self, done):
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def json(self):
        """Standard output as a document."""
        return json.loads(self.out)

    def __repr__(self):
        return f"<exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}>"


class Pair:
    """gwp-controlplane and gwp-dataplane in a folder of their own."""

    def __init__(self, routes, server=None, **sections):
        self.folder = Path(tempfile.mkdtemp(prefix="gwp-"))  # short: Unix sockets live in it
        self.routes = routes
        self.server = server or {}
        self.sections = sections
        self.expected = []
        self.clients = []
        self.fd_baseline = None
        self.config_path = self.folder / "gateway.yaml"
        self.socket = self.folder / "gwp.sock"
        self.admin_socket = self.folder / "admin.sock"
        self.state = self.folder / "dp-state"
        self.cp_state = self.folder / "cp-state"
        self.access_log = self.folder / "access.log"
        for folder in (self.state, self.cp_state):
            folder.mkdir()
        self.controlplane = Program("controlplane", [
            BUILD / "gwp-controlplane", "--config", self.config_path, "--socket", self.socket,
            "--state-dir", self.cp_state], self.folder)
        self.dataplane = self.make_dataplane("dp-1")
        self.take_ports()

    def make_dataplane(self, name):
        """A data plane that is not started yet."""
        return Program(name, [BUILD / "gwp-dataplane", "--socket", self.socket, "--state-dir",
                              self.state, "--id", name], self.folder)

    def take_ports(self):
        """New ports for both listeners."""
        self.port, self.admin_port = free_port(), free_port()
        while self.admin_port == self.port:
            self.admin_port = free_port()

    # ---- configuration ----

    def document(self, routes=None, server=None, **sections):
        """The configuration as a document; what is given replaces what the pair was made with."""
        return {
            "server": {"addr": f"127.0.0.1:{self.port}", "workers": 2, "shutdown_grace_seconds": 10,
                       **self.server, **(server or {})},
            "admin": {"addr": f"127.0.0.1:{self.admin_port}", "socket": str(self.admin_socket)},
            "logging": {"level": "info", "format": "json", "access_log": str(self.access_log)},
            **self.sections, **sections,
            "routes": self.routes if routes is None else routes,
        }

    def yaml(self, routes=None, server=None, **sections):
        """The same as text."""
        return yaml.safe_dump(self.document(routes, server, **sections), sort_keys=False)

    def write_config(self, text=None):
        """Replaces the file the way editors do: another file, renamed over it."""
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(self.yaml() if text is None else text)
        fresh.rename(self.config_path)

    # ---- starting ----

    def start(self):
        """Both programs, until a request can be served; once more with other ports if one was taken."""
        for attempt in range(3):
            self.write_config()
            self.controlplane.start()
            self.dataplane.start()
            try:
                self.wait_ready()
                break
            except AssertionError:
                said = self.controlplane.log() + self.dataplane.log()
                if "in use" not in said or attempt == 2:
                    raise
                for program in (self.controlplane, self.dataplane):
                    program.kill()
                    program.err_path.unlink()
                self.take_ports()
        self.fd_baseline = len(self.dataplane.fds())
        return self

    def wait_ready(self, generation=1):
        """Until the data plane serves at least that generation and its port is open."""
        def ready():
            for program in (self.controlplane, self.dataplane):
                if not program.running:
                    raise RuntimeError(f"{program.name} ended: {program.log()}")
            self.wait_synced(generation, once=True)
            return self.can_connect()
        try:
            wait_until(ready, "the pair is ready")
        except (AssertionError, RuntimeError) as e:
            raise AssertionError(f"{e}\n{self.controlplane.log()}\n{self.dataplane.log()}") from None

    def can_connect(self):
        """Is the data plane's port open?"""
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def wait_synced(self, generation=1, count=1, once=False):
        """Until `count` data planes serve that generation or a later one."""
        def synced():
            planes = [p for p in self.status()["dataplanes"] if p["state"] == "in_sync"]
            assert len(planes) >= count and all(p["generation"] >= generation for p in planes), planes
            return True
        return synced() if once else wait_until(synced, f"generation {generation} is in force")

    # ---- talking ----

    @property
    def address(self):
        """Where clients connect."""
        return ("127.0.0.1", self.port)

    def client(self, **more):
        """A connection to the gateway, closed with the pair at the latest."""
        c = Client(self.address, DEADLINE, **more)
        self.clients.append(c)
        return c

    def request(self, method, target, headers=(), body=b"", **more):
        """One request on a connection of its own."""
        with Client(self.address, DEADLINE) as c:
            return c.request(method, target, headers, body, **more)

    def get(self, target, headers=(), **more):
        """A GET on a connection of its own."""
        return self.request("GET", target, headers, **more)

    def admin(self, method, target, body=b"", headers=(), private=True):
        """A request to the admin API, over its private socket or over TCP."""
        where = str(self.admin_socket) if private else ("127.0.0.1", self.admin_port)
        with Client(where, DEADLINE) as c:
            return c.request(method, target, [("Connection", "close"), *headers], body)

    def status(self):
        """The control plane's view of the pair."""
        answer = self.admin("GET", "/api/v1/status")
        assert answer.status == 200, answer
        return answer.json()

    def generation(self):
        """The generation in force."""
        return self.status()["config"]["generation"]

    def push(self, text, query=""):
        """Posts a configuration; the response."""
        return self.admin("POST", f"/api/v1/config?source=push.yaml{query}", text.encode(),
                          [("Content-Type", "application/yaml")])

    def ctl(self, *args, stdin=None, admin=None, env=None):
        """Runs gwpctl against this pair."""
        argv = [BUILD / "gwpctl", "--admin", admin or f"unix:{self.admin_socket}", *args]
        return run_ctl(argv, stdin, env)

    def metrics(self):
        """All samples of /metrics: {name: {frozenset(labels): value}}."""
        answer = self.admin("GET", "/metrics", private=False)
        assert answer.status == 200, answer
        found = {}
        for line in answer.body.decode().splitlines():
            if line.startswith("#") or not line:
                continue
            name, labels, value = re.fullmatch(
                r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?", line).groups()
            pairs = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
            found.setdefault(name, {})[pairs] = float(value)
        return found

    def metric(self, name, **labels):
        """The sum of the samples of that name that carry these labels."""
        wanted = {(k, str(v)) for k, v in labels.items()}
        return sum(v for pairs, v in self.metrics().get(name, {}).items() if wanted <= pairs)

    def access_lines(self):
        """The access log, as documents."""
        if not self.access_log.exists():
            return []
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    # ---- the end ----

    def expect_log(self, pattern):
        """Announces that a line at level error that matches may be in a log."""
        self.expected.append(re.compile(pattern))

    def expect_refusal(self):
        """Announces that a configuration will be refused: the control plane logs that as an error."""
        self.expect_log(r'"module":"(config|publisher)"')

    def check_descriptors(self):
        """With clients and backends gone, the data plane holds what it held before."""
        def settled():
            fds = self.dataplane.fds()
            assert len(fds) <= self.fd_baseline, sorted(fds.values())
            return True
        wait_until(settled, f"descriptors are back to {self.fd_baseline}")

    def check_logs(self):
        """No sanitizer report, no error that was not announced, and lines as the README has them."""
        for path in sorted(self.folder.glob("*.err")):
            text = path.read_text(errors="replace")
            assert not SANITIZER.search(text), f"{path.name}:\n{text[-8000:]}"
            for one in re.findall(r'^\{"level":.*"program":.*$', text, re.M):  # access log lines name no program
                line = json.loads(one)
                assert list(line)[:5] == LOG_HEAD and set(line) <= {*LOG_HEAD, *LOG_FIELDS}, one
            errors = [line for line in text.splitlines() if ERROR_LINE.search(line)
                      and not any(e.search(line) for e in self.expected)]
            assert not errors, f"{path.name}: " + "\n".join(errors)

    def finish(self, backends=()):
        """Checks all that must be true at the end of every test."""
        for c in self.clients:
            c.close()
        for backend in backends:
            backend.kill()
        if self.dataplane.running and self.fd_baseline:
            self.check_descriptors()
        # The data plane last: one that goes before it has answered for a generation is an error, and rightly so.
        for program in (self.controlplane, self.dataplane):
            if program.running:
                code = program.stop(20)
                assert code == 0, f"{program.name} ended with {code}\n{program.log()[-4000:]}"
        self.check_logs()

    def destroy(self):
        """Whatever happened: nothing is left running, nothing is left lying about."""
        for c in self.clients:
            c.close()
        for program in (self.dataplane, self.controlplane):
            program.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def run_ctl(argv, stdin=None, env=None):
    """Runs gwpctl to its end."""
    done = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, text=True,
                          timeout=DEADLINE * 2, check=False, env={**os.environ, **(env or {})})
    assert not SANITIZER.search(done.stderr), done.stderr
    return Answer(done)
