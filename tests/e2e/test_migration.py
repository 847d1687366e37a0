"""deploy/MIGRATION.md says what a gateway.yaml of the Go program does here. Its example and its tables are what is tested."""
import re

import pytest

from harness import BUILD, ROOT, run_ctl, wait_until

PAGE = (ROOT / "deploy" / "MIGRATION.md").read_text()
EXAMPLE = re.search(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)[1]
ENDPOINTS = re.findall(r"^\| `GET :9090(/\w+)` \|", PAGE, re.M)
METRICS = re.findall(r"^\| `(gateway_\w+)` \| (\w+) \| (.*?)\|$", PAGE, re.M)


@pytest.fixture
def migrated(make_pair, backends):
    """The example, with this machine's ports and backends in it and nothing else changed, started with its flag."""
    a, b = backends("a", "b")
    pair = make_pair([], start=False)
    text = EXAMPLE
    for old, new in ((":8080\"", f":{pair.port}\""), (":9090\"", f":{pair.admin_port}\""),
                     ("http://user-svc-1:8080", a.url), ("http://user-svc-2:8080", b.url)):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    pair.write_config(text)
    pair.controlplane.argv = [BUILD / "gwp-controlplane", "-config", pair.config_path, "-socket", pair.socket,
                              "-state-dir", pair.cp_state, "-admin-socket", pair.admin_socket]
    pair.controlplane.argv = [str(word) for word in pair.controlplane.argv]
    pair.controlplane.start()
    pair.dataplane.start()
    pair.wait_ready()
    return pair


def test_example_is_valid_as_it_stands(tmp_path):
    """No error, and no warning either."""
    path = tmp_path / "gateway.yaml"
    path.write_text(EXAMPLE)
    answer = run_ctl([BUILD / "gwpctl", "validate", path])
    assert answer.code == 0 and answer.err == ""


@pytest.mark.parametrize("value, code, said", [
    ("${GWP_NOT_SET}", 1, "error: "), ("${GWP_NOT_SET:-}", 0, "is valid"), ("$GWP_NOT_SET", 0, "warning: ")])
def test_variables_are_what_the_page_says(tmp_path, value, code, said):
    """One that is not set is refused, one with an empty default is not, one without braces is text."""
    path = tmp_path / "gateway.yaml"
    path.write_text(EXAMPLE.replace("strip_prefix: false", f'name: "users{value}"'))
    answer = run_ctl([BUILD / "gwpctl", "validate", path])
    assert answer.code == code and said in answer.out + answer.err, answer


def test_example_serves_with_the_endpoints_and_metrics_that_are_promised(migrated):
    """Every row of the tables: endpoints answer, metrics have the type and labels."""
    answers = [migrated.get("/api/users/1") for _ in range(4)]
    assert [a.status for a in answers] == [200] * 4
    assert {a.json()["name"] for a in answers} == {"a", "b"}
    assert migrated.get("/api/usersX").status == 404
    assert len(ENDPOINTS) == 4 and len(METRICS) == 3
    for path in ENDPOINTS:
        assert migrated.admin("GET", path, private=False).status == 200, path
    wait_until(lambda: migrated.metric("gateway_requests_total", route="/api/users", method="GET", status="200") == 4,
               "four requests are counted")
    text = migrated.admin("GET", "/metrics", private=False).body.decode()
    for name, kind, labels in METRICS:
        assert f"# TYPE {name} {kind}\n" in text
        sample = re.search(rf"^{name}(?:_count)?(?:{{(.*?)}})? ", text, re.M)
        wanted = re.findall(r"`(\w+)`", labels)
        assert set(re.findall(r'(\w+)="', sample[1] or "")) == set(wanted), sample[0]


def test_without_healthy_backends_it_is_not_ready(migrated, request):
    """As before: 503 on /readyz, while /healthz is about the process."""
    for backend in request.node.backends:
        backend.kill()
    wait_until(lambda: migrated.admin("GET", "/readyz", private=False).status == 503, "it is not ready", 30)
    assert migrated.admin("GET", "/healthz", private=False).status == 200


def test_a_mistake_changes_nothing(migrated):
    """The whole file is refused, with a suggestion."""
    migrated.expect_refusal()
    migrated.write_config(migrated.config_path.read_text().replace("lb_algorithm", "lb_algoritm"))
    wait_until(lambda: not migrated.status()["config"]["last_reload"]["ok"], "it is refused")
    assert "did you mean" in migrated.controlplane.log()
    assert migrated.get("/api/users").status == 200
