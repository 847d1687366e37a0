"""Steady verified load: each response is checked for identity and content, and nothing is tried twice."""
import asyncio
import collections
import json
import threading
import time

TIMEOUT = 20.0


class Load:
    """Clients on a loop of their own. Half of them keep their connection, half connect anew for each request.

    Outcomes: ok; stand_in (503 of the control plane); other (another status); wrong (not the answer to this request);
    refused (no connection); lost (the connection ended with the request under way).
    """

    def __init__(self, address, clients=8, pause=0.002):
        self.address, self.clients, self.pause = address, clients, pause
        self.counts = collections.Counter()
        self.examples = {}
        self.last_ok = self.longest = 0.0
        self.ending = False
        self.thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self):
        self.last_ok = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join(TIMEOUT + 5)

    def take(self):
        """What has happened since it was asked last: the counts, and the longest time without an answer in seconds."""
        counts, self.counts = self.counts, collections.Counter()
        longest, self.longest = self.longest, 0.0
        return counts, longest

    async def _main(self):
        await asyncio.gather(*(self._client(n, keep=n % 2 == 0) for n in range(self.clients)))

    async def _client(self, number, keep):
        turn, streams = 0, None
        while not self.ending:
            turn += 1
            if streams is None:
                try:
                    streams = await asyncio.wait_for(asyncio.open_connection(*self.address), TIMEOUT)
                except (OSError, asyncio.TimeoutError) as e:
                    self._note("refused", e)
                    await asyncio.sleep(self.pause)
                    continue
            reusable = await self._request(streams, f"/drill/{number}/{turn}", keep)
            if not (keep and reusable):
                streams[1].close()
                streams = None
            await asyncio.sleep(self.pause)
        if streams:
            streams[1].close()

    async def _request(self, streams, target, keep):
        reader, writer = streams
        close = "" if keep else "Connection: close\r\n"
        try:
            writer.write(f"GET {target} HTTP/1.1\r\nHost: drill\r\nX-Drill: {target}\r\n{close}\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
            fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
            body = await asyncio.wait_for(reader.readexactly(int(fields.get("content-length", 0))), TIMEOUT)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as e:
            self._note("lost", e)
            return False
        self._judge(int(head.split(b" ", 2)[1]), body, target)
        return fields.get("connection", "") != "close"

    def _judge(self, status, body, target):
        """Is it the answer of the right backend to this very request?"""
        try:
            document = json.loads(body)
        except ValueError:
            document = {}
        if status == 503 and document.get("error") == "no_data_plane":
            self._note("stand_in", body)
        elif status != 200:
            self._note("other", (status, body))
        elif document.get("message") != "hello from a" or document.get("path") != target:
            self._note("wrong", body)
        else:
            now = time.monotonic()
            self.longest = max(self.longest, now - self.last_ok)
            self.last_ok = now
            self.counts["ok"] += 1

    def _note(self, outcome, example):
        self.counts[outcome] += 1
        self.examples.setdefault(outcome, repr(example))
