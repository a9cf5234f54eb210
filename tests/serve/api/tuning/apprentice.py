"""A trainer that learns nothing: it says what a real one says, with adapters that were made before, when it may.

`apprentice.py PLACE FOLDER`. PLACE holds `adapters/STEP` for each step and `how.json`: `steps`, and `hold`, a step
after which it waits for the file `go`, and `forgets`, whether each checkpoint is gone soon after it was told of.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

PLACE, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
ORDER = json.loads((FOLDER / "order.json").read_text())
HOW = json.loads((PLACE / "how.json").read_text())


def say(kind: str, **fields: Any) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)


def main() -> None:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    state = FOLDER / "state"
    done, steps = int(state.read_text()) if state.exists() else 0, HOW["steps"]
    recipe = {**ORDER["recipe"], "epochs": 2.0, "lr_scale": 1.0, "seed": ORDER["recipe"].get("seed", 0)}
    say("started", recipe=recipe, rows=6, trained_tokens=60, steps=steps, resumed_at=done)
    say("estimated", memory=1 << 20, seconds=float(steps))
    for step in range(done + 1, steps + 1):
        say(
            "step", step=step, epoch=2 * step / steps, loss=1 / step, rate=0.1, gradient_norm=1.0, trained_tokens=10,
            tokens=20, seconds=1.0, memory=1000,
        )  # fmt: skip
        if not (FOLDER / f"step-{step}").exists():
            shutil.copytree(PLACE / "adapters" / str(step), FOLDER / f"step-{step}")
        state.write_text(str(step))
        say("saved", step=step, folder=f"step-{step}", adapter="gone" if HOW.get("loses") == step else f"step-{step}")
        if HOW.get("forgets") and step < steps:
            time.sleep(0.2)
            shutil.rmtree(FOLDER / f"step-{step}")
        while step == HOW.get("hold") and not (PLACE / "go").exists() and not asked:
            time.sleep(0.01)
        if asked:
            sys.exit(75)
    if "fails" in HOW:
        print(f"ValueError: {ORDER['recipe']['data'][0]} is no good", file=sys.stderr)
        sys.exit(3)
    (FOLDER / "curve.csv").write_text("step,train_loss\n" + "".join(f"{n},{1 / n}\n" for n in range(1, steps + 1)))
    say("ended", step=steps, best_step=steps, adapter=f"step-{steps}", metrics={"valid_loss": 0.5}, curve="curve.csv")


if __name__ == "__main__":
    main()
