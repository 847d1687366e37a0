"""What is delivered for Prometheus and Grafana: rules that load and fire when they shall, and panels whose every query has an answer."""
import json
import re
import subprocess
import urllib.parse
import urllib.request

import pytest
import yaml

from harness import ROOT, Program, free_port, route, wait_until

RULES = ROOT / "deploy" / "prometheus" / "gateway.rules.yml"
RULE_TESTS = ROOT / "tests" / "prometheus" / "gateway.test.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "gateway-pro.json"


def promtool(*args):
    """Runs it in the repository."""
    return subprocess.run(["promtool", *map(str, args)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_rules_load_and_fire_when_they_shall():
    """promtool check rules, promtool test rules; every alert has a case in which it fires."""
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    done = promtool("test", "rules", RULE_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = {r["alert"] for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"] if "alert" in r}
    fired = {t["alertname"] for case in yaml.safe_load(RULE_TESTS.read_text())["tests"] for t in case.get("alert_rule_test", [])
             if t["exp_alerts"]}
    assert alerts == fired


class Prometheus(Program):
    """A real one that scrapes a pair every quarter of a second and has the rules loaded."""

    def __init__(self, pair, folder):
        self.port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump({
            "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"}, "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": [f"127.0.0.1:{pair.admin_port}"]}]}]}))
        super().__init__("prometheus", ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb",
                                        f"--web.listen-address=127.0.0.1:{self.port}"], folder)

    def ask(self, path, **query):
        """Its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression):
        """The samples of a query, but for those that are no number."""
        return [s for s in self.ask("query", query=expression)["result"] if s["value"][1] != "NaN"]


@pytest.fixture
def scraped(make_pair, backends, tmp_path):
    """A pair in which everything happens that a panel shows, and a Prometheus that sees it."""
    a, b = backends("a", "b")
    pair = make_pair([route("all", "/", a, circuit_breaker={"min_requests": 1000}),
                      route("trips", "/status", b, circuit_breaker={"min_requests": 3, "open_duration_seconds": 0.3}),
                      route("few", "/few", a, rate_limit={"rate": 2, "burst": 2}),
                      route("dead", "/dead", "http://127.0.0.1:1", health_check={"interval_seconds": 0.1, "timeout_seconds": 0.1})])
    prometheus = Prometheus(pair, tmp_path).start()
    generations = iter(range(20, 1000))

    def traffic():
        with pair.client() as c:
            for _ in range(5):
                for path in ("/", "/few", "/few", "/status/503", "/close", "/dead"):
                    c.request("GET", path)

    def change():
        return pair.push(pair.yaml([{**r, "timeout_seconds": next(generations)} if r["name"] == "all" else r for r in pair.routes]))
    yield pair, prometheus, traffic, change
    prometheus.kill()


@pytest.mark.heavy
def test_every_panel_has_an_answer(scraped):
    """Each query of the dashboard against that Prometheus; and the rules are without error there."""
    pair, prometheus, traffic, change = scraped
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [t["expr"] for p in dashboard["panels"] for t in p.get("targets", [])]
    queries += [a["expr"] for a in dashboard["annotations"]["list"]]
    assert len(queries) > 40
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            queries.append(f"count by ({label}) ({metric})")
    ready = {"$__rate_interval": "1m", "$route": ".*", "$job": ".*"}

    def unanswered():
        left = []
        for query in queries:
            for name, value in ready.items():
                query = query.replace(name, value)
            assert "$" not in query, query
            if not prometheus.values(query):
                left.append(query)
        return left

    def all_answered():
        traffic()
        assert change().status == 200
        left = unanswered()
        assert not left, left
        return True
    wait_until(all_answered, "every query has an answer", 60)
    groups = prometheus.ask("rules")["groups"]
    rules = [r for g in groups for r in g["rules"]]
    assert len(rules) > 15 and all(r["health"] != "err" for r in rules), [r for r in rules if r["health"] == "err"]
    assert pair.status()["dataplanes"]
