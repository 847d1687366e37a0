"""Header edits both ways, and that nothing anybody sends can grow another line out of them."""
import pytest

from harness import route
from rawbackend import RawBackend, ok

EDITS = {
    "request": {"set": {"X-From": "${client_ip}", "X-Id": "<${request_id}>", "User-Agent": "gw"},
                "add": {"X-Where": "${route}@${host}", "X-Plain": "a$b {c}"},
                "remove": ["Cookie", "x-secret"]},
    "response": {"set": {"X-Id": "${request_id}", "Server": "gw"},
                 "add": {"Set-Cookie": "who=${client_ip}", "X-Where": "${route}@${host}"},
                 "remove": ["X-Powered-By"]},
}


def test_all_variables_work_both_ways(make_pair):
    """client_ip, request_id, host and route; text around them stays."""
    def answer(_):
        return ok(b"ok", b"X-Powered-By: magic", b"Server: secret", b"Server: twice", b"Set-Cookie: a=1",
                  b"X-Id: forged", b"X-Where: backend")
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route("named", "/", headers=EDITS)])
        c = pair.client()
        for _ in range(2):
            answer = c.request("GET", "/", [
                ("X-Request-ID", "id-1"), ("Cookie", "a"), ("X-Secret", "1"), ("X-SECRET", "2"), ("X-From", "me"),
                ("x-from", "me too"), ("X-Where", "here"), ("User-Agent", "curl")], host="shop.test:81")
            request = backend.requests[-1]
            assert request.get("x-from") == "127.0.0.1" and request.get("x-id") == "<id-1>"
            assert request.get("user-agent") == "gw"
            assert request.all("x-where") == ["here", "named@shop.test:81"]
            assert request.get("x-plain") == "a$b {c}"
            assert request.all("cookie") == request.all("x-secret") == []
            assert answer.get("x-id") == "id-1" and answer.get("server") == "gw"
            assert answer.all("set-cookie") == ["a=1", "who=127.0.0.1"]
            assert answer.all("x-where") == ["backend", "named@shop.test:81"]
            assert answer.all("x-powered-by") == []


def test_underscores_do_not_slip_past_edits(make_pair):
    """Programs behind CGI-like interfaces cannot tell X_From from X-From."""
    with RawBackend(lambda _: ok()) as backend:
        c = make_pair([backend.route("named", "/", headers=EDITS)]).client()
        c.request("GET", "/", [("X_From", "me"), ("x_secret", "1"), ("User_Agent", "me"), ("X_Plain", "b"), ("X_", "c")])
        names = [name.lower() for name, _ in backend.requests[0].headers]
        assert {"x_from", "x_secret", "user_agent"}.isdisjoint(names) and {"x_plain", "x_"} <= set(names)


def test_trailers_do_not_slip_past_edits(make_pair):
    """Some servers merge them with the fields of the head."""
    got = []

    def answer(request):
        request.peer.until(b"0\r\n")
        got.append(request.peer.until(b"\r\n\r\n"))
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Powered-By: a\r\nX-ID: b\r\nX-Stays: c\r\n\r\n"
    with RawBackend(answer) as backend:
        c = make_pair([backend.route("named", "/", headers=EDITS)]).client()
        c.send_request("POST", "/", [("Transfer-Encoding", "chunked")],
                       b"0\r\nX-Secret: 1\r\nx_from: me\r\nX-Stays: 2\r\n\r\n")
        assert [name for name, _ in c.read_response("POST").trailers] == ["X-Stays"]
        assert got == [b"X-Stays: 2"]


def test_target_names_the_host_where_it_has_one(make_pair):
    """The authority of an absolute target wins over Host, for edits as for routing."""
    with RawBackend(lambda _: ok()) as backend:
        pair = make_pair([backend.route("named", "/", headers=EDITS)])
        c = pair.client()
        c.send("GET http://shop.test/x HTTP/1.1\r\nHost: other.test\r\n\r\n")
        assert c.read_response().get("x-where") == "named@shop.test"
        assert backend.requests[0].get("x-where") == "named@shop.test"
        assert "other.test" not in backend.requests[0].raw.decode()
        c.send("GET / HTTP/1.0\r\n\r\n")
        assert c.read_response().get("x-where") == "named@"


TRICKS = {
    "crlf-in-path": b"GET /a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\n\r\n",
    "crlf-in-query": b"GET /?a=%0d%0aX-Evil:%201%0D%0A%0D%0A HTTP/1.1\r\nHost: x\r\n\r\n",
    "lf-in-path": b"GET /%0aX-Evil:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "crlf-in-host": b"GET / HTTP/1.1\r\nHost: x%0d%0aX-Evil:%201\r\n\r\n",
    "crlf-in-authority": b"GET http://x%0d%0aX-Evil:1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "cr-in-host": b"GET / HTTP/1.1\r\nHost: x\rX-Evil: 1\r\n\r\n",
    "lf-in-value": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\nX-Evil: 1\r\n\r\n",
    "lf-in-request-id": b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\nX-Evil: 1\r\n\r\n",
    "fold-in-request-id": b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\n X-Evil: 1\r\n\r\n",
    "escape-in-request-id": b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: a%0d%0aX-Evil: 1\r\n\r\n",
    "variable-in-request-id": b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: ${host}\r\n\r\n",
    "crlf-in-forwarded": b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4%0d%0aX-Evil: 1\r\n\r\n",
    "own-field-in-disguise": b"GET / HTTP/1.1\r\nHost: x\r\nX_Evil: 1\r\n\r\n",
    "connection-names-own": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: X-From, X-Forwarded-For, Host\r\n\r\n",
    "upgrade-value": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: a\x0bX-Evil: 1\r\n\r\n",
    "nel": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\xc2\x85X-Evil: 1\r\n\r\n",
    "unicode-crlf": "GET /\u560d\u560aX-Evil:1 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
}


@pytest.mark.parametrize("name", TRICKS)
def test_no_header_grows_out_of_what_a_client_sends(make_pair, name):
    """Neither at the backend nor in the answer; what is refused is refused with one clean answer."""
    with RawBackend(lambda _: ok()) as backend:
        pair = make_pair([backend.route("named", "/", headers=EDITS, preserve_host=True)])
        c = pair.client()
        c.send(TRICKS[name])
        answer = c.read_response()
        assert answer.status in (200, 400)
        assert not any("evil" in field.lower() and field.lower() != "x_evil" for field, _ in answer.headers)
        for request in backend.requests:
            names = [field.lower() for field, _ in request.headers]
            assert "x-evil" not in names, request.raw
            assert request.get("x-from") == "127.0.0.1" and request.get("x-forwarded-for") == "127.0.0.1"
            assert len(request.all("host")) == 1
            assert b"\n" not in request.raw.replace(b"\r\n", b"")
        assert len(backend.requests) == (answer.status == 200)


def test_no_header_grows_out_of_a_backends_answer(make_pair):
    """Reason phrase, values and names: what holds a control byte is a 502."""
    answers = [b"HTTP/1.1 200 OK\rX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nX: a\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nX: a\rX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nX: a\x00X-Evil: 1\r\nContent-Length: 0\r\n\r\n",
               b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: a\nX-Evil: 1\r\n\r\n",
               b"HTTP/1.1 103 Hint\r\nX: a\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    with RawBackend(lambda r: answers[int(r.target[1:])]) as backend:
        pair = make_pair([backend.route("named", "/", headers=EDITS, retries=0)])
        c = pair.client()
        for n in range(len(answers)):
            answer = c.request("GET", f"/{n}", [("Connection", "upgrade"), ("Upgrade", "a")])
            assert answer.status == 502 and answer.all("x-evil") == [], n


@pytest.mark.parametrize("edit", [
    {"request": {"set": {"X": "a\r\nX-Evil: 1"}}}, {"response": {"add": {"X": "a\nb"}}},
    {"request": {"set": {"X\r\nX-Evil": "1"}}}, {"request": {"remove": ["X: y"]}},
    {"request": {"set": {"Content-Length": "1"}}}, {"request": {"add": {"Transfer-Encoding": "chunked"}}},
    {"response": {"set": {"Connection": "close"}}}, {"request": {"set": {"Host": "x"}}},
    {"request": {"set": {"": "x"}}}, {"response": {"set": {"X": "a\0b"}}},
], ids=["crlf", "lf", "crlf-in-name", "colon-in-name", "length", "coding", "connection", "host", "no-name", "nul"])
def test_configuration_cannot_inject_either(pair, backend, edit):
    """Such an edit is refused with its place, and what was in force stays."""
    pair.expect_refusal()
    bad = pair.yaml([route("all", "/", backend, headers=edit)])
    assert pair.push(bad, "&wait=10").status >= 400
    assert pair.get("/").status == 200


def test_route_name_cannot_inject_either(pair, backend):
    """A name with a line break is refused, or harmless where it is used."""
    edits = {"request": {"set": {"X-Route": "${route}"}}, "response": {"set": {"X-Route": "${route}"}}}
    pair.expect_refusal()
    answer = pair.push(pair.yaml([route("a\r\nX-Evil: 1", "/", backend, headers=edits)]), "&wait=10")
    if answer.status == 200:
        reply = pair.get("/")
        assert reply.all("x-evil") == [] and "x-evil" not in str(reply.json()["headers"]).lower().split("'")


def test_forwarding_fields_of_an_untrusted_client_are_replaced(make_pair):
    """All of them, in any number and case; none of the forged values is left anywhere."""
    forged = [("X-Forwarded-For", "6.6.6.6"), ("X-FORWARDED-FOR", "6.6.6.6, 7.7.7.7"),
              ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.test"), ("X-Real-IP", "6.6.6.6"),
              ("x-real-ip", "6.6.6.6"), ("Forwarded", "for=6.6.6.6;host=evil.test"),
              ("forwarded", 'for="[::6]"'), ("X-Forwarded-For", "")]
    with RawBackend(lambda _: ok()) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        for headers in (forged, forged[::-1], forged[:1]):
            assert c.request("GET", "/", headers, host="shop.test").status == 200
            request = backend.requests[-1]
            assert request.get("x-forwarded-for") == request.get("x-real-ip") == "127.0.0.1"
            assert request.get("x-forwarded-proto") == "http"
            assert request.get("x-forwarded-host") == "shop.test"
            for trace in (b"6.6.6.6", b"7.7.7.7", b"::6", b"evil"):
                assert trace not in request.raw
