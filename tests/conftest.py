"""Tests share two cores with other work; `helpers` is imported from this folder."""

import os
import sys
from pathlib import Path

import torch

os.environ["INVDIFF_CACHE"] = "off"  # no test writes to the user's folders
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))
