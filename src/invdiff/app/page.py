"""The whole page, and the server that gives it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from invdiff import plugins
from invdiff.app.intake import Intake
from invdiff.app.pool import Pool
from invdiff.app.settings import AppOptions
from invdiff.app.site import QUIET, Site
from invdiff.app.visits import Visits
from invdiff.core import InvdiffError

ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_MCP_SERVER": "False",
}
"""The environment in which nothing is told to anybody."""
AGE = 3600
"""Seconds after which copies that no visit has are deleted."""


class Page:
    """A page that is served until `close`. url: where it is."""

    def __init__(self, options: AppOptions) -> None:
        check_installed()
        devices, users = options.devices, options.users
        check_free(options.host, options.port)
        plugins.load_installed()
        os.environ.update(ENVIRONMENT)
        self.options, self._root = options, Path(tempfile.mkdtemp(prefix="invdiff-page-"))
        self.visits = Visits(self._root)
        os.environ["GRADIO_TEMP_DIR"] = str(self.visits.copies)
        intake = Intake(self.visits.copies, options.upload, options.megapixels)
        self.pool = Pool(devices, options.line)
        self.site = Site(options, self.visits, self.pool, intake)
        self.blocks: Any = None
        try:
            self.pool.start()
            self.blocks = draw(self.site)
            self.url = self._launch(users)
        except BaseException:
            self.close()
            raise

    def _launch(self, users: list[tuple[str, str]] | None) -> str:
        from starlette.middleware import Middleware

        from invdiff.app.ledger import Ledger

        options = self.options
        folder = resources.files("invdiff.app")
        told = self.blocks.launch(
            server_name=options.host, server_port=options.port or free_port(options.host),
            root_path=options.root_path or None, auth=users, share=False, quiet=True,
            prevent_thread_lock=True, inbrowser=options.browser, show_error=False,
            max_file_size=options.upload * 10**6, ssr_mode=False, run_history=False,
            footer_links=["api", "settings"], enable_monitoring=False, max_threads=80,
            allowed_paths=[], app_kwargs={"middleware": [Middleware(Ledger, visits=self.visits)]},
            css=(folder / "page.css").read_text("utf-8"),
            js=(folder / "page.js").read_text("utf-8"), theme=_theme(), pwa=False,
            mcp_server=False,
        )  # fmt: skip
        return str(told[1])

    def close(self) -> None:
        """End the server, the workers and all visits, and delete their files."""
        if self.blocks is not None:
            with contextlib.suppress(Exception):
                self.blocks.close(verbose=False)
        self.pool.end()
        self.visits.end_all()
        shutil.rmtree(self._root, ignore_errors=True)

    def wait(self) -> None:
        """Until the process is interrupted."""
        threading.Event().wait()


@contextlib.contextmanager
def served(options: AppOptions) -> Iterator[Page]:
    """A page while the block lasts."""
    page = Page(options)
    try:
        yield page
    finally:
        page.close()


def check_installed() -> None:
    """Raise InvdiffError where the page cannot be drawn."""
    if find_spec("gradio") is None:
        raise InvdiffError("The page needs gradio; run pip install 'invdiff[app]'.")


def check_free(host: str, port: int) -> None:
    """Raise InvdiffError unless the address can be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            raise InvdiffError(
                f"The page cannot listen on {host}, port {port} ({error.strerror or error}); give "
                "another --port, or --host."
            ) from None


def free_port(host: str) -> int:
    """A port that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
        door.bind((host, 0))
        return int(door.getsockname()[1])


def _theme() -> Any:
    import gradio as gr

    fonts = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(  # contrasts of at least 4.5 to 1
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def draw(site: Site) -> Any:
    """The page's components."""
    import gradio as gr

    from invdiff.app import api
    from invdiff.app.comparetab import CompareTab
    from invdiff.app.exploretab import ExploreTab
    from invdiff.app.jobtab import JobTab
    from invdiff.app.taskform import is_photo_task
    from invdiff.app.truthtab import TruthTab
    from invdiff.tasks import TASKS

    photos = [t for t in TASKS if is_photo_task(t)]
    scans = [t for t in TASKS if t not in photos]
    scans.sort(key=lambda t: t not in ("mri", "ct"))
    with gr.Blocks(title="invdiff", analytics_enabled=False, delete_cache=(600, AGE)) as blocks:
        gr.Markdown(
            "# invdiff\nRecover images from measurements, with what is uncertain about them. "
            "Your files stay on the machine that serves this page, and are deleted when you leave."
        )
        restore, scan = JobTab(site, "restore", photos, True), JobTab(site, "scans", scans, False)
        with gr.Tabs(overflow_behavior="wrap"):  # on a phone all names stay in view
            with gr.Tab("Restore", id="restore"):
                restore.draw()
            with gr.Tab("Scans", id="scans"):
                scan.draw()
            with gr.Tab("Compare", id="compare"):
                CompareTab(site, [restore, scan]).draw()
            with gr.Tab("Explore", id="explore") as exploring:
                ExploreTab(site).draw(exploring)
            with gr.Tab("Truth", id="truth"):
                TruthTab().draw()
        api.add(site)
        wake = gr.Button("go on", elem_id="wake", visible="hidden")  # pressed by page.js
        wake.click(lambda: None, None, None, trigger_mode="multiple", **QUIET)
        blocks.unload(_ends(site))
    blocks.queue(default_concurrency_limit=None, max_size=None, api_open=True)
    return blocks


def _ends(site: Site) -> Any:
    """What is done when a visit ends."""
    import gradio as gr

    def end(request: Any) -> None:
        site.visits.end(str(request.session_hash))

    end.__annotations__ = {"request": gr.Request}
    return end
