"""The interface for programs, and what strangers send to it."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import answer

pytestmark = pytest.mark.filterwarnings("ignore")
QUICK = {"samples": 1, "steps": 1, "want": "samples", "seed": 3}


@pytest.fixture(scope="module")
def client(served: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from gradio_client import Client

    made = Client(served.url, verbose=False, download_files=tmp_path_factory.mktemp("got"))
    yield made
    made.close()


def ask(client: Any, file: Path, task: str = "denoise", **options: Any) -> Any:
    from gradio_client import handle_file

    told = {"noise": "0.1"} | options if task == "denoise" else options
    return client.predict(task, [handle_file(str(file))], told, QUICK, api_name="/restore")


def refused(client: Any, file: Path, task: str = "denoise", **options: Any) -> str:
    """The one sentence of a refusal."""
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as told:
        ask(client, file, task, **options)
    text = str(told.value)
    assert "\n" not in text and "visit-" not in text and "Traceback" not in text
    return text


def test_the_same_bytes_as_in_python(client: Any, tmp_path: Path, served: Any) -> None:
    """Whatever the name of the file is; and the zip of a run has what repeats it."""
    from invdiff import restore

    tasks = client.predict(api_name="/tasks")
    assert tasks["inpaint"]["options"]["mask"]["needed"] and "ct" in tasks
    photo = tmp_path / "<img src=x onerror=alert(1)>.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    with zipfile.ZipFile(ask(client, photo)) as inside:
        found, record = inside.read("sample-1.png"), json.loads(inside.read("run.json"))
    done = restore("denoise", photo, noise="0.1", progress=False, **QUICK)
    assert (done.save(tmp_path / "out") / "sample-1.png").read_bytes() == found
    assert record["seed"] == 3 and record["task"]["name"] == "denoise"


def bomb(path: Path, width: int, height: int) -> Path:
    """A small PNG that tells of many pixels, with few of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_bad_uploads_are_one_sentence(client: Any, tmp_path: Path) -> None:
    """The sentence of the command line each; afterwards the page still works."""
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert "text.png is not an image that can be read" in refused(client, text)
    many = bomb(tmp_path / "many.png", 20_000, 10_000)
    assert "has more than 100 megapixels" in refused(client, many)
    huge = bomb(tmp_path / "huge.png", 60_000, 60_000)
    assert "has more than 100 megapixels" in refused(client, huge)
    cut = bomb(tmp_path / "cut.png", 64, 64)
    assert "cut.png is a broken image" in refused(client, cut)
    nan = tmp_path / "nan.npy"
    np.save(nan, np.full((8, 8, 3), np.nan))
    assert "NaN" in refused(client, nan)
    header = tmp_path / "header.npy"
    np.save(header, np.zeros((2, 2)))
    content = header.read_bytes().replace(b"(2, 2)", b"(9000000000, 90)")
    header.write_bytes(content)
    assert "header.npy is not a numpy array that can be read" in refused(client, header)
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    assert "objects.npy" in refused(client, objects)
    empty = tmp_path / "empty.png"
    empty.touch()
    assert "empty.png" in refused(client, empty)
    fine = tmp_path / "fine.npy"
    np.save(fine, np.random.default_rng(0).random((8, 8, 3)))
    assert zipfile.is_zipfile(ask(client, fine))


def test_no_path_is_read(client: Any, tmp_path: Path, served: Any) -> None:
    """Neither in options, nor as a file that was not uploaded, nor by the server's own doors."""
    fine = tmp_path / "fine.npy"
    np.save(fine, np.random.default_rng(0).random((8, 8, 3)))
    np.save(tmp_path / "kernel.npy", np.ones((3, 3)))
    for path in (str(tmp_path / "kernel.npy"), "/etc/passwd", "../kernel.npy"):
        said = refused(client, fine, "deblur", kernel=path)
        assert "The page reads no path; upload the file for --kernel" in said
    assert "--nois" in refused(client, fine, nois="1")
    secret = tmp_path / "secret.npy"
    np.save(secret, np.ones((8, 8)))
    for path in (str(secret), f"{served.folder}/../secret.npy", "/etc/passwd"):
        body = {"data": ["denoise", [{"path": path, "meta": {"_type": "gradio.FileData"}}], {}, {}]}
        doors = f"{served.url}gradio_api"
        status, said = answer(f"{doors}/call/restore", json.dumps(body).encode())
        assert status == 200
        _, said = answer(f"{doors}/call/restore/{json.loads(said)['event_id']}")
        assert b"event: error" in said and b".zip" not in said
        assert answer(f"{doors}/file={path}")[0] in (403, 404)


def test_names_of_uploads_lead_nowhere(served: Any, tmp_path: Path) -> None:
    """A traversal in the name of a part, and a file above the limit."""

    def post(name: str, content: bytes) -> tuple[int, bytes]:
        edge = b"edge"
        head = f'Content-Disposition: form-data; name="files"; filename="{name}"'.encode()
        body = b"--%s\r\n%s\r\n\r\n%s\r\n--%s--\r\n" % (edge, head, content, edge)
        kind = "multipart/form-data; boundary=edge"
        return answer(f"{served.url}gradio_api/upload", body, kind)

    for name in ("../../../evil.png", "..%2f..%2fevil.png", "/tmp/evil.png", "a/../../evil.png"):
        (path,) = json.loads(post(name, b"evil")[1])
        inside = Path(path).resolve()
        assert served.folder.resolve() in inside.parents and "copies" in inside.parts
    assert not (served.folder.parent / "evil.png").exists()
    before = set(served.files)
    assert post("large.bin", bytes(41_000_000))[0] in (413, 0)
    assert post("a" * 100_000, b"long")[0] in (400, 413, 422, 500, 0)  # a part with a giant header
    assert set(served.files) == before


def test_giant_headers_end_one_request_alone(served: Any) -> None:
    assert answer(served.url, headers={"X-Giant": "a" * 1_000_000})[0] in (400, 431, 0)
    assert answer(f"{served.url}gradio_api/info?{'a' * 1_000_000}")[0] in (400, 414, 431, 0)
    assert answer(f"{served.url}gradio_api/info")[0] == 200


def test_nothing_was_asked_of_other_hosts(served: Any) -> None:
    assert served.calls.read_text() == ""
