"""What is measured: the floor, nginx, HAProxy and the pair, started with the configuration of a scenario.

All have the same duties: kept connections on both sides, X-Forwarded-* and X-Real-IP towards the backend, an X-Request-ID both
ways; with `full`, a limiter for each client address, failures of an endpoint noticed in its answers, and a JSON line for
each request.
"""
import dataclasses
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
DEADLINE_S = 20
RATE = 1000000  # of the limiters: never reached


class Failed(Exception):
    """The benchmark cannot go on; the words say why."""


def free_port():
    """Below the ephemeral range, from which outgoing connections of earlier rounds would take it away."""
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in free_port.given:
                free_port.given.add(port)
                return port
    raise Failed("no port is free")


free_port.given = set()


def wait_until(what, condition, pause_s=0.01):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(pause_s)
    raise Failed(f"{what} did not happen within {DEADLINE_S} s")


def answers(port, path="/"):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            return s.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a scenario asks of a subject."""
    full: bool = False
    workers: int = 1
    routes: int = 1
    endpoints: tuple = ()
    redis: str = ""  # its URL; "yes" in a scenario: start one
    timeout_s: float = 30  # of the routes; another value is another configuration


def raise_descriptors(wanted=100000):
    """10,000 clients and as many connections to the backend; the limit that there is now."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (max(wanted, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
        except (OSError, ValueError):
            pass
    return hard


class Machine:
    """Where programs run: one core for what is measured, the others for all else. One of a kind."""

    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gwp-bench-"))
        cores = sorted(os.sched_getaffinity(0))
        self.measured, self.other = cores[:1], cores[1:] or cores
        self.all = cores
        self.processes = []
        self.connections = min(32768, raise_descriptors() - 1000)

    def start(self, name, command, cores, **more):
        with open(self.folder / f"{name}.log", "ab") as log:
            more.setdefault("stdout", log)
            process = subprocess.Popen(["taskset", "-c", ",".join(map(str, cores)), *map(str, command)], stderr=log,
                                       stdin=subprocess.DEVNULL, **more)
        self.processes.append(process)
        return process

    def stop(self, processes):
        for p in processes:
            p.send_signal(signal.SIGTERM)
        for p in processes:
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
            self.processes.remove(p)

    def close(self):
        self.stop(list(self.processes))
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_redis(self):
        """Its URL; it keeps nothing."""
        port = free_port()
        self.start("redis", ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                             "--dir", self.folder], self.other)
        wait_until("the start of redis-server", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        return f"redis://127.0.0.1:{port}"

    def start_origin(self, count=1):
        """The backend, on `count` addresses; those of its endpoints."""
        port = free_port()
        first = "127.0.0.1" if count == 1 else "127.1.0.1"
        self.start("origin", [self.build / "bench" / "origin", f"{first}:{port}", count], self.other)
        last = socket.inet_ntoa((int.from_bytes(socket.inet_aton(first), "big") + count - 1).to_bytes(4, "big"))
        wait_until("the backend's start", lambda: socket.socket().connect_ex((last, port)) == 0)
        start = int.from_bytes(socket.inet_aton(first), "big")
        return tuple(f"{socket.inet_ntoa((start + i).to_bytes(4, 'big'))}:{port}" for i in range(count))


def fill(template, **words):
    text = (HERE / "rivals" / template).read_text()
    return re.sub(r"@(\w+)@", lambda m: str(words[m[1]]), text)


class Subject:
    """A running proxy. `pids`: whose CPU and memory count, descendants included."""
    name = ""
    reloads = False

    def __init__(self, machine, label, setup):
        self.machine, self.label, self.setup = machine, label, setup
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.folder = machine.folder / re.sub(r"\W+", "-", label)
        self.folder.mkdir()
        self.cores = machine.all if setup.workers > 1 else machine.measured
        self.processes = []
        self.start()
        try:
            wait_until(f"an answer through {label}", lambda: answers(self.port, "/r00000/hello"))
        except Failed as failed:
            logs = [f"{p.name}: {p.read_text(errors='replace')[-600:]}" for p in
                    [*machine.folder.glob(f"{self.folder.name}-*.log"), *self.folder.glob("*.log")]]
            raise Failed("\n".join([str(failed), *logs])) from failed

    def run(self, name, command, cores=None, **more):
        process = self.machine.start(f"{self.folder.name}-{name}", command, cores or self.cores, **more)
        self.processes.append(process)
        return process

    @property
    def pids(self):
        return [p.pid for p in self.processes]

    def stop(self):
        self.machine.stop(self.processes)
        self.processes.clear()

    @staticmethod
    def version():
        return ""


def version_of(command, pattern):
    if not shutil.which(command[0]):
        return ""
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, out.stdout + out.stderr)
    return found[1] if found else ""


class Floor(Subject):
    """A byte relay: recv and send and nothing else."""
    name = "floor"

    def start(self):
        self.run("floor", [self.machine.build / "bench" / "floor", self.address, self.setup.endpoints[0]])

    @staticmethod
    def version():
        return "tests/bench/floor.c"


class Nginx(Subject):
    name = "nginx"
    reloads = True

    def start(self):
        self.configure()
        self.run("nginx", ["nginx", "-c", self.folder / "nginx.conf"])

    def configure(self):
        s = self.setup
        location = f"{{ proxy_pass http://backend; proxy_read_timeout {s.timeout_s:g}s; }}"
        paths = ["/"] if s.routes == 1 else [f"/r{i:05}/" for i in range(s.routes)]
        text = fill(
            "nginx.conf", workers=s.workers, connections=self.machine.connections, folder=self.folder, address=self.address,
            reuseport="reuseport" if s.workers > 1 else "", keepalive=max(256, 2 * len(s.endpoints)),
            servers="\n".join(f"        server {e} max_fails={20 if s.full else 0} fail_timeout=10s;" for e in s.endpoints),
            access_log=f"access_log {self.folder}/access.log json buffer=64k flush=1s;" if s.full else "access_log off;",
            limit_zone=f"limit_req_zone $binary_remote_addr zone=clients:10m rate={RATE}r/s;" if s.full else "",
            limit=f"limit_req zone=clients burst={RATE // 1000} nodelay; limit_req_status 429;" if s.full else "",
            locations="\n".join(f"        location {p} {location}" for p in paths))
        (self.folder / "nginx.conf").write_text(text)

    def reload(self, setup):
        self.setup = setup
        self.configure()
        self.processes[0].send_signal(signal.SIGHUP)

    @staticmethod
    def version():
        return version_of(["nginx", "-v"], r"nginx/(\S+)")


class HAProxy(Subject):
    name = "HAProxy"
    reloads = True
    json = ("'{\"ts\":\"%[date,ltime(%FT%TZ)]\",\"request_id\":\"%ID\",\"client\":\"%ci\",\"method\":\"%HM\","
            "\"host\":%{+Q}[capture.req.hdr(0)],\"path\":%{+Q}HU,\"protocol\":\"%HV\",\"status\":%ST,\"endpoint\":\"%si:%sp\","
            "\"bytes_in\":%U,\"bytes_out\":%B,\"duration_ms\":%Tt,\"upstream_ms\":%Tr,\"connect_ms\":%Tc,"
            "\"user_agent\":%{+Q}[capture.req.hdr(1)],\"referer\":%{+Q}[capture.req.hdr(2)]}'")

    def start(self):
        self.configure()
        with open(self.folder / "access.log", "ab") as log:
            self.run("haproxy", ["haproxy", "-W", "-db", "-f", self.folder / "haproxy.cfg"], stdout=log)

    def configure(self):
        s = self.setup
        captures = "".join(f"    http-request capture req.hdr({name}) len 128\n" for name in ("Host", "User-Agent", "Referer"))
        table = "stick-table type ip size 100k expire 10s store http_req_rate(1s)"
        limit = (f"{table}\n    http-request track-sc0 src\n"
                 f"    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {RATE} }}")
        routes = "    default_backend backend"
        if s.routes > 1:
            (self.folder / "routes.map").write_text("".join(f"/r{i:05}/ backend\n" for i in range(s.routes)))
            routes = f"    use_backend %[path,map_beg({self.folder}/routes.map)]"
        check = "check inter 1h observe layer7 error-limit 20 on-error mark-down" if s.full else ""
        text = fill(
            "haproxy.cfg", workers=s.workers, connections=self.machine.connections, address=self.address, routes=routes,
            log="log stdout format raw local0" if s.full else "",
            access_log=f"log global\n{captures}    log-format {self.json}" if s.full else "",
            limit=limit if s.full else "",
            timeout=f"{s.timeout_s:g}s",
            servers="\n".join(f"    server s{i} {e} maxconn 4096 pool-max-conn 1024 {check}"
                              for i, e in enumerate(s.endpoints)))
        (self.folder / "haproxy.cfg").write_text(text)

    def reload(self, setup):
        self.setup = setup
        self.configure()
        self.processes[0].send_signal(signal.SIGUSR2)

    @staticmethod
    def version():
        return version_of(["haproxy", "-v"], r"version (\S+)")


class Pair(Subject):
    """gateway-pro. The control plane is no part of a request: its CPU and memory are not counted with the data plane's."""
    name = "gateway-pro"
    reloads = True

    def start(self):
        self.admin = f"127.0.0.1:{free_port()}"
        self.configure()
        self.env = dict(os.environ, GWP_SOCKET=str(self.folder / "control.sock"),
                        GWP_ADMIN_SOCKET=str(self.folder / "admin.sock"))
        self.start_control()
        self.start_data()

    def start_control(self):
        self.control = self.run("controlplane", [self.machine.build / "gwp-controlplane", "--config",
                                                 self.folder / "gateway.yaml", "--state-dir", self.folder / "cp"],
                                self.machine.other, env=self.env)

    def start_data(self):
        self.data = self.run("dataplane", [self.machine.build / "gwp-dataplane", "--state-dir", self.folder / "dp"],
                             env=self.env)

    @property
    def pids(self):
        return [self.data.pid]

    def route(self, name, prefix):
        s = self.setup
        limit = f"\n    rate_limit: {{rate: {RATE}, burst: {RATE}, key_by: ip" if s.full or s.redis else ""
        if limit:
            limit += f", redis_url: \"{s.redis}\"}}" if s.redis else "}"
        breaker = "\n    circuit_breaker: {}" if s.full else ""
        urls = ", ".join(f'{{url: "http://{e}"}}' for e in s.endpoints)
        return (f"  - name: {name}\n    path_prefix: {prefix}\n    timeout_seconds: {s.timeout_s:g}\n"
                f"    health_check: {{enabled: false}}{limit}{breaker}\n    backends: [{urls}]")

    def configure(self):
        s = self.setup
        if s.routes == 1:
            routes = self.route("bench", "/")
        else:
            routes = "\n".join(self.route(f"r{i:05}", f"/r{i:05}") for i in range(s.routes))
        text = fill("gateway.yaml", address=self.address, workers=s.workers, admin=self.admin,
                    access_log=self.folder / "access.log" if s.full else "off", routes=routes)
        fresh = self.folder / "gateway.yaml.new"
        fresh.write_text(text)
        fresh.rename(self.folder / "gateway.yaml")

    def reload(self, setup):
        self.setup = setup
        self.configure()

    @staticmethod
    def version():
        return "this tree"


KINDS = {kind.name: kind for kind in (Floor, Nginx, HAProxy, Pair)}


def available(name):
    return bool(KINDS[name].version())
