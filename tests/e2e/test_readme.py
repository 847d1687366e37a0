"""What the README shows of a terminal is what gwpctl prints."""
import re
import shlex

from harness import BUILD, ROOT, run_ctl

SHOWN = dict(re.findall(r"^```\n\$ gwpctl (.+)\n((?:.*\n)+?)```$", (ROOT / "README.md").read_text(), re.M))
BROKEN = """routes:
  - name: users
    path_prefix: /api/users
    lb_algoritm: round_robin
    backends: [{url: "http://127.0.0.1:1"}]
"""


def shown(verb):
    """The command line of that verb, and the lines under it."""
    line, = [line for line in SHOWN if line.split()[0] == verb]
    return shlex.split(line), SHOWN[line]


def without_figures(text):
    return re.sub(r"\d+(\.\d+)*", "N", text)


def test_validate_prints_what_is_shown(tmp_path, monkeypatch):
    argv, lines = shown("validate")
    (tmp_path / argv[-1]).write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    assert run_ctl([BUILD.absolute() / "gwpctl", *argv]).err == lines


def test_explain_prints_what_is_shown(make_pair, backends):
    """But for the figures."""
    argv, lines = shown("explain")
    pair = make_pair([{"name": "users", "path_prefix": "/api/users", "backends": [{"url": backends("a")[0].url}],
                       "rate_limit": {"rate": 500, "burst": 1000, "key_by": "api_key"}}])
    wanted, rest = lines.split("...\n")
    assert rest == ""
    assert without_figures(pair.ctl(*argv).out).startswith(without_figures(wanted))
