"""`python -m tunechat.trainer FOLDER`: see serve/contract/jobs.py for what passes between it and the server."""

from __future__ import annotations

import sys
from pathlib import Path

from .process import main

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tunechat.trainer FOLDER")
    sys.exit(main(Path(sys.argv[1])))
