"""What shells complete behind gwpctl, and the manual page: both made from the table of commands."""
import re
import shlex
import subprocess

import pytest

from harness import BUILD, DEADLINE, run_ctl

CTL = BUILD / "gwpctl"

BASH = """
source <({ctl} completion bash)
COMP_WORDS=(gwpctl {words}); COMP_CWORD={last}
_gwpctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

# Outside of a completion there is no compadd: what would be offered is printed instead.
ZSH = """
compdef() {{ [[ "$*" == '_gwpctl gwpctl' ]] || exit 3 }}
compadd() {{ shift; print -l -- "$@" | grep -- "^${{cur}}" }}
_files() {{ print -l -- *(N) | grep -- "^${{cur}}" }}
source <({ctl} completion zsh)
words=(gwpctl {words}); CURRENT=$(( {last} + 1 ))
_gwpctl
"""

FISH = """
source ({ctl} completion fish | psub)
complete -C {line}
"""


def complete(shell, folder, *words):
    """The candidates for the last word."""
    quoted = " ".join(shlex.quote(w) for w in words)
    script = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].format(
        ctl=CTL, words=quoted, last=len(words), line=shlex.quote("gwpctl " + " ".join(words)))
    argv = [shell] + {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run([*argv, "-c", script], cwd=folder, capture_output=True, text=True,
                          timeout=DEADLINE, check=False, env={"HOME": str(folder), "PATH": "/usr/bin:/bin",
                                                              "TERM": "dumb"})
    assert done.returncode in (0, 1) and not done.stderr, done  # 1: grep of our stand-ins found nothing
    return {line.split("\t")[0] for line in done.stdout.splitlines() if line}


@pytest.fixture(name="folder")
def _folder(tmp_path):
    (tmp_path / "gateway.yaml").write_text("routes: []\n")
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_operands_are_completed(shell, folder):
    """Each where it may stand, and nothing else there."""
    def offered(*words):
        return complete(shell, folder, *words)
    assert {"push", "validate", "status", "help"} <= offered("")
    assert not {"config", "gateway.yaml"} & offered("")
    assert offered("stat") == {"status"}
    assert offered("push", "") == {"config"}
    assert "gateway.yaml" in offered("push", "config", "")
    assert offered("push", "config", "--dry") == {"--dry-run"}
    assert offered("push", "config", "gateway.yaml", "--wai") == {"--wait"}
    assert offered("status", "--wai") == set()
    assert offered("status", "--output", "") == {"json", "table"}
    assert offered("--output", "json", "stat") == {"status"}  # the value of an option is no command
    assert offered("--admin", "status", "") >= {"status", "push"}
    assert offered("weight", "127.0.0.1:80", "") == {"default"}
    assert offered("completion", "") == {"bash", "zsh", "fish"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_of_help_is_completed(shell, folder):
    """Nothing of the table is left out."""
    overview = run_ctl([CTL, "--help"]).out
    names = re.findall(r"^  (\w[\w ]*?)  ", overview.split("Commands:")[1].split("Options,")[0], re.M)
    assert len(names) > 8
    for name in names:
        words = name.split()
        if words[0] == "help":
            continue
        for i, word in enumerate(words):
            assert word in complete(shell, folder, *words[:i], word[:-1]), name
        for option in re.findall(r"^  (?:-\w, )?(--[\w-]+)", run_ctl([CTL, name.split()[0], *words[1:], "--help"]).out,
                                 re.M):
            assert option in complete(shell, folder, *words, option[:-1]), (name, option)


def test_unknown_shell_is_wrong_usage():
    """With those that there are."""
    answer = run_ctl([CTL, "completion", "tcsh"])
    assert answer.code == 64 and "bash zsh fish" in answer.err


def test_manual_page_is_clean_and_complete(tmp_path):
    """groff has nothing to say against it, and each command is in it with its examples."""
    page = run_ctl([CTL, "manual"]).out
    path = tmp_path / "gwpctl.1"
    path.write_text(page)
    lint = subprocess.run(["groff", "-man", "-ww", "-z", path], capture_output=True, text=True, check=False)
    assert lint.returncode == 0 and not lint.stderr, lint
    shown = subprocess.run(["groff", "-man", "-Tutf8", "-P-cbou", "-rLL=200n", path], capture_output=True, text=True,
                           check=True).stdout
    flat = " ".join(shown.split())
    for name in re.findall(r"^\.SS ([\w ]+?)(?: [\[A-Z].*)?$", page, re.M):
        assert f"gwpctl {name}" in flat, name
    for line in (".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH COMMANDS", '.SH "EXIT STATUS"'):
        assert line in page
    assert "jq '.diagnostics[].message'" in flat  # quotes and brackets arrive as they are typed


@pytest.mark.parametrize("program", ["gwp-controlplane", "gwp-dataplane"])
def test_manual_pages_of_the_programs_are_clean_and_complete(program, tmp_path):
    """Every option of --help is in it."""
    def say(option):
        return subprocess.run([BUILD / program, option], capture_output=True, text=True, check=True).stdout
    path = tmp_path / f"{program}.8"
    path.write_text(say("--manual"))
    lint = subprocess.run(["groff", "-man", "-ww", "-z", path], capture_output=True, text=True, check=False)
    assert lint.returncode == 0 and not lint.stderr, lint
    options = set(re.findall(r"^  (--[\w-]+)", say("--help"), re.M)) - {"--help", "--version", "--manual"}
    assert len(options) >= 5
    for option in options:
        assert option.replace("-", "\\-") in path.read_text()


# ---- being helped ----

@pytest.mark.parametrize("typed, meant", [
    (["stauts"], "status"), (["pussh", "config"], "push config"), (["reloda"], "reload"),
    (["validate", "x", "--outptu", "json"], "--output"), (["push", "config", "x", "--dryrun"], "--dry-run"),
])
def test_misspelt_words_are_suggested(typed, meant):
    """As with keys of the configuration."""
    answer = run_ctl([CTL, *typed])
    assert answer.code == 64 and f'did you mean "{meant}"?' in answer.err, answer


def test_half_a_command_names_the_whole():
    """All that begin so."""
    answer = run_ctl([CTL, "push"])
    assert answer.code == 64 and "gwpctl push config" in answer.err
