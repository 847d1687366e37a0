"""No room in either state directory: everything goes on, whoever changes something is told, and what could not be kept is kept as
soon as there is room again."""
import resource
import subprocess

import pytest

from harness import route, wait_until
from test_limit import limited, statuses
from test_takeover import at_rest, kept

LOST = "lost if the control plane ends before it can be kept: "


class Limit:
    """No file of the two processes may grow (RLIMIT_FSIZE): what any user can do."""

    says = "File too large"

    def __init__(self, pair):
        self.pair = pair

    def fill(self):
        """From now on."""
        self._set(16)

    def make_room(self):
        """Not any more."""
        self._set(resource.RLIM_INFINITY)

    def end(self):
        """The limit goes with the processes."""

    def _set(self, most):
        for program in (self.pair.controlplane, self.pair.dataplane):
            resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


class Disk:
    """A disk of their own that is full."""

    says = "No space left on device"

    def __init__(self, pair):
        self.folders = [pair.state, pair.cp_state]
        for folder in self.folders:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)

    def fill(self):
        """To the last byte."""
        for folder in self.folders:
            with open(folder / "filling", "ab", buffering=0) as f:
                with pytest.raises(OSError):
                    while True:
                        f.write(b"x" * 4096)

    def make_room(self):
        """It is deleted again."""
        for folder in self.folders:
            (folder / "filling").unlink()

    def end(self):
        """Not as long as they are in use."""
        for folder in self.folders:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount(folder):
    """Only root may, and not in every container."""
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
    return done.returncode == 0 and subprocess.run(["umount", str(folder)], check=True).returncode == 0


def run(pair, means, backend):
    """From a disk that becomes full to one that has room again."""
    asked = [0]

    def is_drained():
        asked[0] += 1
        return pair.get("/free").status == 503
    pair.expect_log("endpoints")  # that an order will not outlive the process
    pair.start()
    kept(pair)
    means.fill()
    assert statuses(pair, 4) == [200, 200, 200, 429]
    at_rest(pair.dataplane)
    pair.dataplane.kill()
    pair.dataplane.start()
    pair.wait_ready()
    kept(pair)
    means.fill()
    assert statuses(pair, 1) == [429]
    answer = pair.push(pair.yaml(server={"max_headers": 50}), "&wait=10")
    assert answer.status == 200 and LOST in answer.json()["note"] and means.says in answer.json()["note"], answer.body
    pushed = pair.ctl("push", "config", "-", stdin=pair.yaml(server={"max_headers": 51}))
    assert pushed.code == 0 and LOST in pushed.out, pushed
    ordered = pair.ctl("drain", f"127.0.0.1:{backend.port}", "--route", "free")
    assert ordered.code == 0 and LOST in ordered.out, ordered
    assert statuses(pair, 1) == [429]
    wait_until(is_drained, "the data plane has heard of the order")
    generation = pair.generation()
    wait_until(lambda: pair.metric("gateway_requests_total") == 6 + asked[0], "all are counted")
    means.make_room()
    wait_until(lambda: f"generations are kept again, from {generation} on" in pair.controlplane.log()
               and "orders are kept again" in pair.controlplane.log()
               and "the snapshot in force is kept again" in pair.dataplane.log(), "what could not be kept is kept")
    at_rest(pair.dataplane)
    pair.controlplane.kill()
    pair.dataplane.kill()
    pair.dataplane.start()
    wait_until(lambda: f"generation {generation} is in force from the state directory" in pair.dataplane.log(), "as before")
    pair.controlplane.start()
    pair.wait_ready()
    assert pair.generation() == generation
    wait_until(is_drained, "the order has outlived both")
    wait_until(lambda: pair.metric("gateway_requests_total") == 6 + asked[0], "and so have the counts")


def test_full_disk_stops_nothing(make_pair, backend, tmp_path):
    """A real one where a disk may be mounted; a limit of the processes everywhere."""
    for means in [Limit] + [Disk] * can_mount(tmp_path):
        pair = make_pair([limited(backend, burst=3), route("free", "/free", backend)], start=False)
        m = means(pair)
        try:
            run(pair, m, backend)
        finally:
            m.end()


@pytest.mark.heavy  # sanitizers need files of their own
def test_full_disk_is_no_reason_not_to_start(make_pair, backend):
    """The control plane has never written anything, not even to its log. (The data plane needs memory that is a file.)"""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.controlplane.argv[:0] = ["prlimit", "--fsize=0:0"]
    pair.start()
    assert pair.get("/").status == 200
    pair.write_config(pair.yaml(server={"max_headers": 50}))
    wait_until(lambda: pair.status()["config"]["generation"] > 1, "a change is taken")
    assert pair.get("/").status == 200
    wait_until(lambda: pair.metric("gateway_requests_total") == 2, "requests are counted")
