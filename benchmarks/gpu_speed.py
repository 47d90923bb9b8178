"""All speed benchmarks of one GPU, one after the other, in a time that is given.

    python benchmarks/gpu_speed.py --data_dir DIR --repdistiller CHECKOUT --minutes 9    # MNIST and CIFAR-100 in DIR
    python benchmarks/gpu_speed.py --data_dir DIR --without_torchdistill                 # where it is not installed
    python benchmarks/gpu_speed.py --data_dir DIR --device cpu --quick                   # a rehearsal without a GPU

Each program writes its own ``results/*_cuda.json``. A result that was made at this commit is not made again, so a
second call goes on where the time was up. A program that fails does not stop the others. The exit code is 0 when all
results are there. (In a copy without git the variable GIT_COMMIT says what the commit is.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import measuring

PROGRAMS = {  # name -> options that make it short
    "epoch": ["--turns", "3"],
    "kd_step": ["--turns", "4", "--seconds", "1"],
    "overhead": ["--turns", "4"],
    "data_pipeline": ["--repeats", "3"],
    "ensemble": [],
}
STOP_THEMSELVES, THEIR_PART = ("epoch", "kd_step"), 0.85  # of the time, by --minutes: what is measured is written
LEAST_S = 60.0  # with less no program is begun
PATIENCE_S = 20.0  # for a program that was told to stop


def is_there(name: str, device: measuring.Device) -> bool:
    """Say whether this commit has made a program's result."""
    path, commit = measuring.RESULTS / device.file(name), measuring.commit()
    found = json.loads(path.read_text())["environment"] if path.exists() else {}
    return commit is not None and found.get("git_commit") == commit and not found["uncommitted_changes"]


def options_of(name: str, args, seconds: float) -> list[str]:
    """Return the options of a program that has so many seconds."""
    options = [*PROGRAMS[name], "--device", args.device.type, *(["--quick"] if args.quick else [])]
    options += ["--data_dir", args.data_dir] if name != "ensemble" else []
    options += ["--minutes", f"{THEIR_PART * seconds / 60:.2f}"] if name in STOP_THEMSELVES else []
    options += ["--repdistiller", args.repdistiller] if name == "epoch" and args.repdistiller else []
    return options + (["--without_torchdistill"] if name == "epoch" and args.without_torchdistill else [])


def run(command: list[str], seconds: float) -> tuple[str, str]:
    """Run a program for at most so long; return "ran", "failed" or "out of time", and what it printed."""
    with tempfile.TemporaryFile("w+") as log:
        # a session of its own: the processes that it has started are told to stop with it
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            outcome = "failed" if process.wait(seconds) else "ran"
        except subprocess.TimeoutExpired:
            outcome = "out of time"
        finally:
            for stop in (signal.SIGINT, signal.SIGKILL):  # for it, and for what it has started and left behind
                with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                    os.killpg(process.pid, stop)
                    process.wait(PATIENCE_S)
        log.seek(0)
        return outcome, log.read()


def main() -> int:
    """Run what is not there yet, and say what became of it."""
    parser = measuring.device_options(__doc__, default="cuda")
    parser.add_argument("--data_dir", required=True, help="folder that holds MNIST and CIFAR-100")
    parser.add_argument("--repdistiller", help="checkout of github.com/HobbitLong/RepDistiller, for epoch.py")
    parser.add_argument("--without_torchdistill", action="store_true", help="for epoch.py")
    parser.add_argument("--minutes", type=float, default=9.0, help="in all [9]")
    args = parser.parse_args()
    if not args.minutes > 0:
        parser.error(f"--minutes is {args.minutes:g}; give a positive number")
    if args.device.type == "cpu" and not args.quick:
        parser.error("--device cpu is a rehearsal, with settings that are too short for a processor: add --quick")
    outcomes: dict[str, tuple[str, str]] = {}
    for name in PROGRAMS:
        seconds = measuring.BEGAN + 60 * args.minutes - time.monotonic() - PATIENCE_S
        if not args.quick and is_there(name, args.device):
            outcomes[name] = ("there already", "")
        elif seconds < LEAST_S:
            outcomes[name] = ("no time left", "")
        else:
            command = [sys.executable, str(measuring.HERE / f"{name}.py"), *options_of(name, args, seconds)]
            print(f"\n== {' '.join(command[1:])}", flush=True)
            began = time.monotonic()
            outcome, output = run(command, seconds)
            print(output, flush=True)
            outcomes[name] = (f"{outcome}, {time.monotonic() - began:.0f} s", "" if outcome == "ran" else output)
    print("\n== what became of them")
    for name, (outcome, output) in outcomes.items():
        print(f"{name:14s} {outcome}", *output.splitlines()[-12:], sep="\n    ")
    return int(not all(outcome.startswith(("ran", "there")) for outcome, _ in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
