"""Backends that live in the test and say exactly what it wants, byte for byte, when it wants it."""
import socket
import struct
import threading

from harness import DEADLINE, route, wait_until


class Request:
    """One request as it came in: its head, and its body once somebody has asked for it."""

    def __init__(self, peer, head):
        self.peer = peer
        self.raw = head
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = lines[0].split(" ")
        self.headers = [tuple(part.strip(" ") for part in line.split(":", 1)) for line in lines[1:]]

    def all(self, name):
        """The values of every field of that name."""
        return [v for n, v in self.headers if n.lower() == name]

    def get(self, name):
        """The value of a field, which must not stand there twice; None if it does not stand there."""
        values = self.all(name)
        assert len(values) <= 1, self.headers
        return values[0] if values else None

    def body(self):
        """The rest of the request."""
        if (self.get("transfer-encoding") or "").lower() != "chunked":
            return self.peer.exactly(int(self.get("content-length") or 0))
        pieces = []
        while size := int(self.peer.until(b"\r\n"), 16):
            pieces.append(self.peer.exactly(size))
            assert self.peer.exactly(2) == b"\r\n"
        while self.peer.until(b"\r\n"):
            pass
        return b"".join(pieces)


class Ended(Exception):
    """The other side has ended the connection."""


class Peer:
    """One accepted connection."""

    def __init__(self, sock, number):
        self.sock = sock
        self.number = number
        self.rest = bytearray()
        self.served = 0
        self.saw_end = False  # the other side has ended it
        sock.settimeout(DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _fill(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.saw_end = True
            raise Ended
        self.rest += data

    def _take(self, count):
        piece = bytes(self.rest[:count])
        del self.rest[:count]
        return piece

    def until(self, end):
        """What comes before `end`, which is taken as well."""
        while (at := self.rest.find(end)) < 0:
            self._fill()
        piece = self._take(at + len(end))
        return piece[:-len(end)]

    def exactly(self, count):
        """So many bytes."""
        while len(self.rest) < count:
            self._fill()
        return self._take(count)

    def some(self):
        """Whatever has come, at least one byte."""
        if not self.rest:
            self._fill()
        return self._take(len(self.rest))

    def send(self, *pieces):
        """Writes each piece in a segment of its own, as far as a sender can see to that."""
        for piece in pieces:
            self.sock.sendall(piece)

    def half_close(self):
        """Says that nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """Ends the connection with RST. For its own thread: elsewhere a receive may hold the socket."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def drop(self):
        """Ends the connection, from any thread."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def ended(self):
        """Reads on until the other side has ended the connection; False when it does not."""
        try:
            while True:
                self._fill()
                self.rest.clear()
        except (Ended, OSError):
            return self.saw_end


class RawBackend:
    """Listens, and gives every request to `answer(request)`, each connection in a thread of its own.
    What that returns is sent and the connection goes on; None ends it."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.peers = []
        self.problems = []
        self.closing = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        self.close()
        if failed is None:
            assert not self.problems, self.problems

    def route(self, name="all", prefix="/", **more):
        """A route to this backend alone, without health checks."""
        return route(name, prefix, self, **{"health_check": {"enabled": False}, **more})

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            peer = Peer(sock, len(self.peers) + 1)
            self.peers.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            while True:
                request = Request(peer, peer.until(b"\r\n\r\n"))
                peer.served += 1
                self.requests.append(request)
                answer = self.answer(request)
                if answer is None:
                    break
                peer.send(answer)
        except (Ended, OSError):
            pass
        except Exception as e:  # pylint: disable=broad-except
            if not self.closing:
                self.problems.append(repr(e))
        finally:
            peer.sock.close()

    def stop_listening(self):
        """New connections are refused from here on; the others stay."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()

    def close(self):
        """Ends everything."""
        self.closing = True
        self.stop_listening()
        for peer in self.peers:
            peer.drop()


def ok(body=b"ok", *fields):
    """A plain response."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields, b"", b""]
    return b"\r\n".join(lines) + body


def stands_still(measure, polls=30):
    """Waits until `measure()` is above zero and no longer changes."""
    marks = []

    def still():
        marks.append(measure())
        return len(marks) > polls and marks[-1] > 0 and marks[-1] == marks[-polls]
    wait_until(still, "it stands still")


def logged(pair, count=1, **wanted):
    """The lines of the access log with these values, once there are `count` of them."""
    def found():
        lines = [line for line in pair.access_lines()
                 if all(line.get(key) == value for key, value in wanted.items())]
        assert len(lines) >= count, pair.access_lines()[-5:]
        return lines
    return wait_until(found, f"the access log has {count} of {wanted}")


def outcome(pair, path):
    """Status and reason of the last request for that path in the access log."""
    line = logged(pair, path=path)[-1]
    return line["status"], line["reason"]
