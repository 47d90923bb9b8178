"""What runs survive: the tests of faults, each fault as often as it is promised, counted.

    python benchmarks/faults.py [--out benchmarks/results/faults.json]
    python benchmarks/faults.py --quick    # the default tests only; nothing is written

Kills runs dozens of times at random steps and at the worst instants, fills real disks (as root, elsewhere these are
skipped and say so), lets each call of a run that changes a file fail once, feeds numbers that are none, starts one run
twenty times at once, trains 200 epochs. Each test says what it has survived and how often; this program runs them with
pytest and adds that up. It fails if one fails.
"""

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import measuring

from kdlab.atomic import write_text

CODE = ("kdlab", "configs/digits", "tests/cli", "tests/run/test_checkpoints.py", "tests/conftest.py", "pyproject.toml")
TESTS = (
    "tests/run/test_checkpoints.py",
    *(
        f"tests/cli/test_{name}.py"
        for name in ("kills", "stopping", "full_disk", "failing_calls", "not_finite", "places", "long_runs")
    ),
)
PREFIX = "fault: "


def pytest_command(selection: str, junit: Path) -> list[str]:
    """Return the command that runs the tests; by name of test, because tests of one file take minutes."""
    return [sys.executable, "-m", "pytest", *TESTS, "-m", selection, "--dist", "load", "--timeout", "3000", "-q",
            "--junit-xml", str(junit)]  # fmt: skip


def counts(junit: Path) -> dict[str, int]:
    """Add up what the tests have survived, by fault."""
    total: Counter[str] = Counter()
    for item in ElementTree.parse(junit).iter("property"):
        if item.attrib["name"].startswith(PREFIX):
            total[item.attrib["name"].removeprefix(PREFIX)] += int(item.attrib["value"])
    return dict(sorted(total.items()))


def skipped(junit: Path) -> dict[str, str]:
    """Return which tests did not run here, and why."""
    cases = ElementTree.parse(junit).iter("testcase")
    return {
        case.attrib["name"]: reason.attrib.get("message", "")
        for case in cases
        for reason in case.iter("skipped")
    }  # fmt: skip


def measure(selection: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder, "faults.xml")
        command = pytest_command(selection, junit)
        code = subprocess.run(
            command, cwd=measuring.HERE.parent, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        if code.returncode:
            sys.exit(code.returncode)
        faults = counts(junit)
        return {"unit": "times survived", "n": sum(faults.values()), "faults": faults, "skipped": skipped(junit)}


if __name__ == "__main__":
    parser = measuring.options(__doc__)
    parser.add_argument("--out", type=Path, default=measuring.RESULTS / "faults.json")
    options = parser.parse_args()
    environment = measuring.environment(sys.argv, CODE, (*measuring.PACKAGES, "pytest"))
    result = measure("not slow and not faults" if options.quick else "faults or not slow")
    if not options.quick:
        write_text(options.out, json.dumps(result | {"environment": environment}, indent=1) + "\n")
    for fault, times in result["faults"].items():
        print(f"{times:5d}  {fault}")
