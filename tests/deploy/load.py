"""Load on one address: every request on a connection of its own, so that a listener that is not there shows at once."""
import collections
import socket
import threading


class Load:
    """Some threads that ask until they are told to stop. `answers` counts statuses, and words for what was none."""

    def __init__(self, port, threads=4, seconds=10.0):
        self.port = port
        self.seconds = seconds
        self.answers = collections.Counter()
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join(self.seconds + 5)

    def count(self, what):
        """How often that was seen so far."""
        with self.lock:
            return self.answers[what]

    def _run(self):
        while not self.done.is_set():
            word = self._ask()
            with self.lock:
                self.answers[word] += 1

    def _ask(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), self.seconds) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := s.recv(65536):
                    answer += piece
            return int(answer.split(b" ", 2)[1]) if answer else "closed"
        except ConnectionRefusedError:
            return "refused"
        except ConnectionResetError:
            return "reset"
        except socket.timeout:
            return "timeout"
