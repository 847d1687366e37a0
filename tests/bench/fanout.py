"""What a route's number of endpoints costs: CPU per request with 2 and with 1,000 of them, in interleaved rounds of one run.

    python3 tests/bench/fanout.py [--build build]

Requests that go to a thousand endpoints go over a thousand connections, whose state in the kernel no cache holds. What that
costs whoever sends and receives is measured beside it, with nothing but send and recv: the floor. ip_hash shows the rest:
its one client always goes to the same one of the thousand.
"""
import argparse
import os
import select
import socket
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in ("e2e", ""):
    sys.path.insert(0, str(HERE.parent / folder))

MANY, CLIENTS, REQUESTS, ROUNDS = 1000, 16, 3000, 15


def cpu_ns(task):
    """What a thread has used."""
    return int(Path(task, "schedstat").read_text().split()[0])


def compare(task, run):
    """Medians of ns per request of `run(count)` with few and many, and of their ratio in each round."""
    costs, ratios = {2: [], MANY: []}, []
    for n in costs:
        run(n)
    for i in range(ROUNDS):
        for n in (2, MANY) if i % 2 else (MANY, 2):
            before = cpu_ns(task)
            run(n)
            costs[n].append((cpu_ns(task) - before) / REQUESTS)
        ratios.append(costs[MANY][-1] / costs[2][-1])
    return [statistics.median(x) for x in (costs[2], costs[MANY], ratios)]


def request_on(sockets, poll, path):
    """REQUESTS requests, one at a time on each connection."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    for s in sockets.values():
        s.send(request)
    left, answered = REQUESTS - len(sockets), 0
    while answered < REQUESTS:
        for fd, _ in poll.poll(10):
            assert sockets[fd].recv(4096).startswith(b"HTTP/1.1 200")
            answered += 1
            if left > 0:
                sockets[fd].send(request)
                left -= 1


def gateway(backends, algorithm):
    """Through the pair, with one worker."""
    from harness import Pair
    routes = [{**backends.pool(algorithm, [1] * n, circuit_breaker={}), "name": f"n{n}", "path_prefix": f"/n{n}"}
              for n in (2, MANY)]
    pair = Pair(routes, server={"workers": 1}).start()
    try:
        made = [socket.create_connection(pair.address) for _ in range(CLIENTS)]
        sockets, poll = {s.fileno(): s for s in made}, select.epoll()
        for fd in sockets:
            poll.register(fd, select.EPOLLIN)
        tasks = Path(f"/proc/{pair.dataplane.pid}/task").iterdir()
        worker = next(t for t in tasks if (t / "comm").read_text().startswith("worker-"))
        return compare(worker, lambda n: request_on(sockets, poll, f"/n{n}"))
    finally:
        pair.destroy()


def floor(backends):
    """The same number of requests under way at once, straight to the backends."""
    import swarm
    sockets = [socket.create_connection((swarm.address(i), backends.port)) for i in range(MANY)]
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

    def run(n):
        used = sockets[:CLIENTS] if n == 2 else sockets
        for first in range(0, REQUESTS, CLIENTS):
            batch = [used[(first + i) % len(used)] for i in range(CLIENTS)]
            for s in batch:
                s.send(request)
            for s in batch:
                s.recv(4096)
    return compare("/proc/thread-self", run)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default="build")
    os.environ["GWP_BUILD"] = parser.parse_args().build
    from test_balance import Swarm
    with tempfile.TemporaryDirectory() as folder:
        backends = Swarm(folder).start()
        try:
            rows = [(a, gateway(backends, a)) for a in ("round_robin", "least_conn", "ip_hash")]
            rows.append(("send and recv alone", floor(backends)))
        finally:
            backends.kill()
    print(f"| ns of CPU per request | 2 endpoints | {MANY:,} endpoints | difference | ratio |\n|---|---|---|---|---|")
    for name, (few, many, ratio) in rows:
        print(f"| {name} | {few:,.0f} | {many:,.0f} | {many - few:+,.0f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
