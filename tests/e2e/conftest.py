"""Fixtures: backends and pairs, and what is checked after every test."""
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import BUILD, Backend, Pair, route  # noqa: E402


def pytest_configure(config):
    """Markers that a run may leave out."""
    config.addinivalue_line("markers", "heavy: needs the release build or a lot of time")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Remembers how a test went, and shows the programs' logs when it failed."""
    report = (yield).get_result()
    setattr(item, "report_" + report.when, report)
    if report.failed:
        for pair in getattr(item, "pairs", []):
            for path in sorted(pair.folder.glob("*.err")):
                report.sections.append((path.name, path.read_text(errors="replace")[-6000:]))


@pytest.fixture(scope="session", autouse=True)
def programs():
    """Nothing here makes sense without the programs."""
    for name in ("gwp-controlplane", "gwp-dataplane", "gwpctl"):
        if not (BUILD / name).exists():
            pytest.exit(f"{BUILD / name} does not exist: run make first", 2)


@pytest.fixture
def backends(request):
    """Starts backends by name: backends("a", "b")."""
    started = request.node.backends = []
    with tempfile.TemporaryDirectory(prefix="gwp-backend-") as folder:
        def start(*names):
            made = [Backend(name, folder).start() for name in names]
            started.extend(made)
            return made
        yield start
        for backend in started:
            backend.kill()


@pytest.fixture
def backend(backends):
    """One backend."""
    return backends("a")[0]


@pytest.fixture
def make_pair(request, backends):
    """Starts pairs: make_pair([route, ...], server={...}); start=False leaves that to the test."""
    pairs = request.node.pairs = []

    def make(routes, start=True, **more):
        pair = Pair(routes, **more)
        pairs.append(pair)
        return pair.start() if start else pair

    yield make
    try:
        # A test that failed has said enough; its leftovers would only hide that.
        call = getattr(request.node, "report_call", None)
        if call is not None and call.passed:
            for pair in pairs:
                pair.finish(request.node.backends)
    finally:
        for pair in pairs:
            pair.destroy()


@pytest.fixture
def pair(make_pair, backend):
    """A pair with one route, "all", to one backend."""
    return make_pair([route("all", "/", backend)])
