#!/usr/bin/python3
"""The pair beside a byte relay, nginx and HAProxy with the same duties, in interleaved rounds of one run.

What is measured has core 0 to itself; clients and backend share the others. Read CPU per request rather than throughput, which
is the clients' where they are the bottleneck. Ratios carry over to other machines, microseconds do not.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

import chart
import meters
import results
from scenarios import SCENARIOS
from subjects import KINDS, Failed, Machine, Setup, answers, available, wait_until

HERE = pathlib.Path(__file__).resolve().parent
PREPARE_S = 1  # at most: to warm up, to find a rate, to count system calls
RELOAD_EVERY_S = 1
IDLE_CLIENTS = 10000  # where descriptors allow: the floor takes two for each


class Run:
    """One run: its options, and the machine's state while it lasts."""

    def __init__(self, args):
        self.rounds, self.seconds = args.rounds, args.seconds
        self.machine = Machine(args.build)

    # ---- load ----

    def clients(self, subject, arguments, **more):
        command = [self.machine.build / "bench" / "clients", subject.address, *arguments]
        cores = ",".join(map(str, self.machine.all if subject.setup.workers > 1 else self.machine.other))
        return subprocess.Popen(["taskset", "-c", cores, *map(str, command)], stdout=subprocess.PIPE, text=True, **more)

    def load(self, subject, variant, scenario, seconds, *more):
        """What the clients say of so many seconds."""
        process = self.clients(subject, [*scenario.load, *variant.load, "--seconds", seconds, *more])
        reloads = 0
        while variant.reloads and reloads * RELOAD_EVERY_S < seconds - 0.5:
            time.sleep(RELOAD_EVERY_S)
            reloads += 1
            timeout = 31 if subject.setup.timeout_s == 30 else 30
            subject.reload(Setup(**{**subject.setup.__dict__, "timeout_s": timeout}))
        out = process.communicate(timeout=seconds + 60)[0]
        if process.returncode:
            raise Failed(f"the clients of {subject.label} gave up")
        said = json.loads(out)
        said["failed"] = sum(said[why] for why in ("unanswered", "cut", "refused", "bad_status"))
        return said

    def sample(self, subject, variant, scenario, *more):
        """One round of one subject."""
        others = meters.Others()
        cpu, began = meters.cpu_seconds(subject.pids), time.monotonic()
        ticks, _ = meters.user_share(subject.pids)
        said = self.load(subject, variant, scenario, self.seconds, *more)
        spent = meters.cpu_seconds(subject.pids) - cpu
        _, share = meters.user_share(subject.pids, ticks)
        each_us = spent / max(said["requests"], 1) * 1e6
        latency = said["latency_us"]
        if said["failed"] and not variant.reloads:
            raise Failed(f"{subject.label} failed {said['failed']} of {said['requests']} requests")
        return {"cpu_us": each_us, "user_us": each_us * share, "requests_per_s": said["requests"] / said["seconds"],
                "p50_us": latency["p50"], "p99_us": latency["p99"], "p999_us": latency["p999"], "max_us": latency["max"],
                "failed": said["failed"], "own_delay_p99_us": said["own_delay_us"]["p99"],
                "rss_kib": meters.rss_kib(subject.pids), "others": others.cores(time.monotonic() - began)}

    def count_calls(self, subject, variant, scenario):
        counter = meters.SystemCalls(subject.pids)
        said = self.load(subject, variant, scenario, min(PREPARE_S, self.seconds))
        calls = counter.stop()
        return calls / said["requests"] if calls and said["requests"] else None

    # ---- methods: {label: [sample of each round]} ----

    def start_all(self, scenario):
        endpoints = self.machine.start_origin(scenario.origins)
        started = []
        for variant in scenario.variants:
            if not available(variant.kind):
                print(f"bench: {variant.kind} is not installed and left out")
                continue
            setup = dict(variant.setup)
            setup["endpoints"] = endpoints[:setup.get("endpoints", 1)]
            if setup.get("redis"):
                setup["redis"] = self.machine.start_redis()
            started.append((KINDS[variant.kind](self.machine, variant.label, Setup(**setup)), variant))
        return started

    def interleave(self, started, scenario, *more):
        columns = {subject.label: [] for subject, _ in started}
        for _ in range(self.rounds):
            for subject, variant in started:
                columns[subject.label].append(self.sample(subject, variant, scenario, *more))
        return columns

    def cpu(self, scenario):
        """Closed loop: CPU per request."""
        started = self.start_all(scenario)
        for subject, variant in started:
            self.load(subject, variant, scenario, min(PREPARE_S, self.seconds))
        columns = self.interleave(started, scenario)
        for subject, variant in started:
            calls = self.count_calls(subject, variant, scenario)
            for sample in columns[subject.label]:
                if calls:
                    sample["calls"] = calls
        return columns

    def latency(self, scenario):
        """Open loop, at a rate that the slowest can do: how long answers take."""
        started = self.start_all(scenario)
        if not scenario.share:
            return self.interleave(started, scenario)
        trials = [self.load(subject, variant, scenario, min(PREPARE_S, self.seconds)) for subject, variant in started]
        most = min(said["requests"] / said["seconds"] for said in trials)
        rate = int(most * scenario.share) // 100 * 100
        print(f"latency: {rate:,} requests/s, {scenario.share:g} of what the slowest one does")
        return self.interleave(started, scenario, "--rate", rate)

    def idle(self, scenario):
        """Memory that clients cost which have asked once and stay. Once: memory that was taken is not given back."""
        columns = {}
        count = min(IDLE_CLIENTS, self.machine.connections // 2)
        for subject, variant in self.start_all(scenario):
            others, began = meters.Others(), time.monotonic()
            before = meters.rss_kib(subject.pids)
            process = self.clients(subject, ["--connections", count, "--hold"], stdin=subprocess.PIPE)
            said = json.loads(process.stdout.readline() or '{"requests": 0}')
            if said["requests"] < count:
                raise Failed(f"{subject.label} answered {said['requests']} of {count} idle clients")
            after = meters.rss_kib(subject.pids)
            process.stdin.close()
            process.wait(30)
            columns[subject.label] = [{"bytes_each": (after - before) * 1024 / said["requests"], "rss_kib": after,
                                       "others": others.cores(time.monotonic() - began)}]
            subject.stop()
        return columns

    def start(self, scenario):
        """From exec to the first answer, with what was stored by an earlier start; of the pair each program alone."""
        columns = {}
        for subject, _ in self.start_all(scenario):
            columns[subject.label] = samples = []
            subject.stop()
            for _ in range(self.rounds):
                others, began = meters.Others(), time.monotonic()
                sample = {}
                if subject.name == "gateway-pro":
                    port = int(subject.admin.rsplit(":", 1)[1])
                    sample["control_ms"] = self.time_start(subject.start_control, port, "/healthz")
                    sample["control_rss_kib"] = meters.rss_kib([subject.control.pid])
                    subject.stop()
                    sample["start_ms"] = self.time_start(subject.start_data, subject.port)
                else:
                    sample["start_ms"] = self.time_start(subject.start, subject.port)
                sample["rss_kib"] = meters.rss_kib(subject.pids)
                subject.stop()
                samples.append({**sample, "others": others.cores(time.monotonic() - began)})
        return columns

    @staticmethod
    def time_start(start, port, path="/"):
        began = time.monotonic()
        start()
        wait_until(f"an answer on port {port}", lambda: answers(port, path), pause_s=0.0005)
        return (time.monotonic() - began) * 1000


def parse_arguments():
    names = [s.name for s in SCENARIOS]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                      epilog="Scenarios: " + ", ".join(names))
    options.add_argument("--build", type=pathlib.Path, default=HERE.parent.parent / "build")
    options.add_argument("--scenarios", default=",".join(names), help="names with commas between them; default: all")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=3, help="of each subject in each round")
    options.add_argument("--out", type=pathlib.Path, help="folder for results.json and results.svg; default: BUILD/bench")
    args = options.parse_args()
    args.scenarios = args.scenarios.replace(",", " ").split() or names
    unknown = [name for name in args.scenarios if name not in names]
    if unknown:
        options.error(f"there is no scenario {', '.join(unknown)}: {', '.join(names)}")
    return args


def main():
    args = parse_arguments()
    out = args.out or args.build / "bench"
    out.mkdir(parents=True, exist_ok=True)
    awake = meters.hold_cpus_awake()
    done = {"machine": meters.machine(), "awake": awake is not None, "rounds": args.rounds, "seconds": args.seconds,
            "versions": {kind.name: kind.version() for kind in KINDS.values()}, "scenarios": {}}
    print(f"{done['machine']['cpu']}, {done['machine']['cores']} cores, Linux {done['machine']['kernel']}; "
          f"nginx {done['versions']['nginx'] or 'missing'}, HAProxy {done['versions']['HAProxy'] or 'missing'}; "
          f"{args.rounds} rounds of {args.seconds:g} s, interleaved")
    for scenario in (s for s in SCENARIOS if s.name in args.scenarios):
        run = Run(args)
        try:
            columns = getattr(run, scenario.method)(scenario)
        except Failed as failed:
            sys.exit(f"bench: {scenario.name}: {failed}")
        finally:
            run.machine.close()
        done["scenarios"][scenario.name] = summary = results.summarise(scenario, columns)
        results.show(scenario, summary)
        (out / "results.json").write_text(json.dumps(done, indent=1) + "\n")
        (out / "results.svg").write_text(chart.draw(done))
    print(f"\nWritten: {out}/results.json, {out}/results.svg")


if __name__ == "__main__":
    main()
