"""Puts a measurement into the document that shows it."""

from __future__ import annotations

from pathlib import Path


def replace_section(path: Path, name: str, report: str) -> None:
    """Replaces what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. Raises SystemExit without them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, opened, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise SystemExit(f"{path} has no section between {begin} and {end}")
    path.write_text(f"{before}{begin}\n{report}\n{end}{after}", encoding="utf-8")
