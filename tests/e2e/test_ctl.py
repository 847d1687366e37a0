"""gwpctl: commands, formats, exit codes."""
import os
import pty
import signal
import socket
import subprocess
import threading

import pytest

from harness import BUILD, DEADLINE, free_port, route, run_ctl, wait_until

CTL = BUILD / "gwpctl"

BROKEN = """routes:
  - name: users
    path_prefx: /users
    backends:
      - url: http://127.0.0.1:9001
"""


class Impostor:
    """Listens, and answers every connection with the same bytes."""

    def __init__(self, data, hold=False):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.admin = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.data, self.hold = data, hold
        self.requests = []
        self.kept = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        """Until the listening socket is closed."""
        while True:
            try:
                c, _ = self.server.accept()
            except OSError:
                return
            self.requests.append(c.recv(65536))
            try:
                c.sendall(self.data)
            except OSError:
                pass
            if self.hold:
                self.kept.append(c)
            else:
                c.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.close()
        for c in self.kept:
            c.close()


def ok(body, framing=None):
    """A whole response."""
    framing = framing or f"Content-Length: {len(body)}\r\n"
    return f"HTTP/1.1 200 OK\r\n{framing}Content-Type: application/json\r\n\r\n{body}".encode()


# ---- without a control plane ----

def test_help_lists_commands_and_exit_codes():
    """All that a person needs to go on."""
    for args in (["--help"], ["-h"], ["help"]):
        answer = run_ctl([CTL, *args])
        assert answer.code == 0
        for word in ("push config", "validate", "status", "backends", "routes", "dataplanes",
                     "reload", "drain", "undrain", "weight", "--admin",
                     "GWP_ADMIN", "Exit codes", "64"):
            assert word in answer.out


@pytest.mark.parametrize("command", ["push config", "validate", "status", "backends", "routes",
                                     "dataplanes", "reload", "drain", "undrain", "weight"])
def test_every_command_has_help_with_an_example(command):
    """In three ways of asking."""
    asked = [run_ctl([CTL, *words]) for words in (
        ["help", *command.split()], [*command.split(), "--help"], ["--help", *command.split()])]
    assert all(a.code == 0 and "Examples:" in a.out and f"gwpctl {command}" in a.out for a in asked)
    assert len({a.out for a in asked}) == 1


def test_version_is_told():
    """One line."""
    assert run_ctl([CTL, "--version"]).out.startswith("gwpctl ")


@pytest.mark.parametrize("args", [
    [], ["nonsense"], ["push"], ["push", "config"], ["validate"], ["validate", "a", "b"],
    ["status", "extra"], ["status", "-o", "xml"], ["status", "-o"], ["status", "--dry-run"],
    ["--nonsense", "status"], ["push", "config", "x", "--wait", "soon"],
    ["push", "config", "x", "--wait", "-1"], ["push", "config", "x", "--wait", "nan"],
    ["--admin", "nowhere", "status"], ["--admin", "http://host-without-port", "status"],
    ["--admin", "unix:", "status"], ["--admin", "unix:" + "x" * 200, "status"],
    ["--token", "a\r\nX: y", "status"], ["help", "nonsense"],
], ids=lambda a: "-".join(a)[:30] or "nothing")
def test_wrong_usage_is_64(args):
    """One sentence on standard error, nothing on standard output."""
    answer = run_ctl([CTL, *args])
    assert answer.code == 64, answer
    assert answer.err.startswith("gwpctl: ") and answer.err.count("\n") == 1 and not answer.out


def test_absent_control_plane_is_2(tmp_path):
    """And what to look at."""
    path = tmp_path / "no.sock"
    answer = run_ctl([CTL, "--admin", f"unix:{path}", "status"])
    assert answer.code == 2 and f"not listening on unix:{path}" in answer.err
    assert "is gwp-controlplane running" in answer.err
    admin = f"http://127.0.0.1:{free_port()}"
    answer = run_ctl([CTL, "--admin", admin, "status"])
    assert answer.code == 2 and admin in answer.err


def test_admin_address_comes_from_the_environment(tmp_path):
    """--admin, else GWP_ADMIN, else GWP_ADMIN_SOCKET, else the usual path."""
    env = {"GWP_ADMIN": "unix:/nowhere/one", "GWP_ADMIN_SOCKET": "/nowhere/two"}
    assert "unix:/nowhere/one" in run_ctl([CTL, "status"], env=env).err
    env["GWP_ADMIN"] = ""
    assert "unix:/nowhere/two" in run_ctl([CTL, "status"], env=env).err
    env["GWP_ADMIN_SOCKET"] = ""
    assert "unix:/run/gwp/admin.sock" in run_ctl([CTL, "status"], env=env).err
    assert "unix:/x" in run_ctl([CTL, "status", "--admin=unix:/x"], env=env).err


@pytest.mark.parametrize("data", [
    b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
], ids=["nothing", "ssh", "cut", "no-json", "no-reason", "bad-chunk", "huge"])
def test_nonsense_is_2(data):
    """Whoever answers there is not a control plane."""
    with Impostor(data) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, "status"])
    assert answer.code == 2 and answer.err.startswith("gwpctl: "), answer


def test_endless_answer_is_refused():
    """64 MiB are enough."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 80000000\r\n\r\n"
    with Impostor(head + b"x" * 80000000) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, "status"])
    assert answer.code == 2 and "MiB" in answer.err


@pytest.mark.parametrize("framing", ["chunked", "length", "close", "interim"])
def test_every_framing_is_understood(framing):
    """As different servers and proxies have it."""
    body = '{"dataplanes": [{"name": "dp-9", "state": "in_sync", "workers": 2}]}'
    data = {
        "length": ok(body),
        "close": ok(body, "Connection: close\r\n"),
        "chunked": ok("".join(f"1\r\n{c}\r\n" for c in body) + "0\r\n\r\n",
                      "Transfer-Encoding: chunked\r\n"),
        "interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(body),
    }[framing]
    with Impostor(data) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, "dataplanes"])
    assert answer.code == 0 and "dp-9" in answer.out and "in_sync" in answer.out, answer


def test_complete_answer_is_enough():
    """A server that keeps the connection open does not hold gwpctl up."""
    with Impostor(ok('{"dataplanes": []}'), hold=True) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, "dataplanes"])
    assert answer.code == 0 and "no data plane is connected" in answer.out


@pytest.mark.parametrize("command", ["status", "backends", "routes", "dataplanes"])
@pytest.mark.parametrize("body", [
    "{}", '{"config": null, "routes": null, "dataplanes": null}', "[]",
    '{"routes": [null, 1, {}, {"backends": [{}, null]}], "dataplanes": [null, {}], "config": []}',
], ids=["empty", "null", "array", "strange"])
def test_missing_members_are_gaps(command, body):
    """Another release may say less."""
    with Impostor(ok(body)) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, command])
    assert answer.code == 0, answer


def test_terminal_escapes_do_not_get_through():
    """Names are shown, not obeyed."""
    body = '{"dataplanes": [{"name": "\\u001b[31mred\\u009b2J\\nline"}]}'
    with Impostor(ok(body)) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, "dataplanes"])
    assert "\x1b" not in answer.out and "\x9b" not in answer.out and "?[31mred" in answer.out


def test_token_is_sent_as_bearer():
    """From the option or the environment."""
    for args, env in ((["--token", "abc"], {}), ([], {"GWP_TOKEN": "abc"})):
        with Impostor(ok("{}")) as impostor:
            run_ctl([CTL, "--admin", impostor.admin, "status", *args], env=env)
            assert b"\r\nAuthorization: Bearer abc\r\n" in impostor.requests[0]


def test_push_is_refused_with_the_answer_409():
    """Every data plane's reason is told."""
    body = ('{"error":"refused","message":"1 of 2 data planes refused","generation":3,"dataplanes":'
            '[{"name":"dp-1","accepted":true,"reason":""},'
            '{"name":"dp-2","accepted":false,"reason":"out of ports"}]}')
    data = (f"HTTP/1.1 409 Conflict\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()
    with Impostor(data) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, "push", "config", "-"], stdin="routes: []")
    assert answer.code == 1 and "dp-2: out of ports" in answer.err
    assert "1 of 2 data planes refused" in answer.err


def test_push_without_every_acceptance_is_1():
    """200 alone is not enough."""
    body = '{"generation":4,"previous":3,"dataplanes":[{"name":"dp-1","accepted":null}]}'
    with Impostor(ok(body)) as impostor:
        answer = run_ctl([CTL, "--admin", impostor.admin, "push", "config", "-"], stdin="routes: []")
    assert answer.code == 1 and "no answer yet" in answer.out


def test_source_is_encoded(tmp_path):
    """A file's name cannot add parameters."""
    path = tmp_path / "a&dry_run=1 ü.yaml"
    path.write_text("routes: []")
    with Impostor(ok("{}")) as impostor:
        run_ctl([CTL, "--admin", impostor.admin, "push", "config", path, "--wait", "2.5"])
        line = impostor.requests[0].split(b"\r\n")[0]
    assert line == (b"POST /api/v1/config?wait=2.5&source=a%26dry_run%3D1%20%C3%BC.yaml HTTP/1.1")


# ---- validate ----

def test_validate_needs_no_control_plane(tmp_path):
    """Exit 0 and a summary, or 1 and every error."""
    good = tmp_path / "good.yaml"
    good.write_text(BROKEN.replace("prefx", "prefix"))
    answer = run_ctl([CTL, "validate", good])
    assert answer.code == 0 and "good.yaml is valid: 1 route, 1 backend" in answer.out, answer
    bad = tmp_path / "bad.yaml"
    bad.write_text(BROKEN)
    answer = run_ctl([CTL, "validate", bad])
    assert answer.code == 1 and 'bad.yaml:3:5: error: unknown key "path_prefx"' in answer.err
    assert 'did you mean "path_prefix"?' in answer.err and not answer.out


def test_validate_reads_standard_input_and_speaks_json():
    """For programs."""
    answer = run_ctl([CTL, "-o", "json", "validate", "-"], stdin=BROKEN)
    assert answer.code == 1 and answer.json()["valid"] is False
    places = [(d["line"], d["column"], d["severity"]) for d in answer.json()["diagnostics"]]
    assert (3, 5, "error") in places
    answer = run_ctl([CTL, "validate", "-", "-o", "json"], stdin=BROKEN.replace("prefx", "prefix"))
    assert answer.code == 0 and answer.json() == {"valid": True, "diagnostics": []}


def test_missing_file_is_told(tmp_path):
    """By validate and by push."""
    for command in (["validate"], ["push", "config"]):
        answer = run_ctl([CTL, *command, tmp_path / "no.yaml"])
        assert answer.code == 1 and "No such file" in answer.err, answer


# ---- with a pair ----

@pytest.mark.parametrize("command", ["status", "backends", "routes", "dataplanes"])
def test_reading_commands_speak_table_and_json(pair, command):
    """The format's option may stand before or after the command."""
    table = pair.ctl(command)
    assert table.code == 0 and table.out and "\x1b" not in table.out
    before, after = pair.ctl("-o", "json", command), pair.ctl(command, "-o", "json")
    assert before.code == after.code == 0
    assert before.json().keys() == after.json().keys()


def test_status_tells_generation_and_data_plane(pair):
    """And agrees with the API."""
    answer = pair.ctl("status")
    assert "dp-1" in answer.out and "in_sync" in answer.out
    assert f"generation {pair.generation()} from " in answer.out and "gateway.yaml" in answer.out
    assert pair.ctl("status", "-o", "json").json()["dataplanes"][0]["pid"] == pair.dataplane.pid


def test_routes_and_backends_are_told(pair, backend):
    """With the route's place and the backend's address."""
    assert "gateway.yaml:" in pair.ctl("routes").out
    answer = pair.ctl("backends").out
    assert backend.url in answer and f"127.0.0.1:{backend.port}" in answer


def test_commands_work_over_tcp(pair):
    """http://HOST:PORT for reading."""
    admin = f"http://127.0.0.1:{pair.admin_port}"
    assert pair.ctl("status", admin=admin).code == 0
    assert pair.ctl("reload", admin=admin).code == 1


def test_push_speaks_json(pair, backend):
    """Taken or not."""
    pair.expect_refusal()
    text = pair.yaml([route("new", "/new", backend)])
    answer = pair.ctl("push", "config", "-", "-o", "json", stdin=text)
    assert answer.code == 0 and answer.json()["dataplanes"][0]["accepted"] is True
    assert answer.json()["unchanged"] is False
    refused = pair.ctl("push", "config", "-", "-o", "json", stdin=BROKEN)
    assert refused.code == 1 and refused.json()["error"] == "invalid_config"


def test_colours_are_for_terminals(pair):
    """A terminal gets them, unless NO_COLOR says otherwise."""
    def on_terminal(env):
        master, slave = pty.openpty()
        argv = [str(CTL), "--admin", f"unix:{pair.admin_socket}", "status"]
        with subprocess.Popen(argv, stdout=slave, env={**os.environ, **env}) as child:
            os.close(slave)
            shown = b""
            try:
                while piece := os.read(master, 65536):
                    shown += piece
            except OSError:
                pass  # how a pseudo-terminal says that the other side has gone
            os.close(master)
            assert child.wait(DEADLINE) == 0
        return shown
    assert b"\x1b[32min_sync" in on_terminal({"NO_COLOR": ""})
    assert b"\x1b" not in on_terminal({"NO_COLOR": "1"})


def test_full_disk_is_told(pair):
    """Half an answer must not look like a whole one."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([CTL, "--admin", f"unix:{pair.admin_socket}", "status"], stdout=full,
                              stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert done.returncode == 74 and b"gwpctl:" in done.stderr


def test_wait_ready_returns_once_it_is(make_pair, backend):
    """It may be asked before anything runs; without an answer in time the reason is told."""
    pair = make_pair([route("all", "/", backend)], start=False)
    refused = pair.ctl("wait", "ready", "--wait", "0")
    assert refused.code == 2 and str(pair.admin_socket) in refused.err
    waiting = subprocess.Popen([BUILD / "gwpctl", "--admin", f"unix:{pair.admin_socket}", "wait", "ready",
                                "--wait", str(DEADLINE)])
    pair.start()
    assert waiting.wait(DEADLINE) == 0
    pair.dataplane.stop()
    wait_until(lambda: not pair.status()["dataplanes"], "the data plane is gone")
    answer = pair.ctl("wait", "ready", "--wait", "0")
    assert answer.code == 1 and "no data plane connected" in answer.err


def test_wait_drained_returns_when_the_last_data_plane_has_gone(pair):
    """What the control plane's preStop in a pod does: it stays until the data plane has finished."""
    assert pair.ctl("wait", "drained", "--wait", "0").code == 1
    slow = pair.client()
    slow.send(b"GET /delay/1 HTTP/1.1\r\nHost: gateway\r\n\r\n")
    wait_until(lambda: pair.metric("gateway_active_connections") >= 1 or None, "the request is under way")
    pair.dataplane.signal(signal.SIGTERM)
    assert pair.ctl("wait", "drained", "--wait", "20").code == 0
    assert slow.read_response().status == 200
    assert pair.ctl("wait", "nonsense").code == 64
