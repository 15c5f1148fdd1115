"""Train the denoisers of Levy processes that `invdiff audit` has beside the exact ones.

    python benchmarks/levy_networks.py [LAW ...]        src/invdiff/audit/levy.safetensors
    python benchmarks/levy_networks.py --page           docs/levy-networks.md

Signals of a law are drawn anew for every step, with noise levels evenly in the logarithm. A signal
counts by the inverse of its size squared, which the noisy signal tells: that leaves the minimiser,
E[s | x], as it is. The page compares errors with those of `audit/oracle.py` on the same signals.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import restoration
from invdiff.audit.gibbs import LAWS, increments
from invdiff.audit.levy import LENGTH
from invdiff.audit.levynet import FILE, LEAST, MOST, SCALES, LevyNet, learned
from invdiff.audit.oracle import Oracle

BATCH, RATE, MEAN, STEPS = 256, 2e-3, 0.998, 2000
PAGE = restoration.DOCS / "levy-networks.md"
LEVELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def trained(law: str, steps: int) -> LevyNet:
    """A network, the running mean of its weights."""
    torch.manual_seed(0)
    rng, net, mean = np.random.default_rng(0), LevyNet(SCALES[law]), LevyNet(SCALES[law])
    optimizer = torch.optim.AdamW(net.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.0)
    began, total = time.process_time(), 0.0
    for step in range(steps):
        s = increments(law, BATCH, LENGTH, rng).cumsum(1).float()
        low, high = math.log(LEAST), math.log(MOST)
        sigma = torch.from_numpy(rng.uniform(low, high, (BATCH, 1))).float().exp()
        x = s + sigma * torch.from_numpy(rng.standard_normal(s.shape)).float()
        found, size = net(x, sigma)
        loss = ((found - s) / size).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 100, 2 * (1 - step / steps))
        optimizer.step()
        total += float(loss.detach())
        with torch.no_grad():
            keep = min(MEAN, step / (step + 10))
            for a, b in zip(mean.parameters(), net.parameters(), strict=True):
                a.lerp_(b, 1 - keep)
        if (step + 1) % 500 == 0:
            spent = time.process_time() - began
            print(f"{law}, step {step + 1}: loss {total / 500:.4f}, {spent:.0f} CPU s", flush=True)
            total = 0.0
    return mean


def errors(law: str, sigma: float, count: int = 200) -> tuple[Tensor, Tensor]:
    """Squared errors of the network and of the exact denoiser, over sigma^2, of each signal."""
    rng = np.random.default_rng(1)
    s = increments(law, count, LENGTH, rng).cumsum(1)
    x = s + sigma * torch.from_numpy(rng.standard_normal(s.shape))
    shaped = x.reshape(count, 1, 1, LENGTH)
    each = [
        (prior.denoise(shaped, sigma).flatten(1) - s).square().mean(1) / sigma**2
        for prior in (learned(law), Oracle(law, 50, 200))
    ]
    return each[0], each[1]


def table() -> list[str]:
    """Errors by law and noise level, of both denoisers."""
    lines = ["| law | denoiser | " + " | ".join(f"{v:g}" for v in LEVELS) + " |"]
    lines.append("|---" * (len(LEVELS) + 2) + "|")
    for law, about in LAWS.items():
        pairs = [errors(law, sigma) for sigma in LEVELS]
        for which, name in enumerate(("network", "exact")):
            told = [f"{float(pair[which].mean()):.4f}" for pair in pairs]
            lines.append(f"| {law}: {about} | {name} | {' | '.join(told)} |")
        excess = [10 * math.log10(float(net.mean() / exact.mean())) for net, exact in pairs]
        lines.append(f"| {law}: {about} | dB | " + " | ".join(f"{v:+.2f}" for v in excess) + " |")
    return lines


TEXT = f"""# Networks of Levy processes

Denoisers that `invdiff audit` has beside the exact ones, one for each law of increments: U-Nets of
0.18 M parameters, trained by `python benchmarks/levy_networks.py` for {{steps}} steps of {BATCH}
signals of length {LENGTH}, noise levels from {LEAST} to {MOST:g}. Mean square error over sigma^2 on
200 signals that are drawn anew, by sigma, beside that of the exact denoiser (a Gibbs sampler), and
the ratio in dB.

"""


def main() -> None:
    """Train the laws that are asked for, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("laws", nargs="*", help="all when none is named")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.page:
        for law in args.laws or LAWS:
            net = trained(law, args.steps)
            own = {f"{law}.{k}": w.detach().half() for k, w in net.named_parameters()}
            save_file((load_file(FILE) if FILE.exists() else {}) | own, FILE)
    else:
        PAGE.write_text(TEXT.format(steps=args.steps) + "\n".join(table()) + "\n")


if __name__ == "__main__":
    main()
