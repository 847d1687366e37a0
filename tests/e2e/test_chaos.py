"""Clients and backends that do everything wrong at once; afterwards the data plane is as it was."""
import random
import socket
import threading
import time

from harness import SCALE, route, wait_until

SECONDS = 6
THREADS = 12
TARGETS = ["/", "/status/500", "/close", "/reset", "/garbage", "/partial", "/slowhead", "/nolength", "/hops", "/delay/0.05",
           "/stream/70000", "/stream/300000?chunked=1", "/nowhere/else", "/upgrade", "/hints", "/%2e%2e/x", "/sink", "/echo"]


def make_request(rng):
    """One request, as often broken as not."""
    target = rng.choice(TARGETS)
    head = [f"{rng.choice(['GET', 'GET', 'POST', 'PUT', 'HEAD', 'OPTIONS', 'BREW'])} {target} HTTP/1.{rng.choice('0111')}", "Host: x"]
    body = b""
    kind = rng.randrange(7)
    if kind == 0:
        body = rng.randbytes(rng.choice([0, 1, 5000, 80000]))
        head.append(f"Content-Length: {len(body)}")
    elif kind == 1:
        head.append("Transfer-Encoding: chunked")
        for _ in range(rng.randrange(4)):
            piece = rng.randbytes(rng.randrange(1, 9000))
            body += b"%x\r\n%b\r\n" % (len(piece), piece)
        body += b"0\r\n" + rng.choice([b"", b"X-T: 1\r\n"]) + b"\r\n"
    elif kind == 2:
        head += ["Connection: Upgrade", "Upgrade: echo"]
        body = rng.randbytes(rng.randrange(3000))
    elif kind == 3:
        head.append(rng.choice(["Content-Length: x", "X: \x01", "Transfer-Encoding: gzip", "Expect: 100-continue", " folded: x"]))
    elif kind == 4:
        head.append("Connection: close")
    data = bytearray("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    if rng.random() < 0.15 and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def misbehave(address, rng, end, problems):
    """Connections that send in pieces, stop reading, vanish, reset or half-close, until `end`."""
    while time.monotonic() < end:
        try:
            with socket.create_connection(address, 5) as s:
                s.settimeout(0.3)
                data = b"".join(make_request(rng) for _ in range(rng.choice([1, 1, 1, 2, 5])))
                while data:
                    step = rng.choice([1, 7, 100, 1500, len(data)])
                    s.sendall(data[:step])
                    data = data[step:]
                    if rng.random() < 0.02:
                        break
                fate = rng.randrange(4)
                if fate == 0:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                elif fate == 1:
                    s.shutdown(socket.SHUT_WR)
                if fate:
                    for _ in range(rng.randrange(6)):
                        if not s.recv(rng.choice([1, 100, 65536])):
                            break
        except ConnectionRefusedError as e:
            problems.append(e)
            return
        except OSError:
            pass


def test_misbehaviour_on_both_sides_leaves_nothing_behind(make_pair, backends):
    """Nothing crashes, nothing is left over, and good clients are answered all the while."""
    a, b = backends("a", "b")
    pair = make_pair([route("all", "/", a, b, timeout_seconds=2, response_idle_timeout_seconds=1)],
                     server={"header_timeout_seconds": 1, "read_timeout_seconds": 1, "write_timeout_seconds": 1})
    seed, problems = random.randrange(1 << 32), []
    print(f"seed {seed}")
    end = time.monotonic() + SECONDS * max(1, SCALE / 2)
    threads = [threading.Thread(target=misbehave, args=(pair.address, random.Random(seed + i), end, problems))
               for i in range(THREADS)]
    for t in threads:
        t.start()
    good = 0
    while time.monotonic() < end:
        assert pair.dataplane.running, pair.dataplane.log()[-3000:]
        assert pair.get("/good").status == 200
        good += 1
        if good % 20 == 0:
            text = pair.yaml([route("all", "/", a, b, timeout_seconds=2, response_idle_timeout_seconds=1, retries=1 + good % 2),
                              route(f"r{good}", f"/r{good}", a)])
            assert pair.push(text).status == 200
    for t in threads:
        t.join()
    assert not problems and good > 10
    for name in ("downstream_requests_active", "downstream_connections_active", "tunnels_active"):
        wait_until(lambda name=name: pair.metric(f"gateway_{name}") == 0, f"{name} is 0 again")
    wait_until(lambda: pair.metric("gateway_snapshots_alive") == 1, "one snapshot is alive")
