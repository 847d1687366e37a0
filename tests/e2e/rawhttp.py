"""An HTTP client that hides nothing: bytes out, exact responses in, fields in their order."""
import json
import socket
import time


class Cut(Exception):
    """The connection ended within a response; what had arrived is in `response`."""

    def __init__(self, message, response):
        super().__init__(message)
        self.response = response


class Response:
    """One response, as it stood on the wire."""

    def __init__(self, version, status, reason, headers):
        self.version = version
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = b""
        self.trailers = []

    def all(self, name):
        """The values of every field of that name, in order."""
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name, preset=None):
        """The value of a field that must not stand there twice."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times: {self.headers}"
        return values[0] if values else preset

    def json(self):
        """The body as a document."""
        return json.loads(self.body)

    @property
    def chunked(self):
        """Is the body framed in chunks?"""
        return (self.get("transfer-encoding") or "").lower() == "chunked"

    def __repr__(self):
        return f"<{self.version} {self.status} {self.headers} {self.body[:300]!r}>"


class Client:
    """One connection; `where` is (host, port), or the path of a Unix socket."""

    def __init__(self, where, deadline=10.0, receive_buffer=None):
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.deadline = deadline
        self.sock.settimeout(deadline)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(where)
        self.rest = bytearray()
        self.received = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the connection."""
        self.sock.close()

    # ---- out ----

    def send(self, data):
        """Writes bytes (or text) as they are."""
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def send_request(self, method, target, headers=(), body=b"", host="gateway.test"):
        """Writes one request; Host and Content-Length are added unless given."""
        names = {n.lower() for n, _ in headers}
        fields = [] if "host" in names else [("Host", host)]
        fields += headers
        if body and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
        lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in fields), "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)

    def send_chunk(self, data):
        """Writes one chunk; an empty one is the last."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def request(self, method, target, headers=(), body=b"", **more):
        """One request and its response."""
        self.send_request(method, target, headers, body, **more)
        return self.read_response(method)

    # ---- in ----

    def _fill(self):
        data = self.sock.recv(65536)
        self.received += len(data)
        self.rest += data
        return bool(data)

    def _line(self):
        while (end := self.rest.find(b"\r\n")) < 0:
            if not self._fill():
                raise Cut("the connection ended within a line", None)
        line = bytes(self.rest[:end])
        del self.rest[:end + 2]
        return line.decode("latin-1")

    def read_head(self):
        """A response's head."""
        first = self._line()
        version, status, *reason = first.split(" ", 2)
        assert version.startswith("HTTP/1."), first
        headers = []
        while line := self._line():
            name, value = line.split(":", 1)
            headers.append((name, value.strip(" \t")))
        return Response(version, int(status), reason[0] if reason else "", headers)

    def _exactly(self, count, response):
        while count:
            if not self.rest and not self._fill():
                raise Cut(f"{count} bytes were still to come", response)
            piece = bytes(self.rest[:count])
            del self.rest[:count]
            count -= len(piece)
            yield piece

    def _chunks(self, response):
        while size := int(self._line().split(";")[0], 16):
            yield from self._exactly(size, response)
            assert b"".join(self._exactly(2, response)) == b"\r\n"
        while line := self._line():
            response.trailers.append(tuple(line.split(":", 1)))

    def read_pieces(self, response, method="GET"):
        """The body of a response whose head was read, piece by piece."""
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return
        if response.chunked:
            try:
                yield from self._chunks(response)
            except Cut as cut:
                raise Cut(str(cut), response) from cut
        elif (length := response.get("content-length")) is not None:
            yield from self._exactly(int(length), response)
        else:
            while self.rest or self._fill():
                piece = bytes(self.rest)
                self.rest.clear()
                yield piece

    def read_response(self, method="GET"):
        """A final response with its body; Cut when the connection ends before its end."""
        while True:
            response = self.read_head()
            if response.status >= 200 or response.status == 101:
                break
        pieces = []
        try:
            for piece in self.read_pieces(response, method):
                pieces.append(piece)
        finally:
            response.body = b"".join(pieces)
        return response

    def is_closed(self, seconds=None):
        """Does the other side end the connection, without another byte, within the deadline?"""
        end = time.monotonic() + (self.deadline if seconds is None else seconds)
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(4096)
            except ConnectionResetError:
                return True
            except socket.timeout:
                return False
            finally:
                self.sock.settimeout(self.deadline)
            assert not data, f"more bytes came: {data[:200]!r}"
            return True
        return False
