"""MATLAB files of version 5 in a process of their own: what is broken in one can end its reader."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from invdiff.core import InvdiffError

SECONDS, MEMORY = 120, 8 * 2**30
"""Time and memory that the process may take."""
CODE = """
import sys, warnings
import numpy as np
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
except (ImportError, ValueError, OSError):
    pass
warnings.simplefilter("ignore")
import scipy.io
found = scipy.io.loadmat(sys.argv[1], verify_compressed_data_integrity=True)
arrays = {n: v for n, v in found.items() if isinstance(v, np.ndarray) and v.dtype.kind in "buifc"}
held = {f"a{i}": v for i, v in enumerate(arrays.values())}
np.savez(sys.argv[2], names=np.array(list(arrays), dtype=str), **held)
"""


def read_numbers(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers in a file, by name. Raises InvdiffError where it cannot be read.

    scipy's reader can crash on a file with a changed byte, and take this process with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "arrays.npz"
        command = [sys.executable, "-c", CODE, str(path.absolute()), str(out), str(MEMORY)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode or not out.exists():
            raise InvdiffError(
                f"{path} is not a MATLAB file that can be read; save it with -v7.3, or the array "
                "with numpy.save."
            )
        with np.load(out, allow_pickle=False) as file:
            return {str(name): file[f"a{i}"] for i, name in enumerate(file["names"])}
