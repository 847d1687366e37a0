#!/usr/bin/python3
"""User instructions of a worker for each request, counted by callgrind: what a change costs, told apart from noise.

One client asks one request after the other, so each takes the same way: two turns of the loop. The numbers are compared with
those in instructions.json; growth beyond 3 % fails. A change that is worth it records its own with --record.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

from subjects import Failed, Machine, Pair, Setup

HERE = pathlib.Path(__file__).resolve().parent
RECORD = HERE / "instructions.json"
KINDS = {"plain": ({}, ()), "full": ({"full": True}, ()), "new": ({}, ("--new",))}  # of Setup; of the clients
WARM_UP, REQUESTS = 300, 2000
MOST_GROWTH = 0.03


class CountedPair(Pair):
    """The data plane under callgrind, which counts while it is told to."""

    def start_data(self):
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", "--dump-line=no",
                   f"--callgrind-out-file={self.folder}/callgrind", self.machine.build / "gwp-dataplane", "--state-dir",
                   self.folder / "dp"]
        self.data = self.run("dataplane", command, env=self.env)

    def count(self, on):
        subprocess.run(["callgrind_control", "-i", "on" if on else "off", str(self.data.pid)], check=True,
                       capture_output=True)


def ask(machine, pair, count, how):
    out = subprocess.run([machine.build / "bench" / "clients", pair.address, "--connections", "1", "--seconds", "120",
                          "--count", str(count), *how], capture_output=True, text=True, check=True).stdout
    if json.loads(out)["requests"] != count:
        raise Failed(f"not every request was answered: {out}")


def total(path):
    found = re.search(r"^totals: (\d+)", path.read_text(), re.M)
    return int(found[1]) if found else 0


def measure(build, kind, functions):
    """Instructions per request of the worker (who takes turns), and of all other threads; prints the costliest functions if asked to."""
    setup, how = KINDS[kind]
    machine = Machine(build)
    try:
        pair = CountedPair(machine, "counted", Setup(endpoints=machine.start_origin(), **setup))
        ask(machine, pair, WARM_UP, how)
        pair.count(True)
        ask(machine, pair, REQUESTS, how)
        pair.count(False)
        pair.stop()
        threads = list(pair.folder.glob("callgrind-*"))
        worker = next((path for path in threads if "take_turn" in path.read_text()), None)
        if not worker:
            raise Failed("callgrind has left no counts of a worker")
        if functions:
            shown = subprocess.run(["callgrind_annotate", "--threshold=100", worker], capture_output=True, text=True,
                                   check=True).stdout
            rows = re.findall(r"^\s*([\d,]+) \([^)]*\)\s+(?:\S*/)?([^/\n]*?:\S+)", shown, re.M)
            for cost, name in rows[:functions]:
                print(f"{int(cost.replace(',', '')) / REQUESTS:10.0f}  {name}")
        others = sum(total(path) for path in threads if path != worker)
        return round(total(worker) / REQUESTS), round(others / REQUESTS)
    finally:
        machine.close()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", type=pathlib.Path, default=HERE.parent.parent / "build")
    options.add_argument("--record", action="store_true", help="write what was counted to instructions.json")
    options.add_argument("--functions", type=int, default=0, help="show so many of the costliest functions")
    options.add_argument("--only", choices=KINDS)
    args = options.parse_args()
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    counted, grown = {}, False
    for name in [args.only] if args.only else KINDS:
        try:
            worker, others = measure(args.build, name, args.functions)
        except Failed as failed:
            sys.exit(f"bench-instructions: {name}: {failed}")
        counted[name] = worker
        before = recorded.get(name)
        change = worker / before - 1 if before else 0
        print(f"{name}: {worker:,} instructions per request in the worker"
              + (f", {before:,} recorded: {change:+.1%}" if before else "") + f"; {others:,} in other threads")
        grown = grown or change > MOST_GROWTH
    if args.record:
        RECORD.write_text(json.dumps({**recorded, **counted}, indent=2) + "\n")
    elif grown:
        sys.exit(f"bench-instructions: more than {MOST_GROWTH:.0%} above what is recorded. If the change is worth it, record it: "
                 "make bench-instructions RECORD=1")


if __name__ == "__main__":
    main()
