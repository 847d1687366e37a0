"""Stands between the two programs on the Unix socket and makes one of them a release that is not written yet: each frame may be
edited on its way. Descriptors go along."""
import os
import socket
import struct
import threading

HELLO, WELCOME, SNAPSHOT, SNAPSHOT_RESULT = 1, 2, 10, 11


def raw_frame(kind, payload, fds=0):
    """A frame of the protocol."""
    return struct.pack(">IHBB", len(payload), kind, fds, 0) + payload


def varint(n):
    """A number as messages have it."""
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    """A field of a message: a number, text or bytes. Appended to a message it adds to what that holds."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


class Relay:
    """Listens at `path` for data planes, connects each to the control plane at `target`. edit(kind, payload, from_dataplane)
    returns the payload that goes on."""

    def __init__(self, path, target, edit):
        self.target, self.edit = str(target), edit
        self.seen = []  # (kind, payload, from_dataplane), as they came
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """No more sessions; those that are open end with their programs."""
        self.listener.close()

    def _accept(self):
        while True:
            try:
                dataplane, _ = self.listener.accept()
            except OSError:
                return
            controlplane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                controlplane.connect(self.target)
            except OSError:
                dataplane.close()
                continue
            for a, b, from_dataplane in ((dataplane, controlplane, True), (controlplane, dataplane, False)):
                threading.Thread(target=self._pump, args=(a, b, from_dataplane), daemon=True).start()

    def _pump(self, a, b, from_dataplane):
        data, fds = b"", []
        try:
            while True:
                piece, more, _, _ = socket.recv_fds(a, 65536, 64)
                data, fds = data + piece, fds + more
                if not piece:
                    break
                while len(data) >= 8 and len(data) >= 8 + struct.unpack(">I", data[:4])[0]:
                    length, kind, count = struct.unpack(">IHB", data[:7])
                    payload, data = data[8:8 + length], data[8 + length:]
                    self._send(b, kind, payload, fds[:count], from_dataplane)
                    fds = fds[count:]
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        a.close()

    def _send(self, to, kind, payload, fds, from_dataplane):
        self.seen.append((kind, payload, from_dataplane))
        frame = raw_frame(kind, self.edit(kind, payload, from_dataplane), len(fds))
        if fds:
            socket.send_fds(to, [frame], fds)
        else:
            to.sendall(frame)
        for fd in fds:
            os.close(fd)
