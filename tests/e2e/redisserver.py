"""A real redis-server in a temporary folder, on a port and a socket of its own; never the system's."""
import socket
import subprocess
import tempfile
from pathlib import Path

from harness import free_port, wait_until


class RedisError(Exception):
    """What Redis answers with "-"."""


class Redis:
    """Started at once; start() again after stop() or kill(): empty then."""

    def __init__(self, *options):
        self._folder = tempfile.TemporaryDirectory(prefix="gwp-redis-")
        self.folder = Path(self._folder.name)
        self.socket = self.folder / "redis.sock"
        self.options = options
        self.port = free_port()
        self.process = None
        self.start()

    def start(self):
        """Until it answers."""
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket),
             "--save", "", "--appendonly", "no", "--dir", str(self.folder), "--daemonize", "no",
             *map(str, self.options)],
            stdin=subprocess.DEVNULL, stdout=open(self.folder / "log", "ab"), stderr=subprocess.STDOUT)

        def answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                s.sendall(b"PING\r\n")
                return s.recv(100)
        wait_until(answers, "redis-server answers")
        return self

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def close(self):
        """The end."""
        self.kill()
        self._folder.cleanup()

    @property
    def url(self):
        """As redis_url wants it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def ask(self, *words, user=None, password=None):
        """One command on a connection of its own; numbers, texts, lists or None."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as s, s.makefile("rb") as f:
            if password:
                login = ["AUTH", user, password] if user else ["AUTH", password]
                self._send(s, login)
                self._read(f)
            self._send(s, words)
            return self._read(f)

    @staticmethod
    def _send(s, words):
        parts = [str(w).encode() for w in words]
        s.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))

    def _read(self, f):
        line = f.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        count = int(rest)
        if count < 0:
            return None
        if kind == b"*":
            return [self._read(f) for _ in range(count)]
        data = f.read(count + 2)[:-2]
        return data.decode(errors="replace")
