"""Tasks: what can be restored. One kind of measurement is one file, and one line of TASKS."""

from __future__ import annotations

from invdiff.core import InvdiffError, nearest
from invdiff.tasks.base import Choice, Made, Measured, Preset, Simulation, Task, View
from invdiff.tasks.colorize import Colorize
from invdiff.tasks.compressed_sensing import CompressedSensing
from invdiff.tasks.ct import Ct
from invdiff.tasks.deblur import Deblur
from invdiff.tasks.demosaic import Demosaic
from invdiff.tasks.denoise import Denoise
from invdiff.tasks.enlarge_jpeg import EnlargeJPEG
from invdiff.tasks.hdr import HighDynamicRange
from invdiff.tasks.inpaint import Inpainting
from invdiff.tasks.jpeg import RepairJPEG
from invdiff.tasks.low_dose_ct import LowDoseCt
from invdiff.tasks.low_light import LowLight
from invdiff.tasks.mri import Mri
from invdiff.tasks.phase_retrieval import RetrievePhase
from invdiff.tasks.photo import NoisyPhoto, PhotoTask
from invdiff.tasks.super_resolution import SuperResolution
from invdiff.tasks.values import Angles, Centre, ImageSize, Kernel, Mask, NoiseLevel, Numbers

TASKS: dict[str, type[Task]] = {
    t.name: t
    for t in (
        Inpainting,
        SuperResolution,
        Deblur,
        Denoise,
        Colorize,
        Demosaic,
        RepairJPEG,
        EnlargeJPEG,
        HighDynamicRange,
        LowLight,
        RetrievePhase,
        CompressedSensing,
        Mri,
        Ct,
        LowDoseCt,
    )
}


def task_class(name: str) -> type[Task]:
    """The task called name. Raises InvdiffError with the nearest names when there is none."""
    if not isinstance(name, str) or name not in TASKS:
        raise nearest(str(name), TASKS, "task")
    return TASKS[name]


def simulation(name: str) -> type[Task] | type[Simulation]:
    """What `degrade` is told for a task. Raises InvdiffError for a task that makes nothing."""
    found = task_class(name).simulation()
    if found is None:
        able = ", ".join(n for n, cls in TASKS.items() if cls.simulation() is not None)
        raise InvdiffError(f"No measurement of {name} can be made; these can: {able}.")
    return found


__all__ = [
    "TASKS", "Angles", "Centre", "Choice", "Colorize", "CompressedSensing", "Ct", "Deblur",
    "Demosaic", "Denoise", "EnlargeJPEG", "HighDynamicRange", "ImageSize", "Inpainting", "Kernel",
    "LowDoseCt", "LowLight",
    "Made", "Mask", "Measured", "Mri", "NoiseLevel", "NoisyPhoto", "Numbers", "PhotoTask",
    "Preset", "RepairJPEG", "RetrievePhase", "Simulation", "SuperResolution", "Task", "View",
    "simulation", "task_class",
]  # fmt: skip
