"""The fields that gwpctl's help names for -o json, and those of the documents that it really prints."""
import json
import os
import re
import signal

from harness import route, wait_until
from rawhttp import Client

WORDS = {"in_sync", "invalid_config", "half_open"}  # of values that help lists

BREAKS = re.compile(r"^With -o json:\n(.*?)(?:\n\S|\Z)", re.M | re.S)

# Told by help where a document is not always the same, and by no document below.
ONLY_SOMETIMES = {"note", "more", "retry_seconds", "error", "in_force", "message", "diagnostics", "text", "warnings"}


def documented(pair, command):
    """The paths in the left column, and every word of the section."""
    section = BREAKS.search(pair.ctl("help", *command.split()).out + "\n")
    assert section, f"gwpctl help {command} names no fields"
    paths = []
    for line in section[1].splitlines():
        left = re.match(r"  (\S.*?)(?: {2,}|\s*$)", line)
        if left:
            paths += [p for p in re.split(r",? ", left[1]) if p and p != "..."]
    words = set(re.findall(r"\w+", section[1]))
    for other in re.findall(r"as gwpctl (\w+)", section[1]):
        words |= documented(pair, other)[1]
    return paths, words


def members(document, path=""):
    """All paths of a document, as help writes them: "routes[].name"."""
    if isinstance(document, list):
        return set().union(*(members(d, path + "[]") for d in document)) if document else set()
    if not isinstance(document, dict):
        return set()
    found = set()
    for key, value in document.items():
        here = f"{path}.{key}" if path else key
        found |= {here} | members(value, here)
    return found


def check(pair, command, documents):
    """Nothing that is printed is undocumented, nothing that is documented is never printed; what is wrong, as sentences."""
    paths, words = documented(pair, command)
    found = set().union(*(members(d) for d in documents))
    unknown = {m for m in found if re.split(r"\.|\[\]", m)[-1] not in words}
    bare = {m.replace("[]", "") for m in found}
    missing = {p for p in paths if p.replace("[]", "") not in bare and p.rstrip("[]") not in ONLY_SOMETIMES}
    keys = {re.split(r"\.|\[\]", m)[-1] for m in found}
    stale = {w for w in words if "_" in w and w not in keys | ONLY_SOMETIMES | WORDS}
    return [f"gwpctl {command} -o json: {what}: {sorted(which)}" for what, which in
            (("not in its help", unknown), ("never printed", missing), ("never printed", stale)) if which]


def test_documents_have_the_fields_that_help_names(make_pair, backend):
    """Of every command that knows -o json."""
    policies = {"rate_limit": {"rate": 1, "burst": 1}, "circuit_breaker": {"failure_threshold": 50}}
    pair = make_pair([route("all", "/", backend, **policies)])
    pair.expect_refusal()
    endpoint = backend.url.removeprefix("http://")
    with Client(pair.address, 10) as c:
        for _ in range(3):
            c.request("GET", "/")
    other, broken = pair.folder / "other.yaml", pair.folder / "broken.yaml"
    other.write_text(pair.yaml([route("all", "/", backend, timeout_seconds=3, **policies), route("more", "/more", backend)]))
    broken.write_text(pair.yaml([{"nme": "x"}]))

    def said(*args, code=0):
        done = pair.ctl(*args, "-o", "json")
        assert done.code == code, (args, done)
        return json.loads(done.out.splitlines()[0] if "--follow" in args else done.out)
    wrong = []
    push = [said("push", "config", broken, code=1), said("push", "config", other, "--dry-run")]
    diff = [said("diff", other)]
    push.append(said("push", "config", other))
    for command in ("push config", "reload", "rollback"):
        wrong += check(pair, command, push + ([said("reload")] if command == "reload" else []))
    wrong += check(pair, "diff", diff)
    wrong += check(pair, "validate", [said("validate", broken, code=1)])
    wrong += check(pair, "drain", [said("drain", endpoint)])
    wrong += check(pair, "weight", [said("weight", endpoint, "3")])
    wrong += check(pair, "status", [said("status")])
    wrong += check(pair, "undrain", [said("undrain", endpoint)])
    wrong += check(pair, "breaker reset", [said("breaker", "reset", endpoint)])
    for command in ("backends", "routes", "dataplanes", "history", "events", "loglevel"):
        wrong += check(pair, command, [said(command)])
    wrong += check(pair, "show", [said("show", "1")])
    wait_until(lambda: said("limits")["routes"][0]["most_limited"], "the limited client is told")
    wrong += check(pair, "limits", [said("limits")])
    wrong += check(pair, "limits reset", [said("limits", "reset", "all", "127.0.0.1")])
    wrong += check(pair, "explain", [said("explain", "GET", f"http://x:{pair.port}/")])
    replaced = said("replace")
    os.kill(replaced["new_pid"], signal.SIGTERM)  # nobody else knows of it
    wrong += check(pair, "replace", [replaced])
    assert pair.dataplane.wait() == 0
    assert not wrong, "\n".join(wrong)
