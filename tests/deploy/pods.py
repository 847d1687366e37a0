"""The chart's pod, run by podman as Kubernetes would run it."""
import json
import os
import re
import subprocess
import time
from pathlib import Path

import yaml

from harness import free_port, wait_until
from rawhttp import Client

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "build" / "deploy"
CHART = ROOT / "deploy" / "helm" / "gateway-chart"
REGISTRY = "localhost/gateway-pro"
VERSION = re.search(r'GWP_VERSION "(.+)"', (ROOT / "proto/base/version.h").read_text())[1]
NEXT = "next"  # the tag of the images with another version
DEADLINE = 20


def run(*argv, check=True, **more):
    """A finished process; what it said, when it failed."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, timeout=120, **more)
    assert not check or done.returncode == 0, f"{argv} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def podman(*argv, **more):
    """podman, with the storage of the tests (the Makefile's environment says where)."""
    return run("podman", *argv, **more)


def inspect(what, name):
    """What podman knows about an image, a volume or a pod, as a document."""
    return json.loads(podman(what, "inspect", name).stdout)[0]


def helm(*argv, **more):
    """helm, which the Makefile has brought."""
    return run(DEPLOY / "bin" / "helm", *argv, **more)


def render(*argv, release="gateway", chart=CHART):
    """The chart's documents."""
    out = helm("template", release, chart, *argv).stdout
    return [d for d in yaml.safe_load_all(out) if d]


def kind(documents, wanted):
    """The one document of that kind."""
    found = [d for d in documents if d["kind"] == wanted]
    assert len(found) == 1, [d["kind"] for d in documents]
    return found[0]


class Pod:
    """One replica. What podman does differently from Kubernetes is evened out here, and nothing else: it would publish
    containerPorts on the host, and volumes of the same name would be shared by all pods."""

    def __init__(self, name, routes, folder, server=None, values=(), tags=None, wants=(200,)):
        self.name = name
        self.folder = Path(folder)
        self.port, self.admin_port = free_port(), free_port()
        self.routes = routes
        self.server = server or {}
        self.values = [*values]
        self.wants = wants  # what its first answer may be
        for which, tag in (tags or {}).items():
            self.values += ["--set", f"{which}.tag={tag}"]
        self.manifest = self.folder / f"{name}.pod.yaml"

    def config(self, **server):
        """gateway.yaml as text."""
        return yaml.safe_dump({
            "server": {"addr": f":{self.port}", "workers": 2, "drain_delay_seconds": 1,
                       "shutdown_grace_seconds": 5, **self.server, **server},
            "admin": {"addr": f":{self.admin_port}"},
            "routes": self.routes}, sort_keys=False)

    def documents(self):
        """The chart rendered for podman."""
        config = self.folder / f"{self.name}.gateway.yaml"
        config.write_text(self.config())
        documents = render("--set-file", f"config={config}", "--set", "autoscaling.enabled=false",
                           "--set", "replicaCount=1", *self.values, release=self.name)
        deployment = kind(documents, "Deployment")
        spec = deployment["spec"]["template"]["spec"]
        for volume in spec["volumes"]:
            if "emptyDir" in volume:
                volume["name"] = f"{self.name}-{volume['name']}"
        for container in spec["containers"]:
            del container["ports"]
            for mount in container["volumeMounts"]:
                if mount["name"] != "config":
                    mount["name"] = f"{self.name}-{mount['name']}"
        return [kind(documents, "ConfigMap"), deployment]

    def start(self):
        """Plays it and waits for the first answered request: how long that took."""
        self.manifest.write_text(yaml.safe_dump_all(self.documents(), sort_keys=False))
        begin = time.monotonic()
        podman("kube", "play", "--network", "host", self.manifest)
        wait_until(lambda: self.get("/").status in self.wants, f"pod {self.name} answers", DEADLINE)
        self.started_in = time.monotonic() - begin
        return self

    def remove(self):
        """Ends it without ceremony."""
        podman("pod", "stop", "--time", "0", self.pod, check=False)  # four times as fast as rm --force alone
        podman("pod", "rm", "--force", "--time", "0", self.pod, check=False)
        for volume in podman("volume", "ls", "--quiet").stdout.split():
            if volume.startswith(f"{self.name}-"):
                podman("volume", "rm", "--force", volume, check=False)

    # ---- its parts ----

    @property
    def fullname(self):
        """The chart's name for its objects."""
        return self.name if "gateway" in self.name else f"{self.name}-gateway"

    @property
    def pod(self):
        """podman's name for the pod."""
        return f"{self.fullname}-pod-0"

    def container(self, which):
        """podman's name for a container."""
        return f"{self.pod}-{which}"

    def pid(self, which):
        """The process of a container, 0 while there is none."""
        return int(podman("inspect", "--format", "{{.State.Pid}}", self.container(which)).stdout)

    def logs(self, which):
        """What a container has said."""
        done = podman("logs", self.container(which))
        return done.stdout + done.stderr

    def memory(self, which):
        """Resident bytes of a container's process."""
        text = Path(f"/proc/{self.pid(which)}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)[1]) * 1024

    def kill(self, which):
        """kill -9, as the kernel's memory killer does it; the new process, once podman has started one."""
        old = self.pid(which)
        os.kill(old, 9)
        return wait_until(lambda: (pid := self.pid(which)) not in (0, old) and pid, f"another {which}", DEADLINE)

    def exec(self, which, *argv, **more):
        """Runs one of its programs inside a container."""
        stdin = ["--interactive"] if "input" in more else []
        return podman("exec", *stdin, self.container(which), *argv, **more)

    # ---- talking ----

    def get(self, target, headers=()):
        """A GET on a connection of its own."""
        with Client(("127.0.0.1", self.port), DEADLINE) as c:
            return c.request("GET", target, headers)

    def admin(self, target):
        """A GET to the admin port."""
        with Client(("127.0.0.1", self.admin_port), DEADLINE) as c:
            return c.request("GET", target, [("Connection", "close")])

    def status(self):
        """The control plane's view."""
        return json.loads(self.exec("controlplane", "gwpctl", "status", "-o", "json").stdout)

    def wait_synced(self, generation=1):
        """Until its data plane serves that generation."""
        def synced():
            planes = self.status()["dataplanes"]
            return [p["state"] for p in planes] == ["in_sync"] and planes[0]["generation"] >= generation
        wait_until(synced, f"{self.name} serves generation {generation}", DEADLINE)

    def write_config(self, text):
        """Updates the mounted ConfigMap as the kubelet does: a new folder, and a symbolic link that is swapped."""
        mount = Path(inspect("volume", self.fullname)["Mountpoint"])
        fresh = mount / f"..{time.monotonic_ns()}"
        fresh.mkdir(mode=0o755)
        (fresh / "gateway.yaml").write_text(text)
        link = mount / "..data_tmp"
        link.symlink_to(fresh.name)
        link.rename(mount / "..data")
        if not (mount / "gateway.yaml").is_symlink():
            link.symlink_to("..data/gateway.yaml")
            link.rename(mount / "gateway.yaml")
