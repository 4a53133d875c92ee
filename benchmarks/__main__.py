"""`python -m benchmarks [name …]`: runs all benchmarks, or those named, one after another, each in a process of its own."""

import subprocess
import sys

ALL = (
    "encode",
    "fit",
    "one_pass",
    "components",
    "wide",
    "sefa",
    "query",
    "resume",
    "driver_memory",
    "render",
    "diagnose",
    "evaluate",
)


def main() -> int:
    names = sys.argv[1:] or list(ALL)
    if unknown := set(names) - set(ALL):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    codes = {name: subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode for name in names}
    failed = [name for name, code in codes.items() if code]
    if failed:
        print(f"an answer was wrong, or a benchmark broke: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
