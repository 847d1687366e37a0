"""From samples to figures: medians, ratios of rounds that were run side by side, verdicts on the targets."""
import statistics

from scenarios import TARGETS

RIVALS = ("nginx", "HAProxy")
NOISY_CORES = 0.05   # of one core, used by others
NOISY_SPREAD = 0.15  # of a ratio between rounds

UNITS = {"cpu_us": "µs CPU/request", "p50_us": "p50 µs", "p99_us": "p99 µs", "p999_us": "p99.9 µs", "failed": "failed",
         "bytes_each": "bytes/client", "start_ms": "ms to an answer", "rss_kib": "RSS KiB"}
MAIN = {"cpu": "cpu_us", "latency": "p99_us", "idle": "bytes_each", "start": "start_ms"}


def median(samples, metric):
    return statistics.median(s[metric] for s in samples)


def ratios(ours, theirs, metric):
    """Round by round: what slowed the machine down for a while slowed both."""
    return [a[metric] / b[metric] for a, b in zip(ours, theirs) if b[metric]]


def reference(columns, metric, against):
    """The label of the column to compare with; None when it was not measured."""
    if against != "best":
        return against if against in columns else None
    rivals = [label for label in columns if label in RIVALS]
    return min(rivals, key=lambda label: median(columns[label], metric), default=None)


def judge(target, columns):
    """A target with what was measured: {what, median, least, most, verdict}; None when something was not measured."""
    ours = columns.get(target.ours)
    if not ours:
        return None
    if target.against:
        label = reference(columns, target.metric, target.against)
        values = label and ratios(ours, columns[label], target.metric)
        what = f"{target.ours} / {label}"
    else:
        values, what = [s[target.metric] for s in ours], target.ours
    if not values:
        return None
    ordered = sorted(values)
    quarter, middle = len(ordered) // 4, statistics.median(ordered)
    low, high = ordered[quarter], ordered[-1 - quarter]
    verdict = "met" if high <= target.bound else "missed" if low > target.bound else "too noisy to tell"
    return {"what": f"{UNITS[target.metric]}: {what}", "bound": target.bound, "median": middle, "least": ordered[0],
            "most": ordered[-1], "verdict": verdict}


def noise(columns):
    """Why the figures say little; empty when nothing speaks against them."""
    reasons = []
    cores = statistics.median(s["others"] for samples in columns.values() for s in samples)
    if cores > NOISY_CORES:
        reasons.append(f"other programs used {cores:.2f} cores meanwhile")
    for label, samples in columns.items():
        values = [s["cpu_us"] for s in samples if s.get("cpu_us")]
        if len(values) > 1 and (max(values) - min(values)) / statistics.median(values) > NOISY_SPREAD:
            reasons.append(f"rounds of {label} differ by {(max(values) - min(values)) / statistics.median(values):.0%}")
    return reasons


def summarise(scenario, columns):
    """{label: {metric: median, ratio, least, most}} and the verdicts."""
    metric = MAIN[scenario.method]
    base = "floor" if "floor" in columns else next(iter(columns))
    rows = {}
    for label, samples in columns.items():
        row = {key: median(samples, key) for key in samples[0] if isinstance(samples[0][key], (int, float))}
        values = ratios(samples, columns[base], metric)
        row.update(ratio=statistics.median(values) if values else 0.0, least=min(values, default=0.0),
                   most=max(values, default=0.0))
        rows[label] = row
    verdicts = [v for v in (judge(t, columns) for t in TARGETS if t.scenario == scenario.name) if v]
    return {"title": scenario.title, "metric": metric, "base": base, "rows": rows, "targets": verdicts,
            "noise": noise(columns), "rounds": columns}


COLUMNS = {
    "cpu": (("cpu_us", "µs/request", 11, ".1f"), ("user_us", "of it user", 11, ".1f"), ("calls", "calls/req", 10, ".2f"),
            ("requests_per_s", "requests/s", 11, ",.0f"), ("p50_us", "p50 µs", 9, ",.0f"), ("p99_us", "p99 µs", 9, ",.0f"),
            ("rss_kib", "RSS KiB", 9, ",.0f")),
    "latency": (("p50_us", "p50 µs", 9, ",.0f"), ("p99_us", "p99 µs", 9, ",.0f"), ("p999_us", "p99.9 µs", 9, ",.0f"),
                ("max_us", "max µs", 10, ",.0f"), ("failed", "failed", 8, ",.0f")),
    "idle": (("bytes_each", "bytes/client", 13, ",.0f"), ("rss_kib", "RSS KiB", 9, ",.0f")),
    "start": (("start_ms", "ms", 9, ".1f"), ("rss_kib", "RSS KiB", 9, ",.0f"), ("control_ms", "control ms", 11, ".1f"),
              ("control_rss_kib", "control KiB", 12, ",.0f")),
}


def show(scenario, summary):
    """Prints a scenario's table."""
    columns = [c for c in COLUMNS[scenario.method] if any(c[0] in row for row in summary["rows"].values())]
    print(f"\n{scenario.name}: {scenario.title}")
    print(f"{'':24}" + "".join(f"{title:>{width}}" for _, title, width, _ in columns)
          + f"{'/ ' + summary['base']:>18} {'min–max':>11}")
    for label, row in summary["rows"].items():
        cells = "".join(f"{format(row[key], form) if row.get(key) is not None else '–':>{width}}"
                        for key, _, width, form in columns)
        print(f"{label:24}{cells}{row['ratio']:18.2f} {row['least']:5.2f}–{row['most']:.2f}")
    for t in summary["targets"]:
        print(f"  {t['what']}: {t['median']:.2f} ({t['least']:.2f}–{t['most']:.2f}), at most {t['bound']:g}: {t['verdict']}")
    for reason in summary["noise"]:
        print(f"  The machine was noisy: {reason}.")
