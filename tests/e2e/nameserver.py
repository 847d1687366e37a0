"""A DNS server on loopback that answers what it is told to, and something else from the next moment on."""
import socket
import struct
import threading

TYPE_A, CLASS_IN = 1, 1
NAME_ERROR = 3


class NameServer:
    """Answers A queries for the names in `names`: {"pool.test": ["127.0.0.1"]}. Others do not exist."""

    def __init__(self, names, ttl=1):
        self.names = names
        self.ttl = ttl
        self.queries = 0
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self.run)
        self.closing = False

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join()
        self.sock.close()

    @property
    def address(self):
        """Where it is asked."""
        return f"127.0.0.1:{self.port}"

    def run(self):
        """Until it is closed."""
        while True:
            query, client = self.sock.recvfrom(4096)
            if self.closing:
                return
            self.queries += 1
            self.sock.sendto(self.answer(query), client)

    def answer(self, query):
        """The response to a query of one question."""
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        (kind,) = struct.unpack_from("!H", query, at + 1)
        question = query[12:at + 5]
        known = self.names.get(".".join(labels))
        addresses = known if known and kind == TYPE_A else []
        flags = 0x8180 | (0 if known is not None else NAME_ERROR)
        head = query[:2] + struct.pack("!5H", flags, 1, len(addresses), 0, 0)
        records = b"".join(struct.pack("!HHHIH4s", 0xC00C, TYPE_A, CLASS_IN, self.ttl, 4, socket.inet_aton(a))
                           for a in addresses)
        return head + question + records
