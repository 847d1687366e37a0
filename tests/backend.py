"""A backend for demonstrations and tests: HTTP/1.1 on asyncio, every kind of answer a gateway meets.

    python3 tests/backend.py --port 9001 --name a       the port is the first line on stdout

    any path             {"message": "hello from a", method, path, headers in order, body length, ...}
    /status/CODE         that status
    /delay/SECONDS       hello, but later
    /stream/BYTES        deterministic bytes (see pattern()); ?chunked=1 without Content-Length
    /echo                the request's body as it comes in, framed as it was; ?chunked=1 for chunks
    /sink                counts and hashes the upload; ?pause=SECONDS before the first read
    /close  /reset       the connection ends without an answer, by FIN or by RST
    /garbage             bytes that are not HTTP
    /partial             half a body, then the end; ?chunked=1, ?reset=1
    /slowhead/SECONDS    a response head that takes that long, byte by byte
    /nolength            a body that ends with the connection
    /hops                a response with hop-by-hop fields
    /hints               103 before 200
    /lastone             hello, then the connection is closed although nothing said so
    /trap                hello, and the next request on this connection gets no answer
    /raw                 the request's body is written back as the response itself, then the end
    /upgrade             101, then every byte comes back
    /healthz             200, or what /set?health=CODE said last
    /set?fault=PATH      from now on everything but /set and /connections is answered as that path; "" = as it was;
                         &spare=PATH leaves that one alone
    /connections         how many connections were accepted, and how many carried requests

Memory stays bounded whatever is sent either way: nothing is gathered but what /raw is given.
"""
import argparse
import asyncio
import hashlib
import json
import random
import signal
import socket
import struct
import sys
from urllib.parse import parse_qsl, unquote, urlsplit

PIECE = 64 * 1024
MAX_RAW = 1024 * 1024
MAX_SKIPPED = 1024 * 1024

# A prime length, so that no piece of any size that a proxy uses lines up with it.
_BLOCK = random.Random(7).randbytes(65521)


def pattern(offset, count):
    """Bytes `offset` to `offset + count` of the endless deterministic stream."""
    start = offset % len(_BLOCK)
    repeats = (start + count) // len(_BLOCK) + 1
    return (_BLOCK * repeats)[start:start + count]


def pattern_pieces(size, piece=PIECE):
    """The first `size` bytes of that stream, piece by piece."""
    for offset in range(0, size, piece):
        yield pattern(offset, min(piece, size - offset))


def pattern_sha256(size):
    """The hash that whoever received the first `size` bytes of that stream must come to."""
    digest = hashlib.sha256()
    for piece in pattern_pieces(size):
        digest.update(piece)
    return digest.hexdigest()


class BadRequest(Exception):
    """The request could not be understood; the connection ends with a 400."""


class Gone(Exception):
    """The connection is over, whatever the protocol would have said next."""


class Request:
    """One request: its head, and its body while it is being read."""

    def __init__(self, reader, head):
        lines = head.decode("latin-1").split("\r\n")
        try:
            self.method, self.target, self.version = lines[0].split(" ")
            self.headers = [tuple(line.split(":", 1)) for line in lines[1:] if line]
            self.headers = [(name, value.strip()) for name, value in self.headers]
        except ValueError as e:
            raise BadRequest(lines[0]) from e
        parts = urlsplit(self.target)
        self.path = unquote(parts.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.reader = reader
        self.chunked = "chunked" in (self.header("transfer-encoding") or "").lower()
        self.length = None if self.chunked else int(self.header("content-length") or 0)
        self.received = 0
        self.trailers = []
        self.complete = self.length == 0

    def header(self, name):
        """The first value of a field, or None."""
        return next((v for n, v in self.headers if n.lower() == name), None)

    def argument(self, preset=None):
        """What follows the word in the path: "0.5" in /delay/0.5."""
        words = self.path.split("/")
        return words[2] if len(words) > 2 and words[2] else preset

    async def body(self):
        """The body's pieces, as they arrive; nothing once it was read."""
        if self.complete:
            return
        if self.chunked:
            async for piece in self._chunks():
                yield piece
        else:
            while self.received < self.length:
                piece = await self.reader.read(min(PIECE, self.length - self.received))
                if not piece:
                    raise Gone
                self.received += len(piece)
                yield piece
        self.complete = True

    async def _chunks(self):
        while True:
            line = await self.reader.readuntil(b"\r\n")
            left = int(line.split(b";")[0], 16)
            if left == 0:
                break
            while left:
                piece = await self.reader.read(min(PIECE, left))
                if not piece:
                    raise Gone
                left -= len(piece)
                self.received += len(piece)
                yield piece
            if await self.reader.readexactly(2) != b"\r\n":
                raise BadRequest("chunk without end")
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            self.trailers.append(line.decode("latin-1").rstrip().split(":", 1))

    async def skip(self):
        """Reads what is left of the body; False when that is too much."""
        if self.complete:
            return True
        start = self.received
        async for _ in self.body():
            if self.received - start > MAX_SKIPPED:
                return False
        return True


class Connection:
    """One accepted connection, and what it answers."""

    def __init__(self, backend, reader, writer):
        self.backend = backend
        self.reader = reader
        self.writer = writer
        self.number = 0
        self.requests = 0
        self.trapped = False
        self.keep = True

    async def run(self):
        """Requests until either side has had enough."""
        while self.keep:
            head = await self.reader.readuntil(b"\r\n\r\n")
            request = Request(self.reader, head[:-4])
            if self.trapped:
                raise Gone
            await self.serve(request)
            if not await request.skip():
                return

    async def serve(self, request):
        """Finds the answer by the first word of the path."""
        if self.backend.fault and request.path not in ("/set", "/connections", self.backend.spared):
            request.path = self.backend.fault
        word = request.path.split("/")[1] if request.path.startswith("/") else ""
        if word != "connections":
            self.requests += 1
            self.backend.requests += 1
            if self.requests == 1:
                self.backend.used += 1
                self.number = self.backend.used
        connection = (request.header("connection") or "").lower()
        if request.version == "HTTP/1.0" or "close" in connection:
            self.keep = False
        if (request.header("expect") or "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "delay" in request.query:
            await asyncio.sleep(float(request.query["delay"]))
        answer = getattr(self, "do_" + word, None) if word.isalpha() else None
        await (answer or self.hello)(request)

    # ---- writing ----

    async def send(self, data):
        """Writes, and waits while the other side does not read: nothing piles up here."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_head(self, status, fields, reason="OK"):
        """A response head; `fields` in order."""
        if not self.keep and not any(n.lower() == "connection" for n, _ in fields):
            fields = [*fields, ("Connection", "close")]
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{n}: {v}" for n, v in fields), "", ""]
        await self.send("\r\n".join(lines).encode("latin-1"))

    async def send_chunk(self, data):
        """One chunk; an empty one would be the end."""
        if data:
            await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self, request, document, status=200, fields=()):
        """A JSON document, whole."""
        async for _ in request.body():
            pass
        document = {**document, "body_length": request.received}
        if request.trailers:
            document["trailers"] = request.trailers
        body = (json.dumps(document) + "\n").encode()
        if "close" in request.query:
            self.keep = False
        framing = [("Content-Type", "application/json")]
        if status != 204 and status != 304:
            framing.append(("Content-Length", str(len(body))))
        await self.send_head(status, [*framing, *fields])
        if request.method != "HEAD" and status not in (204, 304):
            await self.send(body)

    # ---- answers ----

    async def hello(self, request, status=200, fields=()):
        """What every other path says."""
        await self.answer(request, {
            "message": f"hello from {self.backend.name}", "name": self.backend.name,
            "method": request.method, "path": request.target, "version": request.version,
            "headers": request.headers, "connection": self.number, "request": self.requests,
        }, status, [("X-Backend", self.backend.name), *fields])

    async def do_status(self, request):
        """/status/503"""
        await self.hello(request, int(request.argument("200")))

    async def do_delay(self, request):
        """/delay/0.5"""
        await asyncio.sleep(float(request.argument("1")))
        await self.hello(request)

    async def do_stream(self, request):
        """/stream/104857600"""
        size = int(request.argument("0"))
        chunked = request.query.get("chunked") == "1"
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))
        await self.send_head(200, [("Content-Type", "application/octet-stream"), framing])
        if request.method == "HEAD":
            return
        for piece in pattern_pieces(size):
            await (self.send_chunk(piece) if chunked else self.send(piece))
        if chunked:
            await self.send(b"0\r\n\r\n")

    async def do_echo(self, request):
        """/echo"""
        chunked = request.chunked or request.query.get("chunked") == "1"
        framing = (("Transfer-Encoding", "chunked") if chunked
                   else ("Content-Length", str(request.length)))
        await self.send_head(200, [("Content-Type", "application/octet-stream"), framing])
        async for piece in request.body():
            await (self.send_chunk(piece) if chunked else self.send(piece))
        if chunked:
            await self.send(b"0\r\n\r\n")

    async def do_sink(self, request):
        """/sink"""
        await asyncio.sleep(float(request.query.get("pause", "0")))
        digest = hashlib.sha256()
        async for piece in request.body():
            digest.update(piece)
        await self.answer(request, {"bytes": request.received, "sha256": digest.hexdigest(),
                                    "chunked": request.chunked})

    async def do_close(self, request):
        """/close"""
        await request.skip()
        raise Gone

    async def do_reset(self, request):
        """/reset"""
        await request.skip()
        self.reset()

    def reset(self):
        """The connection ends with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Gone

    async def do_garbage(self, request):
        """/garbage"""
        await request.skip()
        await self.send(b"\x16\x03\x01 this is not the protocol you are looking for\r\n\r\n")
        raise Gone

    async def do_partial(self, request):
        """/partial"""
        await request.skip()
        if request.query.get("chunked") == "1":
            await self.send_head(200, [("Transfer-Encoding", "chunked")])
            await self.send_chunk(pattern(0, 500))
        else:
            await self.send_head(200, [("Content-Length", "1000")])
            await self.send(pattern(0, 500))
        if request.query.get("reset") == "1":
            self.reset()
        raise Gone

    async def do_slowhead(self, request):
        """/slowhead/2"""
        await request.skip()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Slow: yes\r\n\r\n"
        for byte in head:
            await self.send(bytes([byte]))
            await asyncio.sleep(float(request.argument("2")) / len(head))
        await self.send(b"slow\n")

    async def do_nolength(self, request):
        """/nolength/BYTES"""
        await request.skip()
        await self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        for piece in pattern_pieces(int(request.argument("5000"))):
            await self.send(piece)
        raise Gone

    async def do_hops(self, request):
        """/hops"""
        await self.hello(request, fields=[
            ("Connection", "keep-alive, X-Drop-Me"), ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"), ("X-Drop-Me", "1"), ("X-Keep-Me", "1"),
            ("Set-Cookie", "one=1"), ("Set-Cookie", "two=2")])

    async def do_hints(self, request):
        """/hints"""
        await self.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        await self.hello(request)

    async def do_lastone(self, request):
        """/lastone"""
        await self.hello(request)
        raise Gone

    async def do_trap(self, request):
        """/trap"""
        await self.hello(request)
        self.trapped = True

    async def do_raw(self, request):
        """/raw"""
        data = bytearray()
        async for piece in request.body():
            data += piece
            if len(data) > MAX_RAW:
                raise BadRequest("too much to say")
        await self.send(bytes(data))
        if request.query.get("hold"):
            await asyncio.sleep(float(request.query["hold"]))
        raise Gone

    async def do_upgrade(self, request):
        """/upgrade"""
        await self.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                        b"Upgrade: " + (request.header("upgrade") or "echo").encode() + b"\r\n\r\n")
        while piece := await self.reader.read(PIECE):
            await self.send(piece)
        raise Gone

    async def do_healthz(self, request):
        """/healthz"""
        await self.answer(request, {"status": self.backend.health}, self.backend.health)

    async def do_set(self, request):
        """/set?health=503"""
        b = self.backend
        b.health = int(request.query.get("health", b.health))
        b.fault = request.query.get("fault", b.fault)
        b.spared = request.query.get("spare", b.spared)
        await self.answer(request, {"health": b.health, "fault": b.fault, "spare": b.spared})

    async def do_connections(self, request):
        """/connections"""
        b = self.backend
        await self.answer(request, {"accepted": b.accepted, "open": b.open, "used": b.used,
                                    "requests": b.requests})


class Backend:
    """The listening side, and what it counts."""

    def __init__(self, name):
        self.name = name
        self.accepted = self.open = 0
        self.used = 0       # connections that carried a request other than /connections
        self.requests = 0
        self.health = 200
        self.fault = self.spared = ""
        self.server = None

    async def start(self, host, port):
        """Listens; returns the port."""
        self.server = await asyncio.start_server(self.on_connection, host, port, limit=2 * PIECE,
                                                 backlog=1024)
        return self.server.sockets[0].getsockname()[1]

    async def on_connection(self, reader, writer):
        """One connection from its beginning to its end."""
        self.accepted += 1
        self.open += 1
        writer.transport.set_write_buffer_limits(high=PIECE)
        try:
            await Connection(self, reader, writer).run()
        except (BadRequest, ValueError) as e:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n"
                         b"Connection: close\r\nX-Why: %r\r\n\r\n" % str(e).encode())
        except (Gone, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the other side went, or was meant to be left
        finally:
            self.open -= 1
            writer.close()


async def serve(args):
    """Runs until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    backend = Backend(args.name)
    try:
        port = await backend.start(args.host, args.port)
    except OSError as e:
        sys.exit(f"backend {args.name} cannot listen on {args.host}:{args.port}: {e.strerror}")
    print(port, flush=True)
    await stop.wait()
    backend.server.close()
    tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="A backend for demonstrations and tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 = a free one")
    parser.add_argument("--name", default="a", help="what it calls itself")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
