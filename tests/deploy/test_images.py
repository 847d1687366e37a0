"""The two images: small, bare, and confined."""
import json
import re
import subprocess
from pathlib import Path

import pytest

from pods import REGISTRY, VERSION, inspect, podman

LIMIT_BYTES = 3 * 1024 * 1024
PROGRAMS = {"dataplane": {"gwp-dataplane"}, "controlplane": {"gwp-controlplane", "gwpctl"}}
both = pytest.mark.parametrize("which", PROGRAMS)


def image(which):
    return f"{REGISTRY}/{which}:{VERSION}"


@both
def test_image_is_small(which, tmp_path):
    """As a registry would hold it: compressed layers and configuration."""
    podman("push", "--quiet", "--compress", "--format", "v2s2", image(which), f"dir:{tmp_path}")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    size = manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
    print(f"{which}: {size} bytes compressed")
    assert size <= LIMIT_BYTES, f"{size} bytes"


@both
def test_image_holds_what_runs_and_nothing_else(which):
    """Programs, libraries, the linker: no shell, no passwd, and only two folders are the user's."""
    root = Path(podman("image", "mount", image(which)).stdout.strip())
    try:
        files = {str(p.relative_to(root)): p.lstat() for p in root.rglob("*") if not p.is_dir()}
        programs = {Path(f).name for f in files if f.startswith("usr/bin/")}
        assert programs == PROGRAMS[which]
        others = [f for f in files if not f.startswith("usr/bin/") and not re.search(r"\.so(\.\d+)*$", f)]
        assert not others
        assert all(s.st_uid == 0 and not s.st_mode & 0o7022 for s in files.values())
        owned = {str(p.relative_to(root)) for p in root.rglob("*") if p.lstat().st_uid != 0}
        assert owned == {"run/gwp", "var/lib/gwp"}
        for name in programs:
            said = subprocess.run(["file", root / "usr/bin" / name], capture_output=True, text=True, check=True).stdout
            assert ", stripped" in said and "pie" in said
    finally:
        podman("image", "unmount", image(which))


@both
def test_image_says_what_it_is(which):
    """User by number, health check by the program itself, labels."""
    it = inspect("image", image(which))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", it["Config"]["User"])
    assert it["Labels"]["org.opencontainers.image.version"] == VERSION
    assert {f"org.opencontainers.image.{n}" for n in ("title", "description", "licenses", "revision", "vendor")} <= set(it["Labels"])
    check = it["Healthcheck"]["Test"]
    assert check[0] == "CMD" and check[1] in PROGRAMS[which]
    assert it["Config"]["Entrypoint"] == [f"/usr/bin/gwp-{which}"]


@both
def test_image_runs_confined(which):
    """With a read-only root, without capabilities, without network."""
    flags = ["--rm", "--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
    for program in PROGRAMS[which]:
        said = podman("run", *flags, "--entrypoint", program, image(which), "--version").stdout
        assert said.strip() == f"{program} {VERSION}"
    assert podman("run", *flags, "--entrypoint", "sh", image(which), check=False).returncode == 127
