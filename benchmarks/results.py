"""What benchmarks print and keep: figures beside what must be reached, with date and hardware, as Markdown."""

import datetime
import os
import platform
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from stages.report.figures import plain

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One figure. `sign` and `goal` say what must be reached; None where a figure stands beside others for comparison."""

    name: str
    value: float
    sign: str | None
    goal: float | None
    detail: str = ""

    @property
    def reached(self) -> bool | None:
        if self.sign is None or self.goal is None:
            return None
        return self.value >= self.goal if self.sign == ">=" else self.value <= self.goal


def report(name: str, title: str, results: list[Result], *, notes: str = "", keep: bool = True) -> None:
    """Prints the figures and, to `keep` them, writes them to `benchmarks/results/<date>-<name>.md`."""
    lines = ["| figure | value | must reach | | detail |", "|---|---|---|---|---|"]
    for r in results:
        goal = "" if r.goal is None else f"{'≥' if r.sign == '>=' else '≤'} {plain(r.goal)}"
        mark = "" if r.reached is None else "reached" if r.reached else "**missed**"
        lines.append(f"| {r.name} | {plain(r.value)} | {goal} | {mark} | {r.detail} |")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = "\n".join([f"# {title}", "", f"{date}. {hardware()}", "", *lines, *(["", notes] if notes else []), ""])
    print(text)
    if not keep:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{date}-{name}.md").write_text(text, encoding="utf-8")


def peak_mb() -> float:
    """The most memory this process has held, as the operating system counted it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def hardware() -> str:
    """Processor, cores, memory, system, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, Python {platform.python_version()}."


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
