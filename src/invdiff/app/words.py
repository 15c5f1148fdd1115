"""What is told in the page, as HTML in which nothing of a file is markup."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from invdiff import measured
from invdiff.app.messages import Running
from invdiff.restoration.forecast import duration
from invdiff.restoration.restored import Restoration


def status(text: str, kind: str = "note") -> str:
    """A line that is read out when it changes. kind: note, busy, done or wrong."""
    role = "alert" if kind == "wrong" else "status"
    return f'<p class="iv-{kind}" role="{role}">{escape(text)}</p>'


STOPPING = status("Stopping after this step ...", "busy")


def without_folder(text: str, folder: Path) -> str:
    """A sentence without the private folder that names of files in it begin with."""
    return re.sub(rf"{re.escape(str(folder))}/(?:[\w.-]+/)?", "", text)


def running(message: Running) -> str:
    """Where a job stands: in words, and as a bar."""
    made = "The estimate" if message.part == "estimate" else "Samples"
    left = "" if message.left is None else f", about {duration(message.left)} left"
    text = (
        f"{made}: step {message.steps_done} of {message.steps}, {message.evaluations} evaluations"
    )
    share = 100 * message.steps_done / max(message.steps, 1)
    bar = f'<div class="iv-bar" aria-hidden="true"><div style="width:{share:.1f}%"></div></div>'
    return f"{status(text + left, 'busy')}{bar}"


def pictures(arrays: Sequence[np.ndarray], names: Sequence[str]) -> str:
    """Pictures beside each other, each with its name; they hold their pixels themselves."""
    shown = []
    for array, name in zip(arrays, names, strict=True):
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG", compress_level=1)
        data = base64.b64encode(file.getvalue()).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{escape(name)}">'
        shown.append(f"<figure>{image}<figcaption>{escape(name)}</figcaption></figure>")
    return f'<div class="iv-pictures">{"".join(shown)}</div>'


def lines(found: Sequence[tuple[str, str]]) -> str:
    """(label, text) lines, as the command line prints them."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(label)}</th><td>{escape(text)}</td></tr>"
        for label, text in found
    )
    return f'<table class="iv-lines">{rows}</table>'


def verdict(done: Restoration) -> str:
    """What is known of a restoration: warnings first, agreement, coverage, cost."""
    said = [f'<p class="iv-wrong" role="alert">Warning: {escape(w)}</p>' for w in done.warnings]
    rows = [("task", done.task), ("made by", " and ".join(done.solvers))]
    rows += [("check", done.agreement)] if done.agreement else []
    if done.drawn and done.want != "estimate":
        spec, solver = done.result.config["prior_spec"], done.result.solver()
        words = measured.words(done.task, spec, solver)
        rows += [("coverage", words)] if words else []
    cost = done.cost
    evaluations = [cost["evaluations of the estimate"], cost["evaluations of a sample"]]
    named = ("for the estimate", "for each sample")
    each = [f"{n:g} evaluations {to}" for n, to in zip(evaluations, named, strict=True) if n]
    rows.append(("cost", f"{cost['seconds']:.1f} s for the samples, {', '.join(each)}"))
    return "".join(said) + lines(rows)
