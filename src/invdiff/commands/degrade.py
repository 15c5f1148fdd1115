"""`invdiff degrade`: a measurement of a clean image, for trying and for benchmarks."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from invdiff import __version__, zoo
from invdiff.cli import OK
from invdiff.commands import options
from invdiff.commands.options import Given
from invdiff.commands.restore import say
from invdiff.core import InvdiffError
from invdiff.forms import FORMS
from invdiff.noise import Gaussian
from invdiff.serial import check_apart, check_folder, whole_folder

MARKER = "degrade.json"
USAGE = "PHOTO --task TASK --out DIR [options]"
ABOUT = """Make a measurement of a clean image as a task of `restore` undoes it.

DIR receives the measurement, the truth, what else restoring it takes (a mask, a kernel, coil maps),
and degrade.json with the command that restores it. For tasks of photographs these are
measurement.png (what a user would have), measurement.npy (the same without clipping and rounding)
and truth.png. PHOTO may also be a complex .npy (height, width) for mri, and for ct a slice in
Hounsfield units: .npy, .npz, .tif or DICOM.

--mask may be random:SHARE (of pixels that are missing) or box:TOP,LEFT,HEIGHT,WIDTH. Noise levels
are on the scale where black is 0 and white is 1; of mri, per real part of k-space; of
compressed-sensing, of a coefficient (per real part of fourier), or of a reading of single-pixel,
which is 1 for a white picture and all mirrors on."""


def run(name: str, args: list[str]) -> int:
    """Degrade one image; the exit code."""
    given = _parse(name, options.normalised(args))
    if "photo" not in given:
        raise InvdiffError("PHOTO is missing; give a clean picture.")
    if "out" not in given:
        raise InvdiffError("--out is missing; give the folder for the measurement.")
    task_name, values = options.task_options(given, making=True)
    task = zoo.task(task_name)
    told = options.noise_told(task, given)
    if isinstance(told, str):
        raise InvdiffError("A clean picture has no noise to estimate; give its level as a number.")
    sigma, out, seed = Gaussian(float(told or 0)).sigma, Path(given["out"]), given.get("seed", 0)
    overwrite = given.get("overwrite", False)
    check_folder(out, overwrite, MARKER)
    check_apart(out, *options.files(given))
    made = FORMS[task.form].make(task, given["photo"], values, sigma, seed)
    flags = dict(made.flags) | {key: str(out / file) for key, file in made.files.items()}
    command = ["invdiff", "restore", str(out / made.measurement), "--task", task_name]
    command += [part for key, value in flags.items() for part in (f"--{key}", value)]
    about = {"invdiff": __version__, "task": task_name, "options": flags, "seed": seed}
    about |= {"photo": str(given["photo"]), "restore": shlex.join(command)}
    with whole_folder(out, overwrite, MARKER) as folder:
        made.write(folder)
        (folder / MARKER).write_text(json.dumps(about, indent=1) + "\n")
        names = sorted(p.name for p in folder.iterdir() if p.name != MARKER)
    say([("photo", f"{given['photo']} ({made.about})")])
    say([("", note) for note in made.notes])
    say([("damaged", f"{task_name}, {made.told}")])
    say([("results", f"{out}: {', '.join(names)}"), ("restore", shlex.join(command))])
    return OK


def _parse(name: str, args: list[str]) -> Given:
    to = options.parser(name, USAGE, ABOUT)
    to.add_argument("photo", nargs="?", type=str, help="a clean picture")
    options.add_task_options(to, making=True)
    to.add_argument(
        "--noise", type=options.Noise, help="level to add on [0, 1], as 0.1 or 25/255; without it 0"
    )
    to.add_argument("--seed", type=int, help="of the noise and of random masks, 0 by default")
    to.add_argument("--out", type=str, help="folder for the measurement")
    to.add_argument("--overwrite", action="store_true", help="replace an earlier measurement")
    to.add_argument("--config", action="config", help="YAML file with any of these options")
    return options.parse(to, args)
