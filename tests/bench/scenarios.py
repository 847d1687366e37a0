"""What is measured, as a table, and what shall come out."""
import dataclasses

ALL = ("floor", "nginx", "HAProxy", "gateway-pro")
PROXIES = ALL[1:]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One column of a scenario: a subject with its configuration, and what its clients do besides the scenario's load."""
    label: str
    kind: str
    setup: dict = dataclasses.field(default_factory=dict)
    load: tuple = ()
    reloads: bool = False  # once a second while it is measured


@dataclasses.dataclass(frozen=True)
class Scenario:
    """`method` names how it is measured: a function of bench.py."""
    name: str
    title: str
    variants: tuple
    load: tuple = ()
    method: str = "cpu"
    origins: int = 1
    share: float = 0  # of the slowest one's throughput, at which clients ask in an open loop


@dataclasses.dataclass(frozen=True)
class Target:
    """`metric` of `ours` at most `bound` times that of `against`; "best" = the better of the rivals, "" = `bound` itself."""
    scenario: str
    metric: str
    bound: float
    against: str = "best"
    ours: str = "gateway-pro"


def everyone(kinds=ALL, **setup):
    return tuple(Variant(kind, kind, setup) for kind in kinds)


def sizes(key, counts, load=lambda n: ()):
    """Each proxy with each size of its configuration."""
    return tuple(Variant(f"{kind} {n:,}", kind, {key: n}, load(n)) for kind in PROXIES for n in counts)


def with_reloads(rate):
    return tuple(Variant(f"{kind}{' reloading' if r else ''}", kind, {}, ("--rate", str(rate)), r)
                 for kind in PROXIES for r in (False, True))


BIG = ("--connections", "8")

SCENARIOS = (
    Scenario("plain", "Small keep-alive requests", everyone()),
    Scenario("full", "The same with limiter, breaker, metrics and JSON access log",
             (Variant("floor", "floor"), *everyone(PROXIES, full=True))),
    Scenario("workers", "Two workers", everyone(workers=2), ("--connections", "64")),
    Scenario("new", "A new connection for each request", everyone(), ("--new",)),
    Scenario("down64k", "Downloads of 64 KiB", everyone(), ("--get", "/bytes/65536", "--connections", "16")),
    Scenario("up64k", "Uploads of 64 KiB", everyone(), ("--upload", "65536", "--connections", "16")),
    Scenario("down1m", "Downloads of 1 MiB", everyone(), ("--get", "/bytes/1048576", *BIG)),
    Scenario("up1m", "Uploads of 1 MiB", everyone(), ("--upload", "1048576", *BIG)),
    Scenario("websocket", "WebSocket messages of 128 bytes, there and back", everyone(), ("--websocket", "128")),
    Scenario("routes", "1, 100 and 10,000 routes", sizes("routes", (1, 100, 10000), lambda n: ("--paths", str(n)))),
    Scenario("endpoints", "2 and 1,000 endpoints", sizes("endpoints", (2, 1000)), origins=1000),
    Scenario("redis", "Rate limits counted in the process and in Redis",
             (Variant("gateway-pro unlimited", "gateway-pro"), Variant("gateway-pro limited", "gateway-pro", {"full": True}),
              Variant("gateway-pro Redis", "gateway-pro", {"full": True, "redis": "yes"}))),
    Scenario("latency", "Waiting times at half load, open loop", everyone(), method="latency", share=0.5),
    Scenario("reload", "A new configuration every second at 3,000 requests/s, open loop", with_reloads(3000),
             method="latency"),
    Scenario("idle", "10,000 idle keep-alive clients", everyone(), method="idle"),
    Scenario("start", "Start to first answer", everyone(PROXIES), method="start"),
)

TARGETS = (
    Target("plain", "cpu_us", 1.15, "floor"),
    Target("plain", "cpu_us", 0.75),
    Target("full", "cpu_us", 1.25, "floor"),
    Target("full", "cpu_us", 0.75),
    Target("new", "cpu_us", 0.85),
    Target("down1m", "cpu_us", 1.0),
    Target("up1m", "cpu_us", 1.0),
    Target("routes", "cpu_us", 1.02, "gateway-pro 1", "gateway-pro 10,000"),
    Target("latency", "p99_us", 1.0),
    Target("latency", "p999_us", 1.0),
    Target("reload", "p99_us", 1.05, "gateway-pro", "gateway-pro reloading"),
    Target("reload", "failed", 0, "", "gateway-pro reloading"),
    Target("idle", "bytes_each", 256, ""),
    Target("idle", "bytes_each", 1.0),
    Target("start", "start_ms", 50, ""),
    Target("start", "rss_kib", 10 * 1024, ""),
)
