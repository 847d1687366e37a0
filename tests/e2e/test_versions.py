"""The two programs may be of different releases: the one before, built from history, and this one, both ways; and this one with
a later one, for which a relay stands in that adds to the messages of either side what this release does not know."""
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness import BUILD, ROOT, route, wait_until
from relay import HELLO, SNAPSHOT, SNAPSHOT_RESULT, Relay, field
from test_limit import limited, statuses
from test_takeover import Load, kept

# The last one that knew nothing of leaving sockets; a tag, once there are any, unless GWP_PREVIOUS says otherwise.
BEFORE_KEEPING = "f3aeeeb"


def git(*args):
    """What git prints, or None."""
    done = subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def previous_revision():
    """The release before this one."""
    wanted = os.environ.get("GWP_PREVIOUS") or git("describe", "--tags", "--abbrev=0", "HEAD^") or BEFORE_KEEPING
    return git("rev-parse", "--verify", wanted + "^{commit}")


@pytest.fixture(scope="module")
def previous():
    """The folder of its programs. Without history (a source archive) there is nothing to compare with."""
    revision = previous_revision()
    if revision is None:
        pytest.skip("this is no clone with the history of the release before")
    folder = Path(tempfile.gettempdir()) / f"gwp-previous-{revision}"
    if not (folder / "build" / "gwpctl").exists():
        fresh = Path(tempfile.mkdtemp(prefix="gwp-previous-"))
        archive = subprocess.Popen(["git", "-C", ROOT, "archive", revision], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", fresh], stdin=archive.stdout, check=True)
        assert archive.wait() == 0
        subprocess.run(["make", "-s", "-j2", "-C", fresh, "programs"], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return folder / "build"


def use(program, folder):
    """From now on it is that build's."""
    program.argv[0] = str(folder / Path(program.argv[0]).name)


@pytest.mark.heavy
def test_old_control_plane_new_data_plane(make_pair, backend, previous):
    """It keeps nothing: the data plane opens its own sockets, serves, counts and is told of changes."""
    pair = make_pair([route("all", "/", backend)], start=False)
    use(pair.controlplane, previous)
    pair.start()
    assert pair.get("/").status == 200
    wait_until(lambda: pair.metric("gateway_requests_total") == 1, "it is counted")
    assert pair.push(pair.yaml([route("new", "/new", backend)]), "&wait=10").status == 200
    assert pair.get("/new").status == 200
    assert pair.dataplane.stop() == 0
    pair.dataplane.start()
    pair.wait_ready()
    assert pair.get("/").status in (200, 404)


@pytest.mark.heavy
def test_new_control_plane_old_data_plane(make_pair, backend, previous):
    """It leaves nothing, and nothing is expected of it."""
    pair = make_pair([limited(backend, burst=3)], start=False)
    use(pair.dataplane, previous)
    pair.start()
    assert statuses(pair, 4) == [200, 200, 200, 429]
    wait_until(lambda: pair.metric("gateway_requests_total") == 4, "they are counted")
    assert pair.status()["dataplanes"][0]["role"] == "serving"
    assert pair.push(pair.yaml(server={"max_headers": 50}), "&wait=10").status == 200
    pair.controlplane.kill()
    assert pair.get("/").status in (200, 429)
    pair.controlplane.start()
    pair.wait_ready()


@pytest.mark.heavy
def test_upgrade_from_the_release_before(make_pair, backend, previous):
    """First the control plane, then the data plane, then back again: it serves each time, and nobody takes the other's address."""
    pair = make_pair([route("all", "/", backend)], start=False)
    use(pair.controlplane, previous)
    use(pair.dataplane, previous)
    pair.start()
    with Load(pair.address) as load:
        assert pair.controlplane.stop() == 0
        use(pair.controlplane, BUILD)
        pair.controlplane.start()
        pair.wait_ready()
        load.wait_for(20)
        assert not load.refused and not load.failed, "the control plane is nobody's loss"
    assert pair.dataplane.stop() == 0
    use(pair.dataplane, BUILD)
    pair.dataplane.start()
    pair.wait_ready()
    kept(pair)
    assert pair.get("/").status == 200
    assert pair.dataplane.stop() == 0
    use(pair.dataplane, previous)
    pair.dataplane.start()
    pair.wait_ready()
    assert pair.get("/").status == 200, "the kept sockets were let go for it"


# ---- a later release ----

def later(pair, edit):
    """The data plane reaches its control plane through a relay from now on."""
    path = pair.folder / "relay.sock"
    pair.dataplane.argv[pair.dataplane.argv.index("--socket") + 1] = str(path)
    return Relay(path, pair.socket, edit)


def test_what_only_one_side_knows_is_ignored(make_pair, backend):
    """Fields in every message of either side, at its top and within it, and a capability: all goes on as ever."""
    def edit(kind, payload, from_dataplane):
        more = field(18999, 7) + field(18998, "text of the future") + field(18997, b"\x08\x01")
        if kind == HELLO:
            more += field(10, "telepathy")
        if kind == SNAPSHOT:
            more += field(11, field(18999, 1))  # within its logging
        return payload + more

    pair = make_pair([limited(backend, burst=3), route("free", "/free", backend)], start=False)
    relay = later(pair, edit)
    pair.start()
    kept(pair)
    assert statuses(pair, 4) == [200, 200, 200, 429]
    assert pair.push(pair.yaml(server={"max_headers": 50}), "&wait=10").status == 200
    pair.dataplane.kill()
    pair.dataplane.start()
    pair.wait_ready()
    kept(pair)
    assert statuses(pair, 1) == [429], "what was kept was handed over"
    wait_until(lambda: pair.metric("gateway_requests_total") == 5, "all are counted")
    assert pair.ctl("limits").code == 0 and pair.ctl("explain", "GET", "http://a/free").code == 0
    assert {kind for kind, _, _ in relay.seen} >= {1, 2, 10, 11, 13, 14, 20, 22, 23, 30}
    relay.close()


def test_required_feature_that_is_not_known_is_refused_by_name(make_pair, backend):
    """The generation before stays in force, and all who ask are told why; what requires nothing is taken as ever."""
    required = []

    def edit(kind, payload, from_dataplane):
        return payload + b"".join(field(5, f) for f in required) if kind == SNAPSHOT else payload

    pair = make_pair([route("all", "/", backend)], start=False)
    pair.expect_refusal()
    relay = later(pair, edit)
    pair.start()
    kept(pair)
    before = pair.generation()
    required[:] = ["keeping", "teleportation"]
    answer = pair.push(pair.yaml([route("new", "/new", backend)]), "&wait=10")
    says = 'asks for "teleportation", which this release of the data plane does not know'
    assert answer.status == 409 and says in answer.json()["message"], (answer.status, answer.body)
    assert pair.generation() >= before and pair.get("/").status == 200
    logged = says.replace('"', '\\"')
    assert logged in pair.dataplane.log() and logged in pair.controlplane.log()
    pushed = pair.ctl("push", "config", "-", stdin=pair.yaml([route("new", "/new", backend)]))
    assert pushed.code == 1 and says in pushed.err, pushed
    assert says in pair.ctl("status").out + pair.ctl("dataplanes").out
    # One that starts now is refused, too, and serves what it had accepted.
    pair.dataplane.kill()
    pair.dataplane.start()
    wait_until(lambda: pair.get("/").status == 200, "the stored snapshot is served")
    wait_until(lambda: "from the state directory" in pair.dataplane.log(), "it says so")
    required[:] = ["keeping", "limits"]
    assert pair.push(pair.yaml([route("new", "/new", backend)]), "&wait=10").status == 200
    assert pair.get("/new").status == 200 and pair.get("/").status == 404
    assert any(kind == SNAPSHOT_RESULT and b"teleportation" in payload for kind, payload, _ in relay.seen)
    relay.close()
