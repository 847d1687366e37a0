"""A TCP proxy of our own that can be told to go wrong: between a gateway and its Redis, for instance.

Modes, changed at any time by `mode = ...`: what is under way is treated by the new mode at once.
  "pass"    bytes both ways
  "refuse"  nobody listens, and open connections are reset
  "hole"    connections are accepted, bytes are swallowed, nothing is answered
  "nonsense" every request is answered with bytes that are no protocol
With `delay` seconds, what the server answers is that late; between hold() and release() it waits for the latter.
"""
import contextlib
import heapq
import math
import selectors
import socket
import struct
import threading
import time

NONSENSE = b"HTTP/1.1 200 OK\r\nServer: not what you think\r\n\r\n"


class Link:
    """A client's connection and the one to the server."""

    def __init__(self, client, server):
        self.client, self.server = client, server
        self.due = 0.0  # when the last of its late bytes goes out: those behind do not overtake


class FaultProxy:
    """Runs in a thread of its own until close()."""

    def __init__(self, target):
        self.target = target
        self.delay = 0.0
        self.nonsense = NONSENSE
        self.accepted = 0
        self.from_clients = 0  # bytes
        self._mode = "pass"
        self._links, self._late, self._count = {}, [], 0
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listener = None
        self.port = 0
        self._listen()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def mode(self):
        """What it does now."""
        return self._mode

    @mode.setter
    def mode(self, mode):
        self._mode = mode
        applied = threading.Event()
        self._order = applied
        self._wake.send(b"x")
        assert applied.wait(10), "the proxy obeys"

    def hold(self):
        """From now on no answer comes through."""
        self.delay = math.inf

    def release(self):
        """Mode "pass" and no delay; what was held or late comes at once."""
        self.delay = 0.0
        self.mode = "pass"

    def close(self):
        """Ends it and all its connections."""
        self._stopping = True
        self._wake.send(b"x")
        self._thread.join()

    # ---- the thread ----

    _order = None

    def _listen(self):
        if self._listener:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(64)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _deafen(self):
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _drop(self, link, reset=False):
        for end in (link.client, link.server):
            if end is None or end not in self._links:
                continue
            del self._links[end]
            self._selector.unregister(end)
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    def _obey(self):
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(1000)
        if self._mode == "refuse":
            self._deafen()
            for link in set(self._links.values()):
                self._drop(link, reset=True)
        else:
            self._listen()
        if self.delay == 0:
            for _, _, link, data in sorted(self._late, key=lambda late: late[1]):
                link.due = 0.0
                if self._mode == "pass":
                    self._send(link, link.client, data)
            self._late.clear()
        if self._order:
            self._order.set()
            self._order = None

    def _accept(self):
        client = self._listener.accept()[0]
        self.accepted += 1
        server = None
        with contextlib.suppress(OSError):
            server = socket.create_connection(self.target, 1)
        if server is None and self._mode == "pass":
            client.close()
            return
        link = Link(client, server)
        for end in (client, server):
            if end is None:
                continue
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links[end] = link
            self._selector.register(end, selectors.EVENT_READ)

    def _move(self, end):
        link = self._links[end]
        try:
            data = end.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(link)
            return
        if end is link.client:
            self.from_clients += len(data)
        if self._mode == "hole":
            return
        if self._mode == "nonsense":
            if end is link.client:
                self._send(link, link.client, self.nonsense)
            return
        if end is link.client:
            self._send(link, link.server, data)
        elif self.delay > 0 or link.due > time.monotonic():
            self._count += 1
            link.due = max(link.due, time.monotonic() + self.delay)
            heapq.heappush(self._late, (link.due, self._count, link, data))
        else:
            self._send(link, link.client, data)

    def _send(self, link, end, data):
        if end is None or end not in self._links:
            return
        try:
            end.settimeout(5)
            end.sendall(data)
        except OSError:
            self._drop(link)

    def _send_late(self):
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, link, data = heapq.heappop(self._late)
            if self._mode == "pass":
                self._send(link, link.client, data)

    def _run(self):
        while not self._stopping:
            wait = min(1, max(0, self._late[0][0] - time.monotonic())) if self._late else 1
            for key, _ in self._selector.select(wait):
                if key.fileobj is self._woken:
                    self._obey()
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._links:
                    self._move(key.fileobj)
            self._send_late()
        for link in set(self._links.values()):
            self._drop(link)
        self._deafen()
        self._selector.close()
        self._wake.close()
        self._woken.close()
