"""Who the client is: the peer, or whom a trusted peer names, in X-Forwarded-For or by the PROXY protocol."""
import socket
import struct

import pytest

from harness import route, wait_until

TRUST = {"trusted_proxies": ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]}


def fields(answer, name):
    """The values of a field as the backend saw them."""
    return [v for n, v in answer.json()["headers"] if n.lower() == name]


@pytest.fixture
def trusting(make_pair, backend):
    """A pair that believes its clients."""
    return make_pair([route("all", "/", backend)], server=TRUST)


@pytest.mark.parametrize("given, client", [
    (["203.0.113.9"], "203.0.113.9"),
    (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
    (["203.0.113.9, 10.1.2.3"], "203.0.113.9"),
    (["198.51.100.1", "203.0.113.9, 10.1.2.3", "10.9.9.9"], "203.0.113.9"),
    (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
    (["2001:db9::7, 2001:db8::1"], "2001:db9::7"),
    (["[2001:db9::7]:4711"], "2001:db9::7"),
    (["203.0.113.9:4711"], "203.0.113.9"),
    (["203.0.113.9, nonsense, 10.1.2.3"], "10.1.2.3"),
])
def test_walk_ends_at_the_first_who_is_not_trusted(trusting, given, client):
    """From the right; what a trusted peer said is passed on with the peer behind it."""
    answer = trusting.get("/", [("X-Forwarded-For", v) for v in given])
    assert fields(answer, "x-real-ip") == [client]
    assert fields(answer, "x-forwarded-for") == [", ".join([*given, "127.0.0.1"])]
    wait_until(lambda: [x["client"] for x in trusting.access_lines()] == [client], "the client is logged")


def test_trusted_peer_names_host_and_scheme(trusting):
    """They are kept; Forwarded gets one element more."""
    answer = trusting.get("/", [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example"),
                                ("X-Forwarded-Port", "8443"),
                                ("Forwarded", "for=203.0.113.9;proto=https")])
    assert fields(answer, "x-forwarded-proto") == ["https"]
    assert fields(answer, "x-forwarded-host") == ["shop.example"]
    assert fields(answer, "x-forwarded-port") == ["8443"]
    assert fields(answer, "forwarded") == ['for=203.0.113.9;proto=https, for=127.0.0.1;host="gateway.test";proto=http']


def test_stranger_is_not_believed(pair):
    """Whatever came under these names is replaced."""
    answer = pair.get("/", [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"),
                            ("X-Forwarded-Host", "evil.example"), ("X-Real-IP", "203.0.113.9"),
                            ("Forwarded", "for=203.0.113.9")])
    assert fields(answer, "x-forwarded-for") == ["127.0.0.1"]
    assert fields(answer, "x-real-ip") == ["127.0.0.1"]
    assert fields(answer, "x-forwarded-proto") == ["http"]
    assert fields(answer, "x-forwarded-host") == ["gateway.test"]
    assert fields(answer, "forwarded") == ['for=127.0.0.1;host="gateway.test";proto=http']


def v1(text):
    """A PROXY header of version 1."""
    return f"PROXY {text}\r\n".encode()


def v2(command, family, addresses, tlvs=b""):
    """A PROXY header of version 2."""
    body = addresses + tlvs
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


V4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 4711, 80)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db9::7") + bytes(16) + struct.pack("!HH", 4711, 80)


@pytest.mark.parametrize("header, client", [
    (v1("TCP4 203.0.113.9 10.0.0.1 4711 80"), "203.0.113.9"),
    (v1("TCP6 2001:db9::7 ::1 4711 80"), "2001:db9::7"),
    (v1("UNKNOWN"), "127.0.0.1"),
    (v2(1, 0x11, V4), "203.0.113.9"),
    (v2(1, 0x21, V6, b"\x04\x00\x03abc"), "2001:db9::7"),
    (v2(0, 0x00, b""), "127.0.0.1"),
])
def test_proxy_header_names_the_client(make_pair, backend, header, client):
    """Whole, or one byte at a time; for the whole connection."""
    pair = make_pair([route("all", "/", backend)], server={**TRUST, "proxy_protocol": True})
    for pieces in ([header], [bytes([b]) for b in header]):
        c = pair.client()
        for piece in pieces:
            c.send(piece)
        for _ in range(2):
            assert fields(c.request("GET", "/"), "x-forwarded-for")[0].split(", ")[-1] == client
            assert fields(c.request("GET", "/"), "x-real-ip") == [client]


@pytest.mark.parametrize("header", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", v1("TCP4 1.2.3.4"), v2(1, 0x11, b"abc")])
def test_trusted_peer_without_proxy_header_is_turned_away(make_pair, backend, header):
    """It promised one; guessing would let anybody choose an address."""
    pair = make_pair([route("all", "/", backend)], server={**TRUST, "proxy_protocol": True})
    c = pair.client()
    c.send(header)
    assert c.is_closed()
    wait_until(lambda: pair.metric("gateway_bad_proxy_headers_total") == 1, "it is counted")


def test_stranger_may_not_send_a_proxy_header(make_pair, backend):
    """To whom is not trusted it is no HTTP."""
    pair = make_pair([route("all", "/", backend)], server={"trusted_proxies": ["10.0.0.0/8"], "proxy_protocol": True})
    c = pair.client()
    c.send(v1("TCP4 203.0.113.9 10.0.0.1 4711 80") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert c.read_response().status in (400, 501)
    assert pair.get("/").status == 200


def test_trailers_travel_both_ways(pair):
    """And TE says so, for this hop."""
    c = pair.client()
    c.send("POST / HTTP/1.1\r\nHost: x\r\nTE: trailers, deflate\r\nTransfer-Encoding: chunked\r\n\r\n"
           "5\r\nhello\r\n0\r\nX-Checksum: abc\r\nX-More: d\r\n\r\n")
    seen = c.read_response().json()
    assert [[n, v.strip()] for n, v in seen["trailers"]] == [["X-Checksum", "abc"], ["X-More", "d"]]
    sent = dict(seen["headers"])
    assert sent["TE"] == "trailers" and sent["Connection"] == "TE"


def test_trailers_of_a_response_reach_the_client(pair):
    """Those that may be trailers; a Content-Length behind the body is none."""
    raw = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
           b"X-Checksum: abc\r\nContent-Length: 7\r\n\r\n")
    answer = pair.request("POST", "/raw", body=raw)
    assert answer.body == b"hello"
    assert [(n, v.strip()) for n, v in answer.trailers] == [("X-Checksum", "abc")]
