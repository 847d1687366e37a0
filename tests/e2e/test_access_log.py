"""The access log and traces: every line is JSON whatever clients send, and says what happened."""
import json
import os
import re
import signal
import time

from harness import SCALE, route, wait_until

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MADE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


def logged(pair, request_id):
    """The line of that request."""
    def find():
        return [line for line in pair.access_lines() if line.get("request_id") == request_id]
    return wait_until(find, f"the line of {request_id} is written")[0]


def seen_by(answer, name):
    """Values of a field as the backend got it."""
    return [v for n, v in answer.json()["headers"] if n.lower() == name]


def test_a_line_says_what_operators_look_for(make_pair, backend):
    """Limiter, breaker, durations, attempts, generation, endpoint, ids."""
    pair = make_pair([route("all", "/", backend, circuit_breaker={"min_requests": 1000},
                            rate_limit={"rate": 100, "burst": 100})])
    answer = pair.request("POST", "/delay/0.05?x=1", [("X-Request-ID", "one"), ("User-Agent", "me"), ("Referer", "http://r/"),
                                                       ("traceparent", PARENT)], b"12345")
    line = logged(pair, "one")
    expected = {"level": "info", "msg": "request", "client": "127.0.0.1", "method": "POST", "path": "/delay/0.05?x=1",
                "protocol": "HTTP/1.1", "status": 200, "reason": "ok", "route": "all", "limiter": "allowed", "breaker": "closed",
                "generation": pair.generation(), "endpoint": f"127.0.0.1:{backend.port}", "upstream_status": 200, "attempts": 1,
                "bytes_in": 5, "bytes_out": len(answer.body), "user_agent": "me", "referer": "http://r/", "traceparent": PARENT,
                "trace_id": PARENT[3:35], "span_id": PARENT[36:52]}
    assert {k: line[k] for k in expected} == expected
    assert 50 <= line["upstream_ms"] <= line["duration_ms"] and 0 <= line["connect_ms"] <= line["upstream_ms"]
    assert abs(time.time() - time.mktime(time.strptime(line["ts"][:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 60


def test_the_backends_time_is_not_the_clients(make_pair, backend):
    """A client that takes its time with the answer makes the whole longer, not the backend's part."""
    pair = make_pair([route("all", "/", backend)])
    with pair.client() as c:
        c.send("GET /stream/30000 HTTP/1.1\r\nHost: x\r\nX-Request-ID: slow\r\n\r\n")
        assert c.read_response().status == 200
    line = logged(pair, "slow")
    assert line["upstream_ms"] <= line["duration_ms"]


def test_hostile_bytes_are_valid_json_in_utf8(pair):
    """Whatever stands in target and fields: the line is one line, UTF-8 and JSON."""
    hostile = [b"\xff\xfe\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc2\x9b31m\xc2\x85", b"a\"b\\c", b"\xe2\x80\xa8", b"\xc0\xaf"]
    with pair.client() as c:
        for i, value in enumerate(hostile):
            c.send(b"GET /?q=%d HTTP/1.1\r\nHost: x\r\nX-Request-ID: hostile-%d\r\nUser-Agent: %b\r\nReferer: %b\r\n\r\n"
                   % (i, i, value, value))
            assert c.read_response().status in (200, 400)
    for target in (b"/%00%ff", b"/\xff\xfe", b"/\"\\\x7f", b"/" + b"\xc3" * 3000):
        with pair.client() as c:
            c.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nX-Request-ID: target\r\n\r\n")
            c.read_response()
    wait_until(lambda: pair.access_log.exists() and pair.access_log.read_bytes().count(b"\n") == len(hostile) + 4, "all lines are there")
    for raw in pair.access_log.read_bytes().splitlines():
        text = raw.decode("utf-8")  # strictly
        json.loads(text)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)


def test_of_what_went_well_a_share_is_logged_of_the_rest_all(make_pair, backend):
    """logging.access_log_sample."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.sections["logging"] = {**pair.document()["logging"], "access_log_sample": 0.25}
    pair.start()
    with pair.client() as c:
        for _ in range(2000):
            c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert c.read_response().status == 200
        for _ in range(50):
            assert c.request("GET", "/status/500").status == 500
            assert c.request("GET", "/status/404").status == 404
        assert c.request("GET", "/", [("X-Request-ID", "bad"), ("Content-Length", "x")]).status == 400
    logged(pair, "bad")
    lines = pair.access_lines()
    count = lambda status: sum(line["status"] == status for line in lines)
    assert count(500) == 50 and count(404) == 50
    assert 400 <= count(200) <= 600  # of 2000, six standard deviations are 116


def test_console_lines_are_for_eyes(make_pair, backend):
    """logging.format: console, both programs and the access log."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.sections["logging"] = {**pair.document()["logging"], "format": "console"}
    pair.start()
    pair.get("/x\x1b"[:2] + "?a=b", [("X-Request-ID", "console")])
    line = wait_until(lambda: pair.access_log.exists() and pair.access_log.read_text(), "a line is there")
    assert re.match(r"\S+Z info 127\.0\.0\.1 GET \S+ /x\?a=b HTTP/1\.1 200 ok [\d.]+ms in=0 out=\d+ route=all endpoint=\S+ id=console\n", line)
    assert pair.get("/", host="a GET b").status == 400
    wait_until(lambda: ' GET "a GET b" / HTTP/1.1 400 bad_request ' in pair.access_log.read_text(), "spaces make no columns")
    assert re.search(r"^\S+Z info  gwp-dataplane rollout: ", pair.dataplane.log(), re.M)
    assert re.search(r"^\S+Z info  gwp-controlplane publisher: ", pair.controlplane.log(), re.M)


def test_application_logs_are_json_lines(pair):
    """Of both programs, with level, time, program, module and sentence. What came before the configuration is for eyes."""
    for program in (pair.controlplane, pair.dataplane):
        documents = [json.loads(line) for line in program.log().splitlines() if line.startswith("{")]
        assert documents and all({"level", "ts", "program", "module", "msg"} <= set(d) for d in documents)


def test_a_file_is_opened_anew_when_it_was_moved_or_sigusr1_came(pair):
    """Nothing is lost, nothing is written twice."""
    pair.get("/", [("X-Request-ID", "before")])
    logged(pair, "before")
    pair.access_log.rename(pair.folder / "access.1")
    pair.dataplane.signal(signal.SIGUSR1)
    wait_until(pair.access_log.exists, "the file is there again")
    pair.get("/", [("X-Request-ID", "after")])
    logged(pair, "after")
    pair.access_log.rename(pair.folder / "access.2")

    def noticed():
        pair.get("/", [("X-Request-ID", "later")])
        return pair.access_log.exists()
    wait_until(noticed, "that it was moved away is noticed without a signal")
    wait_until(lambda: "later" in pair.access_log.read_text(), "and written to")


def test_a_stalled_sink_drops_and_counts_and_slows_nobody(make_pair, backend):
    """A pipe that nobody reads: requests go on, lines are dropped, and each one that is missing was counted."""
    pair = make_pair([route("all", "/", backend)], server={"workers": 1}, start=False)
    pipe = pair.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    pair.sections["logging"] = {**pair.document()["logging"], "access_log": str(pipe)}
    pair.start()
    agent, sent, slowest = "x" * 1900, 0, 0.0
    with pair.client() as c:
        request = f"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\n\r\n"
        while pair.metric("gateway_access_log_dropped_total") == 0:
            for _ in range(200):
                began = time.monotonic()
                c.send(request)
                assert c.read_response().status == 200
                slowest = max(slowest, time.monotonic() - began)
                sent += 1
            assert sent < 20000
    assert slowest < 1 * SCALE
    got = b""

    def drained():
        nonlocal got
        try:
            while True:
                got += os.read(reader, 1 << 20)
        except BlockingIOError:
            pass
        return got.count(b"\n") + pair.metric("gateway_access_log_dropped_total") == sent
    wait_until(drained, "lines that came and lines that were dropped are all lines")
    for line in got.splitlines():
        json.loads(line)
    os.close(reader)


def test_a_valid_trace_is_passed_on_as_it_is(pair):
    """And its tracestate with it."""
    answer = pair.get("/", [("traceparent", PARENT), ("tracestate", "rojo=1"), ("tracestate", "congo=2")])
    assert seen_by(answer, "traceparent") == [PARENT]
    assert seen_by(answer, "tracestate") == ["rojo=1", "congo=2"]


def test_an_invalid_trace_is_left_out_with_its_state(pair):
    """Two parents, upper case, zeros, a state without a parent, a state that is none."""
    for fields in ([("traceparent", PARENT), ("traceparent", PARENT)], [("traceparent", PARENT.upper())],
                   [("traceparent", "00-" + "0" * 32 + PARENT[35:])], [("traceparent", "nonsense")], []):
        answer = pair.get("/", [*fields, ("tracestate", "rojo=1"), ("X-Request-ID", "invalid")])
        assert not seen_by(answer, "traceparent") and not seen_by(answer, "tracestate"), fields
    answer = pair.get("/", [("traceparent", PARENT), ("tracestate", "rojo=1"), ("tracestate", "no state")])
    assert seen_by(answer, "traceparent") == [PARENT] and not seen_by(answer, "tracestate")
    assert "traceparent" not in logged(pair, "invalid")


def test_a_trace_is_made_where_there_is_none(make_pair, backend):
    """server.trace_context: create."""
    pair = make_pair([route("all", "/", backend)], server={"trace_context": "create"})
    made = set()
    for i, fields in enumerate(([], [], [("traceparent", "nonsense")])):
        answer = pair.get("/", [*fields, ("X-Request-ID", f"made-{i}")])
        (parent,) = seen_by(answer, "traceparent")
        assert MADE.fullmatch(parent)
        assert logged(pair, f"made-{i}")["trace_id"] == parent[3:35]
        made.add(parent)
    assert len(made) == 3
    assert seen_by(pair.get("/", [("traceparent", PARENT)]), "traceparent") == [PARENT]
