#!/usr/bin/python3
"""What changes of the configuration cost: from the file's write to the generation in force, and what they do to traffic.

`--soak N` pushes N times under load and says whether memory stays where it was.
"""
import argparse
import itertools
import json
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PAUSE_MS = 10  # of sixteen clients beside pushes: 1,500 requests a second or so, which leave room for many pushes
sys.path.insert(0, str(HERE.parent / "e2e"))
from harness import Pair, free_port, wait_until  # pylint: disable=wrong-import-position


def text_of(pair, routes, backend, changed=0):
    """A configuration of that many routes, three backends each; `changed` is part of the first route's prefix."""
    lines = [f"server: {{addr: \"127.0.0.1:{pair.port}\", workers: 2}}",
             f"admin: {{addr: \"127.0.0.1:{pair.admin_port}\", socket: {pair.admin_socket}}}",
             "logging: {level: info, access_log: \"off\"}", "routes:",
             "  - name: load", "    path_prefix: /load", "    backends:", f"      - url: http://127.0.0.1:{backend}",
             "    health_check: {enabled: false}"]
    for i in range(routes):
        lines += [f"  - name: route-{i}", f"    path_prefix: /api/v1/service-{i}" + (f"/{changed}" if i == routes // 2 else ""),
                  "    timeout_seconds: 10", "    backends:",
                  *(f"      - url: http://127.0.0.{k}:{backend}/r{i}" for k in (1, 2, 3)),
                  "    health_check:", "      enabled: false"]
    return "\n".join(lines) + "\n"


class Backend:
    """nginx that answers everything."""

    def __init__(self, folder, taken):
        self.port = free_port()
        while self.port in taken:
            self.port = free_port()
        conf = folder / "backend.conf"
        conf.write_text(f"worker_processes 1; daemon off; master_process off; pid {folder}/b.pid; error_log {folder}/b.err;\n"
                        "events { worker_connections 8192; }\nhttp { access_log off; keepalive_requests 1000000000;\n"
                        f"client_body_temp_path {folder}/b1; proxy_temp_path {folder}/b2; fastcgi_temp_path {folder}/b3;\n"
                        f"uwsgi_temp_path {folder}/b4; scgi_temp_path {folder}/b5;\n"
                        f"server {{ listen 127.0.0.1:{self.port}; location / {{ return 200 \"hello world\\n\"; }} }} }}\n")
        self.process = subprocess.Popen(["nginx", "-c", conf], stderr=subprocess.DEVNULL)

    def stop(self):
        """Ends it."""
        self.process.terminate()
        self.process.wait()


def start(routes, build):
    """A pair that serves so many routes."""
    pair = Pair([])
    backend = Backend(pair.folder, (pair.port, pair.admin_port))
    pair.write_config(text_of(pair, routes, backend.port))
    pair.controlplane.argv[0] = str(build / "gwp-controlplane")
    pair.dataplane.argv[0] = str(build / "gwp-dataplane")
    pair.controlplane.start()
    pair.dataplane.start()
    pair.wait_ready()
    return pair, backend


class Prober:
    """Asks for one path over a kept connection until the answer is no 404."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port))

    def status(self, path):
        """Of one GET."""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(65536)
        head, rest = head.split(b"\r\n\r\n", 1)
        left = int(re.search(rb"content-length: (\d+)", head.lower())[1]) - len(rest)
        while left > 0:
            left -= len(self.sock.recv(left))
        return int(head.split()[1])

    def until_known(self, path):
        """Polls every half millisecond."""
        while self.status(path) == 404:
            time.sleep(0.0005)


def measure_changes(routes, count, build):
    """Milliseconds from before the write (rename) until the changed route answers, and the log's own figures."""
    pair, backend = start(routes, build)
    took = []
    try:
        prober = Prober(pair.port)
        for n in range(1, count + 1):
            fresh = pair.config_path.with_suffix(".new")
            fresh.write_text(text_of(pair, routes, backend.port, n))
            begun = time.monotonic()
            fresh.rename(pair.config_path)
            prober.until_known(f"/api/v1/service-{routes // 2}/{n}")
            took.append((time.monotonic() - begun) * 1000)
        memory = pair.controlplane.memory(), pair.dataplane.memory()
        peak = pair.controlplane.memory("VmHWM"), pair.dataplane.memory("VmHWM")
        stages = [line for line in pair.controlplane.log().splitlines() if "loaded in" in line][-1:]
        stages += [line for line in pair.controlplane.log().splitlines() if "compiled in" in line][-1:]
    finally:
        pair.destroy()
        backend.stop()
    print(f"{routes:6} routes: write to in force {statistics.median(took):6.1f} ms median, {max(took):6.1f} ms most of {count}; "
          f"control plane {memory[0] / 2**20:.1f} MiB (peak {peak[0] / 2**20:.1f}), "
          f"data plane {memory[1] / 2**20:.1f} MiB (peak {peak[1] / 2**20:.1f})")
    for line in stages:
        print("        " + (re.search(r'"msg":"(.*?)"', line) or [None, line])[1])
    return statistics.median(took)


class Changes(threading.Thread):
    """Ten changes of the file a second, until the block that it is entered for ends."""

    def __init__(self, pair, texts):
        super().__init__()
        self.pair, self.texts = pair, texts
        self.over = threading.Event()

    def run(self):
        due = time.monotonic()
        while not self.over.is_set():
            self.pair.write_config(next(self.texts))
            due += 0.1
            self.over.wait(max(0, due - time.monotonic()))

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.over.set()
        self.join()


def measure_latency(routes, rounds, build):
    """Waiting times at a steady rate, in turns of a second without changes and with ten of them."""
    pair, backend = start(routes, build)
    texts = itertools.cycle([text_of(pair, routes, backend.port, n) for n in range(1, 12)])
    points = ("p50", "p99", "p999")
    quiet, busy = [], []

    def turn(found):
        done = subprocess.run([build / "bench" / "clients", f"127.0.0.1:{pair.port}", "--connections", "32", "--seconds", "1",
                               "--rate", "2000", "--get", "/load"], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
        assert not any(found[-1][key] for key in ("unanswered", "cut", "refused", "bad_status")), found[-1]
    try:
        before = pair.generation()
        for _ in range(rounds):
            turn(quiet)
            with Changes(pair, texts):
                turn(busy)
            wait_until(lambda: pair.metric("gateway_snapshots_alive") <= 2, "old snapshots are freed")
        count = pair.generation() - before
    finally:
        pair.destroy()
        backend.stop()
    print(f"2,000 requests/s beside {count} changes of {routes} routes, ten a second; medians of {rounds} rounds of a second, p50/p99/p99.9:")
    for name, found in (("without changes", quiet), ("with changes", busy)):
        print(f"  {name:16}" + " / ".join(f"{statistics.median(f['latency_us'][p] for f in found) / 1000:.2f}" for p in points) + " ms")


class Load(threading.Thread):
    """wrk while something happens; its latency and failures. `pause_ms`: how long each client rests between two requests."""

    def __init__(self, port, seconds, pause_ms=0):
        super().__init__()
        self.argv = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency",
                     *(["-s", HERE / "pause.lua"] if pause_ms else []), f"http://127.0.0.1:{port}/load", "--", str(pause_ms)]
        self.out = ""

    def run(self):
        self.out = subprocess.run(self.argv, capture_output=True, text=True, check=True).stdout

    def figures(self):
        """(requests, failed, p50, p90, p99 in ms)."""
        self.join()
        unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}
        points = {p: float(v) * unit[u] for p, v, u in re.findall(r"(50|90|99)%\s+([\d.]+)(us|ms|s)", self.out)}
        failed = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", self.out))
        return (int(re.search(r"(\d+) requests in", self.out)[1]), failed, points["50"], points["90"], points["99"])


def measure_pushes(routes, count, build):
    """Pushes under load: failed requests, memory, latency with and without."""
    pair, backend = start(routes, build)
    try:
        quiet = Load(pair.port, 5, PAUSE_MS)
        quiet.start()
        before = quiet.figures()
        for n in range(1, 21):  # memory as it is after the first ones
            assert pair.push(text_of(pair, routes, backend.port, n), "&wait=30").status == 200
        memory = pair.controlplane.memory(), pair.dataplane.memory()
        begun, n = time.monotonic(), 20
        failed = requests = 0
        latency = []
        while n < count + 20:
            load = Load(pair.port, 5, PAUSE_MS)
            load.start()
            while load.is_alive() and n < count + 20:
                n += 1
                answer = pair.push(text_of(pair, routes, backend.port, n), "&wait=30")
                assert answer.status == 200 and answer.json()["dataplanes"][0]["accepted"], answer.body
            figures = load.figures()
            requests, failed = requests + figures[0], failed + figures[1]
            latency.append(figures[2:])
        seconds = time.monotonic() - begun
        wait_until(lambda: pair.metric("gateway_snapshots_alive") <= 2, "old snapshots are freed")
        after = pair.controlplane.memory(), pair.dataplane.memory()
    finally:
        pair.destroy()
        backend.stop()
    print(f"{count} pushes of {routes} routes in {seconds:.1f} s under load: {failed} of {requests} requests failed; p50/p90/p99 "
          f"{'/'.join(f'{v:.2f}' for v in before[2:])} ms without, "
          f"{'/'.join(f'{statistics.median(v):.2f}' for v in zip(*latency))} ms with pushes")
    for name, a, b in zip(("control plane", "data plane"), memory, after):
        print(f"  {name}: RSS {a / 2**20:.1f} MiB before, {b / 2**20:.1f} MiB after")
    grown = max((b - a) / a for a, b in zip(memory, after))
    return failed, grown


def main():
    """Prints what was measured; 1 when a request failed or memory grew."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--build", type=pathlib.Path, default=HERE.parent.parent / "build")
    options.add_argument("--soak", type=int, default=0)
    options.add_argument("--routes", type=int, default=100)
    options.add_argument("--changes", type=int, default=20)
    args = options.parse_args()
    build = args.build.resolve()
    if args.soak:
        failed, grown = measure_pushes(args.routes, args.soak, build)
        sys.exit("soak: requests failed" if failed else f"soak: memory grew by {grown:.0%}" if grown > 0.1 else 0)
    for routes in (1, 100, 10000):
        measure_changes(routes, args.changes, build)
    measure_latency(10000, args.changes, build)


if __name__ == "__main__":
    main()
