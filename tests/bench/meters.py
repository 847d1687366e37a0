"""What is read off processes: CPU, memory, system calls; and how much of the machine others used meanwhile."""
import os
import pathlib
import re
import resource
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid):
    """The process and its descendants."""
    found = [pid]
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                found += tree(int(child))
    except OSError:
        pass  # it has ended
    return found


def cpu_seconds(pids):
    """On a CPU so far, in nanoseconds' resolution: all threads of the processes and their descendants."""
    total = 0
    for pid in (p for root in pids for p in tree(root)):
        for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(stat.read_text().split()[0])
            except OSError:
                pass
    return total / 1e9


def user_share(pids, since=(0, 0)):
    """((user, system) ticks so far, share of user time since `since`): by the clock's tick, so only good for seconds."""
    user = system = 0
    for pid in (p for root in pids for p in tree(root)):
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        user += int(fields[11])
        system += int(fields[12])
    both = user + system - sum(since)
    return (user, system), (user - since[0]) / both if both else 0.0


def rss_kib(pids):
    """Resident memory, what is shared counted once for each process."""
    total = 0
    for pid in (p for root in pids for p in tree(root)):
        found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        total += int(found[1]) if found else 0
    return total


class Others:
    """How much of a core other programs used while the benchmark ran something; what a hypervisor took counts too."""

    def __init__(self):
        self.busy, self.ours = self._busy(), self._ours()

    @staticmethod
    def _busy():
        fields = [int(n) for n in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        user, nice, system, _, _, irq, softirq, steal = fields[:8]
        return (user + nice + system + irq + softirq + steal) / TICKS

    @staticmethod
    def _ours():
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cpu_seconds([os.getpid()]) + ended.ru_utime + ended.ru_stime

    def cores(self, seconds):
        return max(0.0, (self._busy() - self.busy) - (self._ours() - self.ours)) / seconds


class SystemCalls:
    """Counts them with perf, which slows nothing down; None where perf cannot."""

    def __init__(self, pids):
        everyone = ",".join(str(p) for root in pids for p in tree(root))
        self.perf = None
        try:
            self.perf = subprocess.Popen(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", everyone],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError:
            pass

    def stop(self):
        if not self.perf:
            return None
        self.perf.send_signal(2)
        out = self.perf.communicate(timeout=10)[1]
        found = re.search(r"^(\d+),,raw_syscalls", out, re.M)
        return int(found[1]) if found else None


def hold_cpus_awake():
    """Idle CPUs that sleep deeply add more than what is measured. Held for as long as the file is open."""
    try:
        file = open("/dev/cpu_dma_latency", "wb", buffering=0)
        file.write(b"\0\0\0\0")
        return file
    except OSError:
        return None


def machine():
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {"cpu": cpu[1] if cpu else "unknown", "cores": os.cpu_count(), "kernel": os.uname().release,
            "memory_gib": round(int(memory[1]) / 1024 / 1024)}
