"""Tasks, solvers and operators of others: found, listed, run, saved, repeated; and refused."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import invdiff
from invdiff import plugins
from invdiff.cli import main
from invdiff.core import InvdiffError, encode
from invdiff.sampling import solver
from invdiff.tasks import TASKS

STRANGER = str(Path(__file__).parent / "stranger.py")


def command(folder: Path, *args: str) -> subprocess.CompletedProcess:
    """`invdiff` in a process of its own."""
    call = [sys.executable, "-m", "invdiff", *args]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


Command = Callable[..., subprocess.CompletedProcess]
TABLES = (encode.REGISTERED, TASKS, solver._REGISTERED, plugins.LOADED, plugins.FAILED)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Command:
    """`command` in this process, which forgets after each what its plugins registered."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> subprocess.CompletedProcess:
        before = [dict(table) for table in TABLES]
        asked, known, path = list(plugins.ASKED), set(sys.modules), list(sys.path)
        try:
            code = main(list(args))
        finally:
            for table, old in zip(TABLES, before, strict=True):
                table.clear()
                table.update(old)
            plugins.ASKED[:], sys.path[:] = asked, path
            for name in {n for n in sys.modules if "plugin_" in n} - known:
                del sys.modules[name]
        said = capsys.readouterr()
        return subprocess.CompletedProcess(args, code, said.out, said.err)

    return call


def test_a_plugin_is_listed_run_and_repeated(tmp_path: Path, here: Command) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    plugin = ["--plugin", STRANGER]
    assert "brighten: Undo a grey filter" in command(tmp_path, "tasks", *plugin).stdout
    assert "brighten" not in here("tasks").stdout
    made = here("degrade", *plugin, "brighten", "photo.png", "--out", "d")
    assert made.returncode == 0, made.stderr
    told = json.loads((tmp_path / "d/degrade.json").read_text())["restore"]
    assert told.endswith(shlex.join(plugin))
    args = [*shlex.split(told)[1:], "--noise", "0.1", "--share", "0.5", "--quiet"]
    done = here(*args, "--steps", "1", "--samples", "1", "--out", "a")
    assert done.returncode == 0 and "nudge, 1 steps (auto: it is the" in done.stdout, done.stderr
    run = json.loads((tmp_path / "a/run.json").read_text())
    assert run["task"]["fields"]["share"] == 0.5 and list(run["plugins"]) == [STRANGER]
    refused = here("restore", "--from", "a", "--out", "b", "--quiet")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert f"give --plugin {STRANGER}" in refused.stderr and not (tmp_path / "b").exists()
    again = here("restore", "--from", "a", "--out", "b", "--quiet", *plugin)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a/mean.png").read_bytes() == (tmp_path / "b/mean.png").read_bytes()


def test_a_plugin_that_fails_is_one_sentence(tmp_path: Path, here: Command) -> None:
    (tmp_path / "bad.py").write_text("raise ValueError('boom\\nbang')\n")
    for spec, sentence in (
        ("bad.py", "The plugin bad.py cannot be imported: ValueError: boom bang."),
        ("no.py", "There is no file no.py; --plugin takes FILE.py or a MODULE."),
        ("no_such_module", "cannot be imported: ModuleNotFoundError"),
    ):
        done = here("tasks", "--plugin", spec)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout
        assert sentence in done.stderr
    assert "needs a value" in here("tasks", "--plugin").stderr


def test_an_installed_plugin_that_fails_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Point:
        name, dist = "broken", None

        def load(self) -> None:
            raise ImportError("no such library")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point()])
    monkeypatch.setattr("invdiff.cli.entry_points", lambda group: [Point()])
    monkeypatch.setattr(plugins, "_loading", [])
    monkeypatch.setattr(plugins, "FAILED", {})
    assert main(["tasks"]) == 0
    text = capsys.readouterr().out
    assert "plugin broken: ImportError: no such library" in text and "deblur: " in text


def test_what_cannot_be_registered() -> None:
    class Plain:
        pass

    with pytest.raises(InvdiffError, match="no frozen dataclass"):
        invdiff.register(Plain)
    with pytest.raises(InvdiffError, match="There is a task called deblur already"):
        fake = type("Fake", (invdiff.tasks.Deblur,), {})
        invdiff.register(fake)
    assert "Fake" not in plugins.REGISTERED  # nothing of it was taken
