"""The Debian packages: clean, installed in a bare Debian, run as their units say, removed without a trace."""
import re
from pathlib import Path

import pytest

from harness import wait_until
from pods import DEPLOY, REGISTRY, VERSION, podman, run
from rawhttp import Client

PACKAGES = DEPLOY / "deb" / "packages"
IMAGE = f"{REGISTRY}/installed"
PROGRAMS = ("controlplane", "dataplane")


def unit(root, program):
    """The unit's settings, as they are installed below `root`; of one that occurs more than once the last."""
    text = Path(f"{root}/lib/systemd/system/gwp-{program}.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


@pytest.fixture
def root():
    """The files of a Debian with the packages installed."""
    yield podman("image", "mount", IMAGE).stdout.strip()
    podman("image", "unmount", IMAGE)


@pytest.fixture
def machine():
    """A container that does nothing until the test says what."""
    name = podman("run", "-d", "--network=host", IMAGE, "sleep", "600").stdout.strip()
    yield lambda *argv, **more: podman("exec", name, *argv, **more)
    podman("rm", "--force", "--time", "0", name)


def test_packages_are_clean():
    """lintian has no error and no warning."""
    packages = sorted(PACKAGES.glob("*.deb"))
    assert {p.name.split("_")[0] for p in packages} >= {"gwp-controlplane", "gwp-dataplane"}
    assert all(p.name.split("_")[1] == VERSION for p in packages)
    run("lintian", "--allow-root", "--fail-on", "error,warning", *packages)


def test_units_are_understood_and_confined(root):
    """systemd knows every setting; what it says besides is only about what a bare Debian lacks."""
    for program in PROGRAMS:
        path = f"{root}/lib/systemd/system/gwp-{program}.service"
        said = run("systemd-analyze", f"--root={root}", "verify", path, check=False).stderr
        others = [line for line in said.splitlines()
                  if not re.search(r"sysinit\.target not found|Command /bin/kill is not|Command 'man ", line)]
        assert not others
        run("systemd-analyze", f"--root={root}", "security", "--offline=true", "--threshold=30", f"gwp-{program}.service")


def test_both_units_may_write_where_sockets_are(root):
    """ProtectSystem=strict leaves /run read-only to a unit that does not name its folder; neither takes it from the other."""
    for program in PROGRAMS:
        settings = unit(root, program)
        assert settings["ProtectSystem"] == "strict"
        assert (settings["RuntimeDirectory"], settings["RuntimeDirectoryPreserve"]) == ("gwp", "yes")


def test_installed_pair_serves_as_its_units_start_it(machine, root):
    """User, folders and command line from the units."""
    for program in PROGRAMS:
        settings = unit(root, program)
        machine("install", "-d", "-o", settings["User"], "-g", settings["Group"], "/run/gwp", "/var/lib/gwp",
                f"/var/lib/{settings['StateDirectory']}")
        machine("sh", "-c", f"exec setpriv --reuid {settings['User']} --regid {settings['Group']} --clear-groups "
                            f"--no-new-privs --bounding-set=-all {settings['ExecStart']} >/tmp/{program}.log 2>&1 &")

    def answered():
        with Client(("127.0.0.1", 8080), 5) as c:
            return c.request("GET", "/").json()["error"] == "no_route"  # the package's configuration has none
    wait_until(answered, "the data plane answers", 20)
    machine("gwp-dataplane", "--self-check", "127.0.0.1:8080")
    assert " in_sync " in machine("gwpctl", "status").stdout


def test_what_was_edited_stays_and_purge_leaves_nothing(machine):
    """The configuration is a conffile: kept by an upgrade and by removal, gone after a purge."""
    machine("sh", "-c", "echo '# mine' >> /etc/gwp/gateway.yaml")
    machine("sh", "-c", "dpkg -i /packages/gwp-*plane_*.deb")
    assert "# mine" in machine("cat", "/etc/gwp/gateway.yaml").stdout
    machine("dpkg", "-V", "gwp-dataplane")
    machine("mkdir", "-p", "/var/lib/gwp/cp", "/var/lib/gwp/dp", "/var/log/gwp")  # as the units' settings make them
    machine("touch", "/var/lib/gwp/cp/counts", "/var/lib/gwp/dp/snapshot", "/var/log/gwp/access.log")
    machine("dpkg", "--remove", "gwp-controlplane", "gwp-dataplane")
    assert "snapshot" in machine("ls", "/var/lib/gwp/dp").stdout
    assert "# mine" in machine("cat", "/etc/gwp/gateway.yaml").stdout
    machine("dpkg", "--purge", "gwp-controlplane", "gwp-dataplane")
    gone = ("/etc/gwp", "/var/lib/gwp", "/var/log/gwp", "/usr/bin/gwp*", "/lib/systemd/system/gwp*", "/usr/share/gateway-pro")
    left = machine("sh", "-c", f"ls -d {' '.join(gone)} 2>/dev/null", check=False).stdout
    assert left == ""
