"""The documentation site: `python -m sphinx -W -c docs/site . build/site`, without a network.

The source folder is the repository, so that a link between two pages works here as it does there.
A link to another file of it (code, a record) becomes a download. A link to a folder, or to what
does not exist, is a warning, and `-W` fails. The navigation is that of docs/index.md: pages stand
where they are linked first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "docs/site")]

import parts  # noqa: E402

import invdiff  # noqa: E402

project = "invdiff"
author = copyright = "The invdiff contributors"
version = release = invdiff.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/full/*.md",
    "docs/priors/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "LICENSES/README.md",
    "examples/README.md",
    "src/invdiff/priors/weights/*.md",
    "tests/golden/networks/README.md",
]
exclude_patterns = [".*", "build", "dist", "runs", "restored*", "shared"]

html_theme = "furo"
html_title = f"invdiff {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_extra_path = ["index.html"]
html_copy_source = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
pygments_style, pygments_dark_style = "default", "monokai"


def setup(app: Any) -> dict[str, bool]:
    """Joins parts.py, which keeps nothing between pages."""
    parts.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
