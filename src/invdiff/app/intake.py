"""Files that strangers upload: copied under a harmless name into the private folder of a visit."""

from __future__ import annotations

import os
import re
import shutil
import stat
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from invdiff.core import InvdiffError
from invdiff.files.pictures import words

LONGEST = 80
"""Characters of a name."""
RUN = ("run.json", "run.safetensors")
"""The files of a run, by which it is repeated."""
COMPANIONS = (".hdr",)
"""Endings of files that lie beside a measurement and are none."""


def harmless(name: str) -> str:
    """A file name of letters, digits, dots, dashes and blanks, that names no folder."""
    last = re.split(r"[/\\]", name)[-1]
    kept = re.sub(r"[^\w.\- ]", "_", last).strip(". ")[-LONGEST:].strip(". ")
    return kept or "upload"


class Intake:
    """What is taken of uploads. uploads: the folder where they arrive; megabytes, megapixels: of
    one file, at most."""

    def __init__(self, uploads: Path, megabytes: int, megapixels: int) -> None:
        self.uploads, self.megabytes, self.megapixels = uploads.resolve(), megabytes, megapixels

    def take(self, paths: Sequence[str], room: Path) -> list[Path]:
        """Copies of uploads in an empty folder, in their order.

        Raises InvdiffError for what is no upload, is too large, or has the name of another.
        """
        found = []
        for path in paths:
            source, copy = self._checked(path), room / harmless(Path(path).name)
            if copy.exists():
                raise InvdiffError(f"There are two files {copy.name}; give them other names.")
            shutil.copyfile(source, copy, follow_symlinks=False)
            found.append(copy)
            self._check_pixels(copy)
        return found

    def _checked(self, path: str) -> Path:
        """The path of an upload: a plain file, not by way of a link, in the folder of uploads."""
        source = Path(os.path.abspath(path))
        try:
            told = os.lstat(source)
        except (OSError, ValueError):
            raise InvdiffError("The upload is not there any more; upload it once more.") from None
        inside = self.uploads in source.parents and source.resolve() == source
        if not inside or not stat.S_ISREG(told.st_mode):
            raise InvdiffError("The page reads what was uploaded to it, and no other file.")
        if told.st_size > self.megabytes * 10**6:
            raise InvdiffError(
                f"{harmless(source.name)} has {told.st_size / 1e6:.0f} MB, which is more than the "
                f"{self.megabytes} MB that this page takes."
            )
        return source

    def _check_pixels(self, file: Path) -> None:
        """Raise InvdiffError for a picture that is larger than this page takes."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(file) as image:
                    width, height = image.size
        except Exception:  # no picture, a bomb, broken: its reader says so
            return
        if width * height > self.megapixels * 10**6:
            raise InvdiffError(
                f"{file.name} ({words((height, width))}) has more than {self.megapixels} "
                "megapixels, which is more than this page takes; crop it or make it smaller."
            )

    def take_run(self, paths: Sequence[str], room: Path) -> Path:
        """The folder of a run: from its run.json and run.safetensors, or a zip that holds both.

        Of a zip these two members alone are read, wherever in it they lie.
        """
        files = self.take(paths, room)
        zips = [f for f in files if zipfile.is_zipfile(f)]
        if len(zips) == len(files) == 1:
            self._unzip(zips[0], room)
        missing = [name for name in RUN if not (room / name).is_file()]
        if missing:
            raise InvdiffError(
                f"There is no {' and no '.join(missing)}; upload run.json together with "
                "run.safetensors, or the zip that the page gave."
            )
        return room

    def _unzip(self, file: Path, room: Path) -> None:
        most = self.megabytes * 10**6
        try:
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    name = re.split(r"[/\\]", member.filename)[-1]
                    if name not in RUN or (room / name).exists():
                        continue
                    with archive.open(member) as source:
                        content = source.read(most + 1)
                    if len(content) > most:
                        raise InvdiffError(
                            f"{name} in the zip has more than the {self.megabytes} MB that this "
                            "page takes."
                        )
                    (room / name).write_bytes(content)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
            raise InvdiffError(f"{file.name} is a broken zip; upload it once more.") from error


def added(paths: Sequence[str], before: Sequence[str]) -> list[str]:
    """What of the files in a field is new: a field keeps those of before. All, where those before
    were companions alone, which wait for their measurement."""
    if all(Path(p).suffix.lower() in COMPANIONS for p in before):
        return list(dict.fromkeys(paths))
    return [p for p in dict.fromkeys(paths) if p not in before] or list(paths[-1:])


def added_run(paths: Sequence[str], before: Sequence[str]) -> list[str]:
    """The same of the files of a run: one of two waits for the other."""
    new = added(paths, before) if before else list(dict.fromkeys(paths))
    named = {Path(p).name: p for p in (*before, *new)}
    waits = len({Path(p).name for p in before}) < len(RUN) and set(named) <= set(RUN)
    return list(named.values()) if waits else new


def measurement(files: Sequence[Path]) -> Path:
    """The one of several files that is the measurement: others lie beside it."""
    first = [f for f in files if f.suffix.lower() not in COMPANIONS]
    if not first:
        raise InvdiffError("The measurement is missing; upload the file that holds the numbers.")
    return first[0]
