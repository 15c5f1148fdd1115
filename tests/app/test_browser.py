"""The page as people use it, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from visitor import Visitor

COPY = """(bytes) => navigator.clipboard.write([
  new ClipboardItem({"image/png": new Blob([new Uint8Array(bytes)], {type: "image/png"})})])"""
HELD = """() => {
  const ask = window.fetch;
  window.held = [];
  window.fetch = async (input, init) => {
    const answer = await ask(input, init);
    if (String(input?.url ?? input).includes("/queue/join"))
      await new Promise((release) => window.held.push(release));
    return answer;
  };
}"""
"""Answers to what is told from now on are held back until they are released."""
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def visit(chromium: Any, served: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages; at the end none has seen an error, or asked for anything elsewhere."""
    opened: list[Visitor] = []

    def open_(width: int = 1100, **told: Any) -> Visitor:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **told)
        opened.append(Visitor(context.new_page(), served.url))
        return opened[-1]

    yield open_
    for visitor in opened:
        assert visitor.errors == [] and visitor.outside == []
        visitor.page.context.close()


def test_paint_stop_resume_download(visit: Any, photo: Path, tmp_path: Path, served: Any) -> None:
    """A painted mask, previews that change, a stop in the middle, and the same bytes at the end as
    `invdiff restore` writes."""
    from invdiff.cli import main

    v = visit()
    page = v.page
    assert "ready" in v.upload(photo)
    v.open("Paint the mask")
    canvas = page.locator("#restore-editor canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 20, middle[1] + 6, steps=4)
    page.mouse.up()
    page.wait_for_timeout(300)
    v.quick("both", samples=3, steps=400)
    page.click("#restore-go")
    seen = set()
    while len(seen) < 2:  # previews change
        image = page.query_selector("#restore-preview img")
        seen |= {image.get_attribute("src")} if image else set()
        assert not v.wrong(), v.said()
        page.wait_for_timeout(50)
    v.hear(lambda s: "Samples: step" in s and "evaluations" in s and "left" in s)
    page.click("#restore-stop")
    assert "Resume goes on" in v.until(lambda s: "Stopped" in s)
    (mask,) = [p for p in served.files if p.name == "mask.png"]
    painted = np.asarray(Image.open(mask))
    assert painted.shape == (24, 32) and 0 < (painted > 0).sum() < painted.size
    Image.fromarray(painted).save(tmp_path / "mask.png")
    page.click("#restore-resume")
    v.until(lambda s: s == "Done.")
    inside = v.download()
    command = f"restore inpaint {photo} --mask {tmp_path / 'mask.png'} --samples 3 --steps 400"
    assert main([*command.split(), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    for name in ("estimate.png", "sample-1.png", "sample-3.png", "mean.png", "uncertainty.png"):
        assert inside.read(name) == (tmp_path / "out" / name).read_bytes(), name
    assert {"run.json", "run.safetensors"} <= set(inside.namelist())
    assert "coverage" in page.inner_text("#restore-verdict")
    page.fill("#restore-x input", "5")
    page.fill("#restore-y input", "7")
    page.click("#restore-look")
    page.wait_for_selector("#restore-histogram canvas, #restore-histogram svg")
    sample = np.asarray(Image.open(tmp_path / "out" / "sample-1.png"))[7, 5, 0] / 255
    told = page.inner_text("#restore-pixel").split("samples")[1].split(",")[0]
    assert abs(float(told) - sample) <= 0.5 / 255 + 1e-4
    page.click("#restore-estimate img")  # its middle
    page.wait_for_function("!document.querySelector('#restore-pixel').innerText.includes('row 7')")
    page.click('button[role=tab]:has-text("Explore")')
    v.until(lambda s: "3 samples, 2 directions" in s, "explore")
    first = page.get_attribute("#explore-along img", "src")
    page.fill("#explore-direction-1 input[type=number]", "2")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "(old) => document.querySelector('#explore-along img').src !== old", arg=first
    )


def test_a_late_answer_to_stop_hides_nothing(visit: Any, photo: Path) -> None:
    """The answer to Stop arrives after the job has said its last word, which stays."""
    v = visit()
    v.upload(photo)
    v.page.fill("#restore-inpaint-mask textarea, #restore-inpaint-mask input", "box:4,4,8,8")
    v.quick(steps=400)
    v.page.click("#restore-go")
    v.hear(lambda s: "Samples: step" in s)
    v.page.evaluate(HELD)
    v.page.click("#restore-stop")
    v.until(lambda s: s.startswith("Stopped after"))
    v.hear(lambda s: s == "Stopping after this step ...")
    v.page.wait_for_function("window.held.length")
    v.page.evaluate("window.held.forEach((release) => release())")
    v.page.wait_for_timeout(1000)
    assert v.said().startswith("Stopped after")
    assert v.page.is_disabled("#restore-stop") and v.page.is_enabled("#restore-resume")


def test_two_visitors_and_what_is_left(
    visit: Any, photo: Path, served: Any, tmp_path: Path
) -> None:
    """Two at once: one waits in line, neither sees the other's file, and nothing stays."""
    one, two = visit(), visit()
    for v, name in ((one, "secret-of-one.png"), (two, "secret-of-two.png")):
        with Image.open(photo) as image:
            image.rotate(len(name), fillcolor=(0, 0, hash(name) % 9)).save(tmp_path / name)
        assert "ready" in v.upload(tmp_path / name)
        v.page.fill("#restore-inpaint-mask textarea, #restore-inpaint-mask input", "box:4,4,8,8")
        v.quick(steps=12)
    one.page.click("#restore-go")
    one.hear(lambda s: "step" in s)
    two.page.click("#restore-go")
    two.hear(lambda s: "Number 1 in line." in s or "step" in s)
    one.until(lambda s: s == "Done.")
    two.until(lambda s: s == "Done.")
    assert "secret-of-two" not in one.page.content()
    assert "secret-of-one" not in two.page.content()
    mine = [p for p in served.files if "secret-of-one" in str(p)]
    assert mine and [p for p in served.files if "secret-of-two" in str(p)]
    for path in mine:  # nobody else is given a private file
        found = two.page.request.get(f"{served.url}gradio_api/file={path}")
        private = "copies" not in path.parts
        assert found.status == (403 if private else 200), path  # copies have unguessable names
    one.page.context.close()
    one.errors.clear()
    end = time.monotonic() + 300
    while left := [p for p in served.files if "secret-of-one" in str(p)]:
        assert time.monotonic() < end, left
        time.sleep(0.2)
    assert [p for p in served.files if "secret-of-two" in str(p)]


def test_keyboard_alone(visit: Any, photo: Path) -> None:
    """From the first Tab to a result, without a mouse."""
    v = visit()
    page = v.page

    def to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("(s) => !!document.activeElement?.closest(s)", selector):
                return
        raise AssertionError(f"{selector} is not reached")

    to("#restore-example")
    page.keyboard.type("small")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    v.until(lambda s: "ready" in s)
    to("#restore-task")
    assert "super-resolution" in page.input_value("#restore-task input")
    page.evaluate("document.activeElement.blur()")
    to("#restore-go")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    v.hear(lambda s: "step" in s)
    to("#restore-stop")
    page.keyboard.press("Enter")
    v.until(lambda s: "Stopped" in s)


def test_paste_name_and_repeat(visit: Any, photo: Path, tmp_path: Path) -> None:
    """A file that is no image, one whose name is markup, and one from the clipboard; a run that is
    repeated from its zip has the same bytes."""
    v = visit(permissions=["clipboard-read", "clipboard-write"])
    page = v.page
    (tmp_path / "text.png").write_text("no image")
    assert v.upload(tmp_path / "text.png").startswith("text.png is not an image that can be read")
    page.click("#restore-go")
    v.until(lambda s: "The file is missing" in s)
    evil = tmp_path / "<img src=x onerror=alert(1)>.png"
    evil.write_bytes(photo.read_bytes())
    said = v.upload(evil)
    assert "img src_x onerror_alert_1_" in said and said.endswith("is ready.")
    assert not page.query_selector("#restore-status img, #restore-file img[src=x]")
    page.evaluate(COPY, list(photo.read_bytes()))
    page.locator("body").press("Control+V")
    v.until(lambda s: s.startswith("image.png") and "24" in s and "ready" in s)
    v.choose("restore-task", "(denoise)")
    page.fill("#restore-denoise-noise :is(input, textarea)", "0.1")
    v.quick(samples=1, steps=1)
    page.click("#restore-go")
    v.until(lambda s: s == "Done." or v.wrong())
    with v.download() as inside:
        first, run = inside.read("sample-1.png"), inside.fp
        run.seek(0)
        (tmp_path / "run.zip").write_bytes(run.read())
    v.open("Repeat a run")
    (tmp_path / "wrong.zip").write_bytes(b"none")
    field = page.locator("#restore-run")
    for name, other in (("wrong", "run.zip"), ("run", "wrong.zip")):  # one takes the other's place
        page.set_input_files("#restore-run input[type=file]", str(tmp_path / f"{name}.zip"))
        v.until(lambda s, zip=f"{name}.zip": s == f"{zip} arrived, to be repeated.")
        field.filter(has_text=name).filter(has_not_text=other).wait_for()
    page.fill("#restore-seed input", "5")  # told by the run, not by the form
    page.click("#restore-again")
    assert v.until(lambda s: s == "Done." or v.wrong()) == "Done."
    with v.download() as inside:
        assert inside.read("sample-1.png") == first


def test_a_narrow_screen_in_the_dark(visit: Any) -> None:
    """360 pixels: nothing is wider than the screen, in any tab; the text is light on dark."""
    v = visit(width=360, color_scheme="dark")
    for tab in ("Restore", "Scans", "Compare", "Explore", "Truth"):
        v.page.click(f'button[role=tab]:has-text("{tab}")')
        v.page.wait_for_timeout(250)
        assert v.page.evaluate("document.documentElement.scrollWidth") <= 360, tab
    assert v.page.evaluate("document.body.classList.contains('dark')")
    names = v.page.evaluate(
        "[...document.querySelectorAll('input:not([type=file]), textarea, button')]"
        ".filter((e) => e.offsetParent && !e.labels?.length && !e.innerText.trim()"
        " && !e.getAttribute('aria-label') && !e.title).map((e) => e.outerHTML)"
    )
    assert names == []  # every control has a name that is read out
    assert all(v.page.evaluate("[...document.images].map((i) => i.hasAttribute('alt'))"))


def test_compare_and_scans(visit: Any) -> None:
    """Solvers race at equal cost; a sinogram beside its back-projection, in a window in HU."""
    v = visit()
    page = v.page
    v.choose("restore-example", "small")
    v.until(lambda s: "ready" in s)
    v.open("Crop")
    page.wait_for_function(  # the size of the picture may come after the word that it is ready
        "() => document.querySelector('#restore-height input')?.value === '96'"
    )
    for name, value in (("left", 8), ("top", 8), ("width", 16), ("height", 16)):
        page.fill(f"#restore-{name} input", str(value))
    page.click("#restore-crop")
    assert "16 x 16" in v.until(lambda s: "Cropped" in s)
    page.click('button[role=tab]:has-text("Compare")')
    page.fill("#compare-cost input", "6")
    page.click("#compare-go")
    v.until(lambda s: "Done" in s or v.wrong("compare"), "compare")
    assert not v.wrong("compare"), v.said("compare")
    table = page.inner_text("#compare-table")
    assert all(name in table for name in ("spectral-ancestral", "ddrm", "diffpir"))
    assert page.locator("#compare-pictures img").count() == 3
    page.click('button[role=tab]:has-text("Scans")')
    v.choose("scans-example", "chest")
    v.until(lambda s: "ready" in s, "scans")
    page.click('.tabitem:visible button:has-text("How it is run")')
    v.choose("scans-want", "samples")
    page.fill("#scans-steps :is(input, textarea)", "1")
    page.fill("#scans-samples input", "1")
    page.click("#scans-go")
    v.until(lambda s: s == "Done." or v.wrong("scans"), "scans")
    assert not v.wrong("scans"), v.said("scans")
    assert "filtered back-projection" in page.inner_text("#scans-slider")
    before = page.get_attribute("#scans-estimate img", "src")
    page.fill("#scans-width input[type=number]", "200")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "(old) => document.querySelector('#scans-estimate img').src !== old", arg=before
    )
    assert "(HU)" in page.inner_text("#scans-width")
