"""Tests share two cores with other work; `helpers` is imported from this folder."""

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))
