"""A thousand backends in one process: it listens on every loopback address at one port and counts requests by the address
that was asked. All of them take the same time, and as little of it as Python allows: one small answer for each request, which
must come in one piece.

    python3 tests/e2e/swarm.py      the port is the first line on stdout; GET /counts tells {address: requests}
"""
import json
import select
import socket
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n"


def address(number):
    """Of the backend of that number, from 0 on."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def main():
    """Serves until it is killed."""
    listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    poll, conns, counts = select.epoll(), {}, {}
    poll.register(listener.fileno(), select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                try:
                    conn, _ = listener.accept()
                except BlockingIOError:
                    continue
                conn.setblocking(False)
                conns[conn.fileno()] = (conn, conn.getsockname()[0])
                poll.register(conn.fileno(), select.EPOLLIN)
                continue
            conn, own = conns[fd]
            try:
                data = conn.recv(8192)
            except OSError:
                data = b""
            if not data:
                del conns[fd]
                conn.close()
            elif data.startswith(b"GET /counts "):
                body = json.dumps(counts).encode()
                conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            else:
                counts[own] = counts.get(own, 0) + 1
                conn.send(ANSWER)


if __name__ == "__main__":
    sys.exit(main())
