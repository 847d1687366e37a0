"""Generations as a history: kept, shown, compared, gone back to, and never lost."""
import getpass
import random
import subprocess
import threading
import time

import pytest

from harness import BUILD, DEADLINE, SCALE, route, run_ctl, wait_until
from rawhttp import Cut


def history(pair):
    """The entries, the newest first."""
    return pair.ctl("history", "-o", "json").json()["generations"]


def push(pair, routes, *more):
    """gwpctl push config of these routes."""
    return pair.ctl("push", "config", "-", *more, stdin=pair.yaml(routes))


def test_every_accepted_configuration_is_in_the_history(pair, backend):
    """With number, time, origin, user, message, hash; what was refused or unchanged is not."""
    pair.expect_refusal()
    assert push(pair, [route("a", "/a", backend)], "-m", "a comes in: \"first\" & only").code == 0
    assert push(pair, [route("a", "/a", backend)]).code == 0  # unchanged
    assert pair.ctl("push", "config", "-", stdin="routes: 7\n").code == 1
    assert push(pair, [route("b", "/b", backend)], "--dry-run").code == 0
    pair.write_config(pair.yaml([route("c", "/c", backend)]))
    wait_until(lambda: pair.get("/c").status == 200, "the file is in force")
    wait_until(lambda: len(history(pair)) == 3, "it is in the history")
    newest, pushed, first = history(pair)
    assert [e["origin"] for e in (newest, pushed, first)] == ["file", "push", "file"]
    assert pushed["user"] == getpass.getuser() and pushed["message"] == 'a comes in: "first" & only'
    assert newest["user"] == "" and newest["source"] == "gateway.yaml"
    assert newest["in_force"] and not pushed["in_force"]
    assert len({e["hash"] for e in (newest, pushed, first)}) == 3
    assert newest["generation"] > pushed["generation"] > first["generation"]
    table = pair.ctl("history").out
    assert f"push by {getpass.getuser()}" in table and "a comes in" in table and "in force" in table


def test_warnings_are_printed_alike(pair, backend, tmp_path):
    """By --check, validate, and a push that goes through: with the line and what is underlined."""
    text = pair.yaml([route("a", "/a", backend)]) + "  timeout_seconds:\n"
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    check = run_ctl([BUILD / "gwp-controlplane", "--check", "--config", path])
    validate = run_ctl([BUILD / "gwpctl", "validate", path])
    assert check.out == validate.out and check.code == validate.code == 0
    for words in (["push", "config", path, "--dry-run"], ["push", "config", path], ["push", "config", path]):
        pushed = pair.ctl(*words)
        assert pushed.code == 0 and pushed.err == validate.err == check.err and "^~~~" in pushed.err, pushed
    pair.write_config(text + "# again\n")
    assert pair.ctl("reload").err == validate.err
    assert pair.ctl("rollback", "1").err == "" and pair.ctl("rollback").err == validate.err
    pair.expect_refusal()
    assert "the first: the file is empty" in pair.ctl("push", "config", "-", stdin="").err


def test_show_prints_what_was_in_force_byte_for_byte(pair, backend):
    """To standard output; what is known about it to standard error."""
    text = "# kept: ü\n" + pair.yaml([route("a", "/a", backend)])
    assert pair.ctl("push", "config", "-", stdin=text).code == 0
    assert pair.ctl("show").out == pair.ctl("show", "current").out == text
    assert pair.ctl("show", "previous").out == pair.config_path.read_text()
    assert pair.ctl("show", "1").out == pair.config_path.read_text()
    assert "push by" in pair.ctl("show").err
    assert pair.ctl("show", "1", "-o", "json").json()["text"] == pair.config_path.read_text()
    assert pair.ctl("show", "999").code == 1 and "gwpctl history" in pair.ctl("show", "999").err
    assert pair.ctl("show", "nonsense").code == 64


def test_diff_tells_what_changes_mean(pair, backend, tmp_path):
    """Routes, backends, policies and keys; between generations, and for a file what a push would change."""
    base = [route("a", "/a", backend), route("b", "/b", backend)]
    assert push(pair, base).code == 0
    assert push(pair, [route("a", "/a", backend, "http://127.0.0.1:9", timeout_seconds=5,
                             circuit_breaker={})]).code == 0
    said = pair.ctl("diff").out
    for part in ("route a: timeout_seconds 30 -> 5", "route a: backend http://127.0.0.1:9 added",
                 "route a: circuit_breaker added", "route b removed", "(stdin:"):
        assert part in said, said
    first, before, _ = [e["generation"] for e in reversed(history(pair))]
    assert pair.ctl("diff", str(first), str(before)).out.count("added") == 2
    assert "route b removed" in pair.ctl("diff", str(before)).out
    path = tmp_path / "next.yaml"
    path.write_text(pair.yaml(base))
    assert "route b added" in pair.ctl("diff", path).out
    assert "route b removed" in pair.ctl("diff", path, "current").out
    assert "they mean the same" in pair.ctl("diff", path, str(before)).out
    document = pair.ctl("diff", "-o", "json").json()
    change = next(c for c in document["changes"] if c["key"] == "timeout_seconds")
    assert change["route"] == "a" and (change["from"], change["to"]) == ("30", "5")
    assert change["from_place"].startswith("stdin:") and document["more"] == 0
    path.write_text("routes: [{nme: x}]\n")
    answer = pair.ctl("diff", path)
    assert answer.code == 1 and 'next.yaml:1:11: error: unknown key "nme"' in answer.err


def test_files_are_compared_without_a_control_plane(tmp_path):
    """By the same code, in the environment of here."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("routes:\n  - {name: a, path_prefix: /a, backends: [{url: http://h}]}\n")
    new.write_text("# new\nroutes:\n  - {name: a, path_prefix: /a, retries: ${N}, backends: [{url: http://h}, {url: http://i}]}\n")
    def diff(*words, **more):
        return run_ctl([BUILD / "gwpctl", "--admin", "unix:/nowhere", "diff", *words], **more)
    answer = diff(old, new, env={"N": "3"})
    assert answer.code == 0 and answer.out.splitlines() == [
        "route a: retries 1 -> 3  (new.yaml:3)", "route a: backend http://i added  (new.yaml:3)"], answer
    document = diff(new, old, "-o", "json", env={"N": "3"}).json()
    assert [c["text"] for c in document["changes"]] == ["route a: retries 3 -> 1", "route a: backend http://i removed"]
    assert diff(old, "-", stdin="# c\n" + old.read_text()).out == "they mean the same\n"
    answer = diff(old, new)
    assert answer.code == 1 and "new.yaml:3:41: error: environment variable N is not set" in answer.err and not answer.out
    assert diff(old, tmp_path / "none.yaml").code == 1


def test_diff_of_lines_is_what_patch_takes(pair, backend, tmp_path):
    """-u: a unified diff that turns the one text into the other."""
    base = pair.yaml([route(f"r{i}", f"/r{i}", backend) for i in range(30)])
    lines = base.splitlines(keepends=True)
    generator = random.Random(7)
    for _ in range(6):
        at = generator.randrange(len(lines))
        lines[at:at + generator.randrange(3)] = [f"# line {generator.random()}\n"] * generator.randrange(3)
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(base)
    new.write_text("".join(lines))
    patch = pair.ctl("diff", "-u", old, new).out
    assert patch.startswith("--- old.yaml\n+++ new.yaml\n@@ ")
    done = subprocess.run(["patch", "-s", old], input=patch, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done
    assert old.read_text() == new.read_text()
    assert pair.ctl("diff", "-u", new, new).out == ""
    assert "generation 1" in pair.ctl("diff", "-u", "1", new).out


def test_rollback_brings_back_what_was_before(pair, backend):
    """Under a new number, with who and why in the history."""
    for name in ("a", "b", "c"):
        assert push(pair, [route(name, f"/{name}", backend)]).code == 0
    answer = pair.ctl("rollback", "-m", "c was wrong")
    assert answer.code == 0 and pair.get("/b").status == 200 and pair.get("/c").status == 404
    newest = history(pair)[0]
    assert newest["origin"] == "rollback" and newest["again"] == 3 and newest["message"] == "c was wrong"
    assert pair.ctl("rollback", "1", "--dry-run").code == 0 and pair.get("/b").status == 200
    assert pair.ctl("rollback", "1").code == 0 and pair.get("/").status == 200
    for absent in ("999", "0", "00"):
        answer = pair.ctl("rollback", absent)
        assert answer.code == 1 and f"no generation {absent} in the history" in answer.err
    assert pair.admin("POST", "/api/v1/rollback?generation=0").status == 404
    assert pair.ctl("rollback", "soon").code == 64
    assert pair.generation() == newest["generation"] + 1


def test_nothing_before_the_first_to_go_back_to(pair):
    """Said so."""
    answer = pair.ctl("rollback")
    assert answer.code == 1 and "no generation before" in answer.err


def test_somebody_elses_change_is_not_overwritten(pair, backend):
    """--if-generation names what the change was made for."""
    seen = str(pair.generation())
    assert push(pair, [route("a", "/a", backend)], "--if-generation", seen).code == 0
    answer = push(pair, [route("b", "/b", backend)], "--if-generation", seen)
    assert answer.code == 1 and f"not {seen}" in answer.err and "gwpctl diff" in answer.err
    assert pair.get("/a").status == 200 and pair.get("/b").status == 404
    assert pair.ctl("rollback", "--if-generation", seen).code == 1
    assert push(pair, [route("b", "/b", backend)], "--if-generation", str(pair.generation())).code == 0


def test_concurrent_pushes_take_turns(pair, backend):
    """All are accepted, each under its own number, and the last one is in force."""
    answers = []
    def one(i):
        answers.append(push(pair, [route(f"r{i}", f"/r{i}", backend)], "--wait", "30"))
    threads = [threading.Thread(target=one, args=(i,)) for i in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(DEADLINE)
    assert all(a.code == 0 for a in answers), answers
    kept = history(pair)
    assert len(kept) == 11 and len({e["generation"] for e in kept}) == 11
    assert "route r" in pair.ctl("diff").out
    name = pair.ctl("routes", "-o", "json").json()["routes"][0]["name"]
    assert name in pair.ctl("show").out and pair.get(f"/{name}").status == 200


def test_status_tells_what_the_next_start_begins_with(pair, backend):
    """By the rule of the README."""
    assert f"next start: with {pair.config_path}" in pair.ctl("status").out
    assert push(pair, [route("a", "/a", backend)]).code == 0
    assert "next start: with generation 2 again, or with" in pair.ctl("status").out
    assert pair.ctl("reload").code == 0
    assert f"next start: with {pair.config_path}" in pair.ctl("status").out


def test_a_file_that_was_missing_at_the_start_is_well_again_once_it_is_back(pair, backend):
    """What was pushed goes on; a file that comes back broken is told as such, though it is none that has changed."""
    pair.expect_log('"module":"(start|config|publisher)"')
    away = pair.folder / "away.yaml"
    assert push(pair, [route("a", "/a", backend)]).code == 0
    def reload():
        return pair.status()["config"]["last_reload"]
    for text, seen in ((pair.config_path.read_text(), ""), ("routes: 7\n", "gateway.yaml has 1 error")):
        pair.config_path.write_text(text)
        wait_until(lambda seen=seen: seen in reload()["message"], "it is seen")
        pair.config_path.rename(away)
        pair.controlplane.stop()
        pair.controlplane.start()
        wait_until(lambda: "cannot be read" in reload()["message"], "it is missed")
        away.rename(pair.config_path)
        wait_until(lambda seen=seen: reload()["ok"] is not bool(seen) and seen in reload()["message"], "it is seen again")
        assert pair.get("/a").status == 200


def test_a_refusal_by_one_data_plane_is_undone_in_all(make_pair, backend):
    """None serves it any more, the reason is told, the history does not know it."""
    pair = make_pair([route("all", "/", backend)], start=False)
    for name in ("dp-1", "dp-2"):  # only the first one has a folder for the log that will be asked for
        (pair.folder / name / "logs").mkdir(parents=True) if name == "dp-1" else (pair.folder / name).mkdir()
    planes = []
    for name in ("dp-1", "dp-2"):
        plane = pair.make_dataplane(name)
        plane.argv[plane.argv.index("--state-dir") + 1] = str(pair.folder / name)
        plane.argv = ["sh", "-c", f'cd {pair.folder / name} && exec "$@"', "sh", *plane.argv]
        planes.append(plane)
    server = {"addr": "127.0.0.1:0", "workers": 1}
    pair.write_config(pair.yaml(server=server))
    pair.expect_refusal()
    pair.expect_log('"module":"rollout"')
    pair.controlplane.start()
    for plane in planes:
        plane.start()
    try:
        pair.wait_synced(count=2)
        before = pair.generation()
        answer = pair.ctl("push", "config", "-", stdin=pair.yaml(
            server=server, logging={"access_log": "/proc/self/cwd/logs/access.log"}))
        assert answer.code == 1 and "dp-2" in answer.err and "access.log" in answer.err, answer
        assert "dp-1:" not in answer.err
        pair.wait_synced(before + 1, count=2)  # what was in force, sent again under a new number
        assert pair.status()["config"]["accepted_as"] == before and len(history(pair)) == 1
    finally:
        assert [plane.stop() for plane in planes] == [0, 0]


@pytest.mark.heavy
def test_kill_at_any_moment_loses_nothing(pair, backend):
    """What was acknowledged is in force after each kill -9, numbers go on, and every entry is whole."""
    generator, acknowledged, highest, before = random.Random(11), None, 1, None
    for i in range(25):
        result = {}
        def one(i=i, result=result):
            try:
                result["answer"] = pair.push(pair.yaml([route(f"r{i}", f"/r{i}", backend)]), "&wait=5")
            except (OSError, Cut):
                pass  # it was killed under us
        thread = threading.Thread(target=one)
        thread.start()
        time.sleep(generator.random() * 0.03 * SCALE)
        pair.controlplane.kill()
        thread.join(DEADLINE)
        answer = result.get("answer")
        if answer is not None and answer.status == 200:
            acknowledged = i
        pair.controlplane.start()
        pair.wait_ready(highest)
        shown, number = pair.ctl("show", "current").out, pair.status()["config"]["generation"]
        # The very text that was in force may keep its number, unless a push under way had taken the next; another never gets a used one.
        assert number > highest or number == highest and before in (None, shown), (number, highest, before, shown)
        highest, before = number, shown
        kept = history(pair)
        numbers = [e["generation"] for e in kept]
        assert numbers == sorted(numbers, reverse=True)
        for e in kept[:3]:
            assert len(pair.ctl("show", str(e["generation"])).out.encode()) == e["bytes"]
        if acknowledged is not None:
            # Unacknowledged ones may have made it; older ones than the acknowledged may not be in force.
            assert any(f"name: r{k}\n" in shown for k in range(acknowledged, i + 1)), (acknowledged, i, shown)
