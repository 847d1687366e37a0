"""Every request case of tests/golden/http1 over a socket: what the gateway answers, and what its backend gets."""
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import DEADLINE, route
from rawhttp import Client, Cut

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "http1"
FILES = sorted(p for p in GOLDEN.glob("*.case") if not p.name.startswith("response-"))
FRAMINGS = {"pass": None, "pass length": "content-length", "pass chunked": "transfer-encoding"}
LETTERS = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
ESCAPE = re.compile(r"\\\{(\d+)\*([^}]*)\}|\\x([0-9a-fA-F]{2})|\\(.)")


def unescape(text):
    """The bytes that a case stands for."""
    out, at = b"", 0
    for m in ESCAPE.finditer(text):
        out += text[at:m.start()].encode("latin-1")
        count, piece, digits, letter = m.groups()
        if count:
            out += unescape(piece) * int(count)
        else:
            out += bytes([int(digits, 16)]) if digits else LETTERS[letter]
        at = m.end()
    return out + text[at:].encode("latin-1")


class Case:
    """One paragraph of a file."""

    def __init__(self, paragraph):
        self.sent = b""
        self.expected = []
        for line in paragraph:
            if line.startswith("= "):
                self.name = line[2:]
            elif line.startswith(">> "):
                self.sent += unescape(line[3:])
            elif line.startswith("-> "):
                self.verdict = line[3:]
            else:
                word, _, rest = line.partition(" ")
                self.expected.append((word, unescape(rest)))

    def wanted(self, word):
        """What is said of it, as texts."""
        return [text.decode("latin-1") for w, text in self.expected if w == word]


def read_cases(path):
    """The cases of a file."""
    paragraph = []
    for line in path.read_text().split("\n") + [""]:
        if not line and any(text.startswith("= ") for text in paragraph):
            yield Case(paragraph)
        if not line:
            paragraph = []
        elif not line.startswith("#"):
            paragraph.append(line)


def send(pair, case):
    """The response to its bytes, sent all at once."""
    with Client(pair.address, DEADLINE) as c:
        try:
            c.send(case.sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a refusal may come before the last byte has gone
        try:
            response = c.read_response("HEAD" if case.sent.startswith(b"HEAD ") else "GET")
            closed = c.is_closed() if response.status >= 400 else None
        except (Cut, ConnectionResetError, socket.timeout) as e:
            return None, repr(e)
        return response, closed


def check_seen(case, seen):
    """Does the backend have what it should, and not what it should not?"""
    framing = FRAMINGS[case.verdict]
    names = [name.lower() for name, _ in seen["headers"]]
    for name in ("content-length", "transfer-encoding"):
        assert names.count(name) == (name == framing), (name, seen)
    assert names.count("host") == 1 and seen["version"] == "HTTP/1.1", seen
    for line in case.wanted("line"):
        assert f"{seen['method']} {seen['path']}" == line
    for field in case.wanted("has"):
        name, value = field.split(": ", 1)
        values = [v for n, v in seen["headers"] if n == name]
        assert values in ([value], [value] * len(values)) and values, (field, seen["headers"])
    for name in case.wanted("not"):
        assert name.lower() not in names, (name, seen["headers"])
    trailers = [f"{name}: {value.strip()}" for name, value in seen.get("trailers", [])]
    for field in case.wanted("trailer"):
        assert field in trailers, (field, trailers)
    for body in case.wanted("body"):
        assert seen["body_length"] == len(body.encode("latin-1"))


def problem(pair, case):
    """What is wrong with the outcome of a case, or None."""
    response, closed = send(pair, case)
    if response is None:
        return f"{case.name}: no response: {closed}"
    if not case.verdict.startswith("pass"):
        if str(response.status) != case.verdict or not closed:
            return f"{case.name}: {response.status} instead of {case.verdict}, closed: {closed}"
        return None
    if response.status != 200:
        return f"{case.name}: {response.status} instead of an answer from the backend: {response.body!r}"
    try:
        if not case.sent.startswith(b"HEAD "):
            check_seen(case, response.json())
    except AssertionError as e:
        return f"{case.name}: {e}"
    return None


@pytest.fixture
def strict_pair(make_pair, backend):
    """A pair that waits for no case longer than a second."""
    return make_pair([route("all", "/", backend)], server={
        "header_timeout_seconds": 1, "read_timeout_seconds": 1})


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_request_has_its_outcome(strict_pair, path):
    """Statuses, and what gets through."""
    cases = list(read_cases(path))
    with ThreadPoolExecutor(8) as pool:
        problems = [p for p in pool.map(lambda case: problem(strict_pair, case), cases) if p]
    assert not problems, f"{len(problems)} of {len(cases)}:\n" + "\n".join(problems)
    assert strict_pair.get("/after").status == 200


def response_problem(pair, case):
    """The same for a response: the backend gives the bytes as its answer, and closes. By PUT, since a
    request that finds a kept connection closed is only sent again when it may be repeated."""
    with Client(pair.address, DEADLINE) as c:
        c.send_request("PUT", "/raw", [("Content-Length", str(len(case.sent)))], case.sent)
        try:
            response = c.read_response("PUT")
        except Cut as cut:
            whole = case.verdict.startswith("pass")
            return f"{case.name}: cut short: {cut.response}" if whole else None
    too_much = case.verdict in ("pass length", "pass chunked") and any(case.wanted("next"))
    if too_much or not case.verdict.startswith("pass"):
        return None if response.status == 502 else f"{case.name}: {response.status} and a clean end"
    status = int(case.sent.split(b" ")[1][:3])
    if response.status != status:
        return f"{case.name}: {response.status} instead of {status}"
    bodies = [text for word, text in case.expected if word == "body"]
    if bodies and response.body != bodies[0]:
        return f"{case.name}: {response.body!r}"
    return None


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("response-*.case")), ids=lambda p: p.stem)
def test_every_response_has_its_outcome(strict_pair, path):
    """What is bad is a 502 or visibly cut short, never a clean end."""
    cases = [c for c in read_cases(path) if not c.sent.startswith(b"HTTP/1.1 1")
             and ("method", b"HEAD") not in c.expected]
    # No more at once than the retries that are always allowed: each may find a connection closed.
    with ThreadPoolExecutor(3) as pool:
        problems = [p for p in pool.map(lambda c: response_problem(strict_pair, c), cases) if p]
    assert not problems, f"{len(problems)} of {len(cases)}:\n" + "\n".join(problems)
    assert strict_pair.get("/after").status == 200
