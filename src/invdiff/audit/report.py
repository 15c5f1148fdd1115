"""The pages of an audit: tables in Markdown, and plots, from its lines alone."""

from __future__ import annotations

from pathlib import Path

from invdiff.audit import lines, plots, tables
from invdiff.core.durable import write_text

PAGE = "audit.md"


def write(folder: Path) -> list[Path]:
    """Write audit.md and its plots beside audit.jsonl; the files that are there then."""
    how, found = lines.read(folder / lines.NAME)
    drawn = plots.draw(folder, found)
    write_text(folder / PAGE, tables.page(how, found, [path.name for path in drawn]))
    return [folder / lines.NAME, folder / PAGE, *drawn]
