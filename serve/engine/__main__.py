"""`python -m tunechat.serve.engine`: the engine's process."""

from __future__ import annotations

import sys

from .process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
