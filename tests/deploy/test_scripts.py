"""The shell scripts of the repository."""
import subprocess

from pods import ROOT, run


def test_shell_scripts_are_clean():
    """shellcheck finds nothing in any file that begins like a shell script."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    scripts = [p for name in listed if (p := ROOT / name).is_file() and p.read_bytes()[:64].split(b"\n")[0].startswith(
        (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"))]
    assert ROOT / "deploy/docker/stage.sh" in scripts
    run("shellcheck", *scripts)
