"""What the site adds to the pages: navigation, pages of the public names, and MathML."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import invdiff

INDEX, API = "docs/index", "docs/api"
LINK = re.compile(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)")
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


# -------------------------------------------------------------------------------------- navigation


def linked(root: Path, page: str, text: str) -> Iterator[str]:
    """The pages that a text links, by name, in order; "docs/app" for docs/app.md."""
    for target in LINK.findall(text):
        path = os.path.normpath(root / Path(page).parent / target)
        if Path(path).is_file():
            yield Path(path).relative_to(root).with_suffix("").as_posix()


def navigation(root: Path, pages: set[str]) -> dict[str, list[tuple[str, list[str]]]]:
    """Of each page its captions with the pages below: each page where it is linked first.

    docs/index.md has a caption for each of its headings. Other pages follow, the nearest to it
    first; what no page links is an error.
    """
    text = {page: (root / f"{page}.md").read_text(encoding="utf-8") for page in sorted(pages)}
    placed, tree, queue = {INDEX}, {}, [INDEX]
    for page in queue:
        first, *rest = HEADING.split(text[page]) if page == INDEX else (text[page],)
        parts = [(first, ""), *zip(rest[1::2], rest[::2], strict=True)]
        tree[page] = []
        for part, caption in parts:
            found = dict.fromkeys(linked(root, page, part))
            below = [name for name in found if name in pages - placed]
            placed.update(below)
            queue += below
            tree[page] += [(caption, below)] if below else []
    if pages - placed:
        raise ValueError(f"no page links {sorted(pages - placed)}: link them from docs/index.md")
    return tree


def toctree(caption: str, pages: list[str]) -> str:
    """A table of contents that only the side bar shows."""
    told = [f":caption: {caption}"] if caption else []
    return "\n".join(["", "```{toctree}", ":hidden:", *told, "", *(f"/{p}" for p in pages), "```"])


# ------------------------------------------------------------------------------------ public names


def groups() -> dict[str, list[str]]:
    """The public names by the part of the package where they live."""
    found: dict[str, list[str]] = {}
    for name, (module, _) in sorted(invdiff._HOMES.items(), key=lambda item: item[0].lower()):
        found.setdefault(module.split(".")[1], []).append(name)
    return dict(sorted(found.items()))


def entry(name: str) -> list[str]:
    """The directive of one public name."""
    thing = getattr(invdiff, name)
    if inspect.isclass(thing):
        return [f".. autoclass:: invdiff.{name}", "   :members:", ""]
    kind = "function" if callable(thing) else "data"
    return [f".. auto{kind}:: invdiff.{name}", ""]


def api() -> str:
    """What follows the text of docs/api.md: all public names, by part."""
    lines = []
    for part, names in groups().items():
        lines += ["", f"## {part}", "", "```{eval-rst}"]
        lines += [line for name in names for line in entry(name)] + ["```"]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Plain text with `code` as reStructuredText: every other sign stands for itself."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return re.sub(r"([\\`*_|])", r"\\\1", text)
    plain = [re.sub(r"([\\*_|])", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part}``" if part.strip() == part != "" else part for part in parts[1::2]]
    pairs = [piece for pair in zip(plain, code, strict=False) for piece in pair]
    return "".join([*pairs, plain[-1]])


def paragraph(lines: list[str]) -> list[str]:
    """One paragraph of a docstring: indented lines keep their form, as a list or as code."""
    marked = [line.startswith("- ") for line in lines]
    if marked[0] and all(m or line.startswith("  ") for m, line in zip(marked, lines, strict=True)):
        items = " ".join(line.strip() if not m else f"\0{line[2:]}" for m, line in
                         zip(marked, lines, strict=True)).split("\0")[1:]  # fmt: skip
        return [f"- {escaped(item.strip())}" for item in items]
    if any(line[:1] in " -|>" for line in lines):
        return ["::", "", *(f"   {line}" for line in lines)]
    return escaped("\n".join(lines)).split("\n")


def plain_docstring(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings are plain text with `code`; none of their other signs is markup."""
    text = "\n".join(lines).strip("\n")
    found = [paragraph(part.split("\n")) + [""] for part in re.split(r"\n\s*\n", text) if part]
    lines[:] = [line for part in found for line in part]


# --------------------------------------------------------------------------------------- formulas


def mathml(text: str, display: bool) -> str:
    """LaTeX as MathML, which browsers draw themselves."""
    from docutils.utils.math.latex2mathml import tex2mathml

    return tex2mathml(text, as_block=display)


def inline(self: Any, node: Any) -> None:
    """A formula in a line."""
    from docutils.nodes import SkipNode

    self.body.append(mathml(node.astext(), False))
    raise SkipNode


def displayed(self: Any, node: Any) -> None:
    """A formula of its own."""
    from docutils.nodes import SkipNode

    self.body.append(f"<div class='math'>{mathml(node.astext(), True)}</div>\n")
    raise SkipNode


def setup(app: Any) -> None:
    """Registers all of it."""
    tree: dict[str, list[tuple[str, list[str]]]] = {}

    def found(app: Any, env: Any, names: Any) -> None:
        tree.update(navigation(Path(app.srcdir), set(env.found_docs)))

    def read(app: Any, page: str, source: list[str]) -> None:
        if page == API:
            source[0] += api()
        source[0] += "".join(f"\n{toctree(*part)}\n" for part in tree[page])

    app.connect("env-before-read-docs", found)
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
