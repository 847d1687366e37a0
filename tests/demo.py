"""What `make run` starts: the pair before two demo backends, until Ctrl-C."""
import argparse
import ctypes
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "demo.yaml"
GATEWAY, ADMIN = 8080, 9090
BACKENDS = {"a": 9001, "b": 9002}
START_SECONDS = 20
PR_SET_CHILD_SUBREAPER = 36
STOP_SECONDS = 15


class Stop(Exception):
    """The demonstration is over; the words say why, the code is the exit status."""

    def __init__(self, why, code=0):
        super().__init__(why)
        self.code = code


class Demo:
    """All that runs, and the folder that it uses."""

    def __init__(self, build):
        self.build = Path(build).resolve()
        self.folder = Path(tempfile.mkdtemp(prefix="gwp-demo-"))
        self.admin_socket = self.folder / "admin.sock"
        self.children = {}  # in the order of starting

    def start(self, name, *argv, **more):
        """Starts a program in a session of its own: Ctrl-C is for us, who stop them in order."""
        env = {**os.environ, "GWP_ADMIN_SOCKET": str(self.admin_socket)}
        self.children[name] = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                               env=env, start_new_session=True, **more)
        return self.children[name]

    def start_backend(self, name, port):
        """Starts a backend, which prints its port once it listens."""
        child = self.start(f"backend {name}", sys.executable, "-B", ROOT / "tests" / "backend.py",
                           "--port", port, "--name", name, stdout=subprocess.PIPE)
        if not child.stdout.readline():
            raise Stop(f"port {port} is taken: end what listens there, then try again", 1)

    def start_pair(self):
        """Starts the two programs."""
        for name in ("gwp-controlplane", "gwp-dataplane", "gwpctl"):
            if not (self.build / name).exists():
                raise Stop(f"{self.build / name} does not exist: run make first", 1)
        for name in ("cp", "dp"):
            (self.folder / name).mkdir()
        socket = self.folder / "gwp.sock"
        self.start("gwp-controlplane", self.build / "gwp-controlplane", "--config", CONFIG,
                   "--socket", socket, "--state-dir", self.folder / "cp")
        self.start("gwp-dataplane", self.build / "gwp-dataplane", "--socket", socket,
                   "--state-dir", self.folder / "dp")

    def check_children(self):
        """A program that has ended ends the demonstration, but for a data plane that was replaced."""
        for name, child in self.children.items():
            if child.poll() is None or (name == "gwp-dataplane" and child.returncode == 0 and successors()):
                continue
            raise Stop(f"{name} has ended with {child.returncode}", 1)

    def wait_ready(self):
        """Until the pair is ready and the first request has come back."""
        end = time.monotonic() + START_SECONDS
        for port, path in ((ADMIN, "/readyz"), (GATEWAY, "/api")):
            while not answers(port, path):
                self.check_children()
                if time.monotonic() > end:
                    raise Stop(f"http://127.0.0.1:{port}{path} did not answer with 200 within "
                               f"{START_SECONDS} seconds; the lines above say why", 1)
                time.sleep(0.05)

    def tell(self):
        """What to try."""
        ctl = f"{os.path.relpath(self.build)}/gwpctl --admin unix:{self.admin_socket}"
        config = os.path.relpath(CONFIG)
        print(f"""
The gateway listens on http://127.0.0.1:{GATEWAY}, its admin side on http://127.0.0.1:{ADMIN}. Try, in another terminal:

    curl -i http://127.0.0.1:{GATEWAY}/api/hello
    {ctl} status
    sed 's/timeout_seconds: 1$/timeout_seconds: 5/' {config} | {ctl} push config -

Or edit {config}: it is in force as soon as it is saved. Ctrl-C ends everything.
""", flush=True)

    def stop(self):
        """Stops all of it, the data plane first; False when something did not end cleanly."""
        clean = True
        started = {child.pid for child in self.children.values()}
        for pid in successors():
            if pid not in started:  # a second signal would cut off what is in flight
                os.kill(pid, signal.SIGTERM)
        order = ["gwp-dataplane", "gwp-controlplane", *(f"backend {name}" for name in BACKENDS)]
        for name in order:
            child = self.children.get(name)
            if child is None:
                continue
            was_running = child.poll() is None
            if was_running:
                child.terminate()
            try:
                code = child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                code = child.wait()
            if was_running and code != 0:
                print(f"{name} ended with {code}", file=sys.stderr)
                clean = False
        shutil.rmtree(self.folder, ignore_errors=True)
        return clean


def successors():
    """Data planes that `gwpctl replace` has started: ours, since whoever started them has ended."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" (", 1)
        except OSError:
            continue  # it has ended meanwhile
        name, fields = rest.rsplit(") ", 1)
        state, parent = fields.split()[:2]
        if name == "gwp-dataplane" and int(parent) == os.getpid() and state != "Z":
            pids.append(int(pid))
    return pids


def answers(port, path):
    """Does it answer with 200?"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main():
    """Runs until somebody or something ends it."""
    parser = argparse.ArgumentParser(description="The pair before two demo backends.")
    parser.add_argument("--build", default="build", help="where the programs are")
    demo = Demo(parser.parse_args().build)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def on_signal(number, frame):
        raise Stop("stopping")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    code = 0
    try:
        for name, port in BACKENDS.items():
            demo.start_backend(name, port)
        demo.start_pair()
        demo.wait_ready()
        demo.tell()
        while True:
            demo.check_children()
            time.sleep(0.2)
    except Stop as stop:
        code = stop.code
        print(f"\n{stop}", file=sys.stderr if code else sys.stdout, flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        clean = demo.stop()
    sys.exit(code if clean else 1)


if __name__ == "__main__":
    main()
