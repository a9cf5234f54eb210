"""Trainers by the dozen: one process loads the libraries, and each trainer is a child that it forks in no time.

`python forking.py`: each line of standard input is a folder with an order. The child's process id goes out, and when
it has ended, by itself or not, its exit code. Events go into `events` in the folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

import peft  # noqa: F401
import torch
import transformers.models.llama.modeling_llama  # noqa: F401

from tunechat.trainer import loop, process  # noqa: F401


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        child = os.fork()
        if not child:
            events = os.open(folder / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(events, 1)
            os._exit(process.main(folder))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
