"""Kills, freezes and replaces both programs under steady verified load, and prints what that did to clients.

    make drill            every event a few times: a minute
    make drill KILLS=100  as often as that

Ends with 1 when an event did what it must not do: see EVENTS.
"""
import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "e2e"), str(Path(__file__).resolve().parent)]

from harness import BUILD, Backend, Pair, route, wait_until  # noqa: E402
from load import Load  # noqa: E402

CLIENTS = 8


class Drill:
    """The pair, its load, and what may be done to it."""

    def __init__(self, folder):
        self.backend = Backend("a", folder).start()
        self.pair = Pair([route("all", "/", self.backend,
                                rate_limit={"rate": 1000000, "burst": 1000000},
                                circuit_breaker={"open_duration_seconds": 1})])
        self.pair.start()
        self.pids = []
        self.turn = 0
        self.settle()

    def planes(self):
        """The data planes as the control plane sees them."""
        return self.pair.status()["dataplanes"]

    def settle(self):
        """Until one data plane serves what is in force, and has left its sockets."""
        def settled():
            planes = self.planes()
            assert [p["role"] for p in planes] == ["serving"] and planes[0]["state"] == "in_sync", planes
            return planes[0]["pid"]
        return wait_until(settled, "the pair is at rest", 30)

    def _restart(self, number, pid=None):
        pid = pid or self.settle()
        os.kill(pid, number)
        if pid == self.pair.dataplane.pid:
            self.pair.dataplane.wait(30)
        else:
            wait_until(lambda: not Path(f"/proc/{pid}/exe").exists() or not os.path.exists(f"/proc/{pid}"), "it has ended", 30)
        self.pair.dataplane.start()

    def kill_dataplane(self):
        """kill -9, restarted at once by whoever supervises it."""
        self._restart(signal.SIGKILL)

    def restart_dataplane(self):
        """SIGTERM and a start: what an update of a container does."""
        self._restart(signal.SIGTERM)

    def replace_dataplane(self):
        """gwpctl replace."""
        old = self.settle()
        answer = self.pair.ctl("replace", "-o", "json")
        assert answer.code == 0, answer
        self.pids.append(answer.json()["new_pid"])
        wait_until(lambda: [p["pid"] for p in self.planes()] == self.pids[-1:], f"process {old} has left", 40)

    def absent_dataplane(self):
        """kill -9, and nobody restarts it for three seconds."""
        pid = self.settle()
        os.kill(pid, signal.SIGKILL)
        time.sleep(3)
        self.pair.dataplane.wait(5) if pid == self.pair.dataplane.pid else None
        self.pair.dataplane.start()

    def kill_controlplane(self):
        """kill -9, restarted at once."""
        self.pair.controlplane.kill()
        self.pair.controlplane.start()

    def restart_controlplane(self):
        """SIGTERM and a start: an upgrade."""
        assert self.pair.controlplane.stop() == 0
        self.pair.controlplane.start()

    def freeze_controlplane(self):
        """SIGSTOP for longer than heartbeats allow."""
        self.pair.controlplane.signal(signal.SIGSTOP)
        time.sleep(12)
        self.pair.controlplane.signal(signal.SIGCONT)

    def freeze_dataplane(self):
        """SIGSTOP for less than heartbeats allow: clients wait."""
        pid = self.settle()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        os.kill(pid, signal.SIGCONT)

    def kill_dataplane_alone(self):
        """kill -9 while the control plane hangs with the sockets; it hands them out when the new one serves without them."""
        said = "in force from the state directory"
        before = self.pair.dataplane.log().count(said)
        pid = self.settle()
        self.pair.controlplane.signal(signal.SIGSTOP)
        self._restart(signal.SIGKILL, pid)
        wait_until(lambda: self.pair.dataplane.log().count(said) > before, "it serves", 30)
        for _ in range(20):  # who comes now is served; who came between the two waits for the first one's sockets
            assert self.pair.get("/").status == 200
        self.pair.controlplane.signal(signal.SIGCONT)

    def kill_controlplane_alone(self):
        """kill -9 and a start while the data plane hangs."""
        pid = self.settle()
        os.kill(pid, signal.SIGSTOP)
        self.kill_controlplane()
        wait_until(self.pair.status, "the new one is there", 30)
        os.kill(pid, signal.SIGCONT)

    def delete_socket(self):
        """The control socket's file is removed."""
        self.pair.socket.unlink()
        wait_until(self.pair.socket.exists, "it is made again")

    def change_configuration(self):
        """A configuration is put in force."""
        self.turn += 1
        before = self.pair.generation()
        self.pair.write_config(self.pair.yaml(server={"max_headers": 100 + self.turn % 50}))
        wait_until(lambda: self.pair.generation() > before, "it is in force")

    def end(self):
        """Nothing is left running."""
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.pair.destroy()
        self.backend.kill()


# what, how it is done, how often of the asked times, what it may cost a client for each time it is done
EVENTS = [
    ("configuration change", Drill.change_configuration, 1.0, set()),
    ("data plane: gwpctl replace", Drill.replace_dataplane, 1.0, set()),
    ("data plane: SIGTERM, start", Drill.restart_dataplane, 1.0, set()),
    ("data plane: kill -9, start", Drill.kill_dataplane, 1.0, {"lost"}),
    ("data plane: away for 3 s", Drill.absent_dataplane, 0.02, {"lost", "stand_in"}),
    ("data plane: SIGSTOP 5 s", Drill.freeze_dataplane, 0.01, set()),
    ("data plane: kill -9, start, control plane stopped", Drill.kill_dataplane_alone, 0.1, {"lost"}),
    ("control plane: SIGTERM, start", Drill.restart_controlplane, 1.0, set()),
    ("control plane: kill -9, start", Drill.kill_controlplane, 1.0, set()),
    ("control plane: kill -9, start, data plane stopped", Drill.kill_controlplane_alone, 0.2, set()),
    ("control plane: SIGSTOP 12 s", Drill.freeze_controlplane, 0.01, set()),
    ("control plane: socket deleted", Drill.delete_socket, 0.02, set()),
]
HEAD = ("event", "times", "requests", "lost in flight", "refused", "503 in its place", "wrong", "longest pause")


def run(drill, load, event, times):
    """One event so often; the row of the table, and what was wrong with it."""
    _, do, _, may = event
    load.take()
    for _ in range(times):
        do(drill)
        drill.settle()
        time.sleep(0.05)
    counts, longest = load.take()
    row = (event[0], times, sum(counts.values()), counts["lost"], counts["refused"], counts["stand_in"],
           counts["wrong"] + counts["other"], f"{longest * 1000:.0f} ms")
    bad = [k for k in ("lost", "refused", "stand_in", "wrong", "other") if counts[k] and k not in may]
    if counts["lost"] > times * CLIENTS:
        bad.append("lost: more than were in flight")
    return row, [f"{event[0]}: {', '.join(bad)}"] if bad else []


def table(rows):
    """As Markdown, which people can read as it is."""
    lines = [[str(c) for c in row] for row in (HEAD, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    out = [" | ".join(c.ljust(w) for c, w in zip(line, widths)) for line in lines]
    out.insert(1, "-|-".join("-" * w for w in widths))
    return "\n".join(f"| {line} |" for line in out)


def main():
    """The table on stdout, what was wrong on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--only", default="", help="events whose name holds this")
    options = parser.parse_args()
    if not (BUILD / "gwp-dataplane").exists():
        sys.exit("build the programs first: make")
    folder = tempfile.mkdtemp(prefix="gwp-drill-")
    rows, problems, drill = [], [], None
    try:
        drill = Drill(folder)
        with Load(drill.pair.address, CLIENTS) as load:
            for event in EVENTS:
                if options.only not in event[0]:
                    continue
                row, bad = run(drill, load, event, max(1, round(options.kills * event[2])))
                rows.append(row)
                problems += bad
                print(" ".join(str(c) for c in row), file=sys.stderr, flush=True)
        examples = load.examples
    finally:
        if drill:
            drill.end()
        shutil.rmtree(folder, ignore_errors=True)
    print(table(rows))
    for problem in problems:
        print(f"FAILED {problem}; for example {examples}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
