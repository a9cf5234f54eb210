"""The gateway imports the text side, so it must stay light."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import tunechat.serve.text
heavy = {"torch", "transformers", "numpy", "fastapi"} & set(sys.modules)
print(*sorted(heavy))
"""


def test_importing_the_text_side_brings_no_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
