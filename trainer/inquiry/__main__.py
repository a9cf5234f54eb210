"""`python -m tunechat.trainer.inquiry [BYTES SECONDS]`: see serve/contract/inquiry.py for what passes.

With BYTES and SECONDS it may have so much memory and so much time of a core, and is killed beyond them; it also dies
with the process that has started it then.
"""

from __future__ import annotations

import sys

from .bounds import bound

if __name__ == "__main__":
    given = sys.argv[1:]
    if given:
        if len(given) != 2 or not all(number.isdecimal() for number in given):
            sys.exit("usage: python -m tunechat.trainer.inquiry [BYTES SECONDS]")
        bound(int(given[0]), int(given[1]))
    # Nothing large is loaded before there are bounds.
    from .process import main

    sys.exit(main())
