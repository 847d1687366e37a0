#!/usr/bin/python3
"""CPU per proxied request of the pair and of nginx with the same duties, in interleaved rounds within one run.

The proxy under test has core 0 to itself; load generator and backend share core 1. Throughput is not compared: where the load
generator is the bottleneck, only CPU per request tells. Ratios carry over to other machines, microseconds do not.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(what, condition, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.01)
    sys.exit(f"bench: {what} did not happen within {seconds} s")


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return s.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def tree(pid):
    """The process and its descendants."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pid):
    """(user, system) seconds of a process and its descendants."""
    user = system = 0
    for p in tree(pid):
        fields = pathlib.Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        user += int(fields[11])
        system += int(fields[12])
    return user / TICKS, system / TICKS


def rss_kib(pid):
    return sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{p}/status").read_text())[1]) for p in tree(pid))


class Subject:
    """A running proxy: its name, port and the process whose CPU counts."""

    def __init__(self, name, port, process, measured=None):
        self.name, self.port, self.process = name, port, process
        self.pid = measured or process.pid
        self.samples = []


def start(folder, name, command, core, **kwargs):
    log = open(folder / f"{name}.log", "w")
    return subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], stdout=log, stderr=log, **kwargs)


def start_nginx(folder, name, core, port, server, upstream=""):
    conf = folder / f"{name}.conf"
    conf.write_text(
        f"""worker_processes 1; daemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/{name}-b; proxy_temp_path {folder}/{name}-p;
  fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
  {upstream}
  server {{ listen 127.0.0.1:{port}; {server} }} }}
"""
    )
    return start(folder, name, ["nginx", "-c", conf], core)


def start_rival(folder, backend):
    """nginx as a proxy, tuned as its manual advises: kept connections, no buffering to disk, forwarding headers."""
    port = free_port()
    process = start_nginx(
        folder, "nginx", 0, port,
        "location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; "
        "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto http; "
        "proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Request-ID $request_id; proxy_set_header X-Real-IP $remote_addr; "
        "add_header X-Request-ID $request_id; }",
        f"upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}",
    )
    return Subject("nginx", port, process)


def start_pair(folder, build, backend):
    port = free_port()
    config = folder / "gateway.yaml"
    config.write_text(
        f"""server: {{addr: "127.0.0.1:{port}", workers: 1}}
admin: {{addr: "127.0.0.1:{free_port()}"}}
logging: {{level: warn, access_log: "off"}}
routes:
  - name: bench
    path_prefix: /
    backends: [{{url: "http://127.0.0.1:{backend}"}}]
    health_check: {{enabled: false}}
"""
    )
    env = dict(os.environ, GWP_SOCKET=str(folder / "control.sock"), GWP_ADMIN_SOCKET=str(folder / "admin.sock"))
    control = start(folder, "controlplane",
                    [build / "gwp-controlplane", "--config", config, "--state-dir", folder / "cp"], 1, env=env)
    data = start(folder, "dataplane", [build / "gwp-dataplane", "--state-dir", folder / "dp"], 0, env=env)
    return Subject("gateway-pro", port, data), control


def run_load(port, connections, seconds):
    """wrk on core 1; the number of requests answered, and how many failed."""
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True).stdout
    bad = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", out))
    return int(re.search(r"(\d+) requests in", out)[1]), bad


def measure(subjects, rounds, connections, seconds):
    for subject in subjects:
        run_load(subject.port, connections, 1)
    for _ in range(rounds):
        for subject in subjects:
            before = cpu_seconds(subject.pid)
            requests, bad = run_load(subject.port, connections, seconds)
            after = cpu_seconds(subject.pid)
            if bad:
                sys.exit(f"bench: {subject.name} failed {bad} requests")
            subject.samples.append(((after[0] - before[0]) / requests * 1e6, (after[1] - before[1]) / requests * 1e6,
                                    requests / seconds))


def report(subjects):
    rows, base = [], None
    for s in subjects:
        total = [u + k for u, k, _ in s.samples]
        row = {"name": s.name, "cpu_us": statistics.median(total), "user_us": statistics.median(u for u, _, _ in s.samples),
               "min_us": min(total), "max_us": max(total), "requests_per_s": statistics.median(r for _, _, r in s.samples),
               "rss_kib": rss_kib(s.pid)}
        base = base or row["cpu_us"]
        row["ratio"] = row["cpu_us"] / base
        rows.append(row)
    print(f"{'':14} {'µs/request':>11} {'user':>6} {'min–max':>13} {'ratio':>6} {'req/s':>8} {'RSS KiB':>8}")
    for r in rows:
        print(f"{r['name']:14} {r['cpu_us']:11.1f} {r['user_us']:6.1f} {r['min_us']:6.1f}–{r['max_us']:<6.1f} "
              f"{r['ratio']:6.2f} {r['requests_per_s']:8.0f} {r['rss_kib']:8}")
    spread = max((r["max_us"] - r["min_us"]) / r["cpu_us"] for r in rows)
    if spread > 0.15:
        print(f"The machine was noisy: rounds of one subject differ by {spread:.0%}; differences below that say nothing.")
    return rows


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--build", type=pathlib.Path, default=HERE.parent.parent / "build")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--json", type=pathlib.Path, help="write the figures here as well")
    args = options.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gwp-bench-"))
    processes = []
    # Idle cores that sleep deeply add more than what is measured; held only while the file is open.
    latency = None
    try:
        latency = open("/dev/cpu_dma_latency", "wb", buffering=0)
        latency.write(b"\0\0\0\0")
    except OSError:
        pass
    try:
        backend = free_port()
        processes.append(start_nginx(folder, "backend", 1, backend, 'location / { return 200 "hello world\\n"; }'))
        rival = start_rival(folder, backend)
        processes.append(rival.process)
        pair, control = start_pair(folder, args.build.resolve(), backend)
        processes += [pair.process, control]
        subjects = [rival, pair]
        for s in subjects:
            wait_until(f"an answer through {s.name}", lambda s=s: answers(s.port))
        print(f"small keep-alive requests, {args.connections} connections, one worker each, {args.rounds} rounds of "
              f"{args.seconds} s, interleaved")
        measure(subjects, args.rounds, args.connections, args.seconds)
        rows = report(subjects)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=2) + "\n")
    finally:
        for p in processes:
            p.send_signal(signal.SIGTERM)
        for p in processes:
            p.wait(10)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
