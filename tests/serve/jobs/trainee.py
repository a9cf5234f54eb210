"""A small trainer for the tests, run as a process: it does what its recipe says, by the real protocol."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
ORDER = json.loads((FOLDER / "order.json").read_text())
RECIPE = ORDER["recipe"]


def say(kind: str, **fields: Any) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)


def learn() -> None:
    """Learns one step after another, with a checkpoint after each, and says in `steps` which it did."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    state = FOLDER / "state"
    step = int(state.read_text()) if state.exists() else 0
    steps = RECIPE["steps"]
    say("started", recipe=RECIPE, rows=1, trained_tokens=10, steps=steps, resumed_at=step)
    say("estimated", memory=1000, seconds=steps * 1.0)
    while step < steps:
        if asked:
            sys.exit(75)
        step += 1
        time.sleep(RECIPE.get("pace", 0))
        with (FOLDER / "steps").open("a") as file:
            file.write(f"{step}\n")
        staged = FOLDER / "state.new"
        staged.write_text(str(step))
        staged.rename(state)
        (FOLDER / f"step-{step}").mkdir(exist_ok=True)
        say(
            "step", step=step, epoch=step / steps, loss=1 / step, rate=0.1, gradient_norm=1.0, trained_tokens=10,
            tokens=20, seconds=1.0, memory=1000,
        )  # fmt: skip
        say("saved", step=step, folder=f"step-{step}", adapter=f"step-{step}")
    say("measured", step=step, loss=0.25)
    say("ended", step=step, best_step=step, adapter=str(FOLDER / f"step-{step}"), metrics={"valid_loss": 0.25})


def start_others() -> None:
    """Starts two more processes, one in a session of its own, and says their ids."""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    pids = [os.getpid(), *(subprocess.Popen(sleep, start_new_session=apart).pid for apart in (False, True))]
    staged = FOLDER / "pids.new"
    staged.write_text(" ".join(map(str, pids)))
    staged.rename(FOLDER / "pids")


def misbehave(how: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    match how:
        case "exit":
            print("first\nTraceback\nValueError: the wrong shape", file=sys.stderr)
            sys.exit(3)
        case "signal":
            os.kill(os.getpid(), RECIPE["signal"])
        case "memory":
            raise MemoryError
        case "say":
            sys.stdout.write(RECIPE["text"])
            sys.stdout.flush()
            time.sleep(600)
        case "line":
            while True:
                sys.stdout.write("x" * 65536)
        case "flood":
            for _ in range(200):
                sys.stderr.write("y" * 10_000 + "\n")
            print("the last words", file=sys.stderr)
            sys.exit(1)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            start_others()
            time.sleep(600)
        case "orphans":
            start_others()
            sys.exit(4)
        case "fail":
            say("failed", code="diverged", message="the loss is not a number", param="lr")
            time.sleep(600)
        case "nothing":
            sys.exit(0)
        case "paused":
            sys.exit(75)
        case "elsewhere":
            say("saved", step=1, folder="../other", adapter="")
            time.sleep(600)


if __name__ == "__main__":
    if "also" in RECIPE:
        start_others()
    if RECIPE["do"] == "learn":
        learn()
    else:
        misbehave(RECIPE["do"])
