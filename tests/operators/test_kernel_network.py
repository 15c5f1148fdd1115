"""The published kernel network: its layout, against a network of modules, and hostile files.

The names and shapes below were read off the authors' public code; the trained weights cannot be had
here, so that numbers of published measurements are not compared.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.operators import KernelNetworkBlur, Operator
from invdiff.operators.kernel_network import expected

N, SIZE = 4, (128, 256)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(N, N, 3, 1, 1), nn.Conv2d(N, N, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


class Level(nn.Module):
    """A level of the U-net, as modules under the published names."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        outer, inner = ((N, N), (N, 2 * N), (2 * N, 4 * N), (4 * N, 8 * N), (8 * N, 8 * N))[depth]
        down = nn.Conv2d(outer, inner, 4, 2, 1, bias=False)
        up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=depth == 0)
        self.depth = depth
        self.down = nn.Sequential(down) if depth == 0 else nn.Sequential(nn.LeakyReLU(0.2), down)
        if depth < 4:
            self.submodule = Level(depth + 1)
        last = [nn.Tanh()] if depth == 0 else []
        self.up = nn.Sequential(nn.ReLU(), up, *last)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = self.down(x)
        h = torch.cat([h, code], 1) if self.depth == 4 else self.submodule(h, code)
        return self.up(h) if self.depth == 0 else torch.cat([self.up(h), x], 1)


class Network(nn.Module):
    """The generator with 2 blocks in front and 3 behind, and a part that is not used."""

    def __init__(self) -> None:
        super().__init__()
        leaky = nn.LeakyReLU(0.1)
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(3, N, 3, 1, 1),
            leaky,
            nn.Conv2d(N, N, 3, 2, 1),
            leaky,
            nn.Conv2d(N, N, 3, 2, 1),
            leaky,
            Residual(),
            Residual(),
        )
        self.kernel_extractor = nn.Sequential(nn.Conv2d(2 * N, N, 7))
        self.adapter = nn.ModuleDict({"model": Level(0)})
        self.recon_trunk = nn.Sequential(
            *(Residual() for _ in range(3)),
            nn.Conv2d(N, 4 * N, 3, 1, 1),
            nn.PixelShuffle(2),
            leaky,
            nn.Conv2d(N, 256, 3, 1, 1),
            nn.PixelShuffle(2),
            leaky,
            nn.Conv2d(64, 64, 3, 1, 1),
            leaky,
            nn.Conv2d(64, 3, 3, 1, 1),
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = self.adapter["model"](self.feature_extractor(x), code)
        return self.recon_trunk(h) + x


@pytest.fixture(scope="module")
def network() -> Network:
    net = Network().double()
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            p.copy_(seeded(*p.shape, seed=k) / p[0].numel() ** 0.5)
    return net.requires_grad_(False)


@pytest.fixture(scope="module")
def file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(network.state_dict(), path)
    return path


def test_the_published_layout():
    """All that blurring needs of GOPRO_wVAE: width 64, 10 blocks in front, 20 behind."""
    seen = {"feature_extractor.0.weight": torch.empty(64, 3, 3, 3)}
    seen |= {
        f"feature_extractor.{6 + i}.conv1.weight": torch.empty(64, 64, 3, 3) for i in range(10)
    }
    seen |= {f"recon_trunk.{i}.conv1.weight": torch.empty(64, 64, 3, 3) for i in range(20)}
    layout = expected(seen)
    deep = "adapter.model" + 4 * ".submodule"
    assert layout["adapter.model.down.0.weight"] == (64, 64, 4, 4)
    assert "adapter.model.down.0.bias" not in layout
    assert layout["adapter.model.up.1.weight"] == (128, 64, 4, 4)
    assert layout["adapter.model.up.1.bias"] == (64,)
    assert layout["adapter.model.submodule.down.1.weight"] == (128, 64, 4, 4)
    assert layout["adapter.model.submodule.up.1.weight"] == (256, 64, 4, 4)
    assert layout[f"{deep}.down.1.weight"] == (512, 512, 4, 4)
    assert layout[f"{deep}.up.1.weight"] == (1024, 512, 4, 4)
    assert f"{deep}.up.1.bias" not in layout
    assert layout["recon_trunk.20.weight"] == (256, 64, 3, 3)
    assert layout["recon_trunk.23.weight"] == (256, 64, 3, 3)
    assert layout["recon_trunk.26.weight"] == (64, 64, 3, 3)
    assert layout["recon_trunk.28.weight"] == (3, 64, 3, 3)
    # 3 convolutions, 10 x 2, 20 x 2 and 4 with biases; 5 down, 5 up, one of them with a bias
    assert len(layout) == 2 * (3 + 20 + 40 + 4) + 10 + 1


def test_it_is_the_network_of_modules(network: Network, file: Path):
    A = KernelNetworkBlur.load(file, SIZE, seed=3)
    x = seeded(2, 3, *SIZE) / 2
    expected_y = 2 * network((x + 1) / 2, A.code.double().expand(2, -1, -1, -1)) - 1
    y = A(x)
    torch.testing.assert_close(y, expected_y, rtol=0, atol=1e-12)
    assert A.y_shape((3, *SIZE)) == tuple(y.shape[1:])
    assert (y - x).abs().max() > 0.1  # the network does something
    other = KernelNetworkBlur.load(file, SIZE, seed=4)
    assert (other(x) - y).abs().max() > 1e-3  # and the code decides what
    assert torch.equal(KernelNetworkBlur.load(file, SIZE, seed=3)(x), y)


def test_codes_of_rows_precision_and_clamp(file: Path):
    one = KernelNetworkBlur.load(file, (128, 128))
    codes = torch.cat([one.code, -one.code])
    A, x = KernelNetworkBlur(one.weights, codes), seeded(2, 3, 128, 128, dtype=torch.float32)
    torch.testing.assert_close(A(x)[:1], one(x[:1]))
    torch.testing.assert_close(A.rows(torch.tensor([1]))(x[1:]), A(x)[1:])
    assert A(x).dtype == torch.float32
    assert A.to("cpu", torch.float32).weights["recon_trunk.3.weight"].dtype == torch.float32
    clamped = KernelNetworkBlur(one.weights, codes, clamp=True)
    torch.testing.assert_close(clamped(x), A(x).clamp(-1, 1))
    v = seeded(2, 3, 128, 128, dtype=torch.float32)
    assert torch.isfinite(A.vjp(x, v)).all() and A.vjp(x, v).any()
    assert A.batched == ("code",) and isinstance(A, Operator)


def test_safetensors_too(network: Network, file: Path, tmp_path: Path):
    from safetensors.torch import save_file

    save_file(network.state_dict(), tmp_path / "tiny.safetensors")
    A = KernelNetworkBlur.load(tmp_path / "tiny.safetensors", SIZE)
    x = seeded(1, 3, *SIZE)
    assert torch.equal(A(x), KernelNetworkBlur.load(file, SIZE)(x))


class Bomb:
    """A pickle that would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "boom"))


def test_hostile_files(file: Path, tmp_path: Path):
    """One sentence each, and nothing in a file is run."""
    boom, bad = tmp_path / "boom", tmp_path / "bad.pth"
    bad.write_bytes(pickle.dumps({"feature_extractor.0.weight": Bomb(boom)}))
    with pytest.raises(InvdiffError, match="nothing in it was run"):
        KernelNetworkBlur.load(bad, SIZE)
    torch.save({"feature_extractor.0.weight": Bomb(boom)}, bad)
    with pytest.raises(InvdiffError, match="nothing in it was run"):
        KernelNetworkBlur.load(bad, SIZE)
    assert not boom.exists()
    whole = file.read_bytes()
    for content in (b"", b"not weights", whole[: len(whole) // 2], whole[:-100]):
        bad.write_bytes(content)
        with pytest.raises(InvdiffError, match="damaged"):
            KernelNetworkBlur.load(bad, SIZE)
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(InvdiffError, match="damaged"):
            KernelNetworkBlur.load(tmp_path / "bad.safetensors", SIZE)
    with zipfile.ZipFile(bad, "w") as z:
        z.writestr("archive/data.pkl", "garbage")
    with pytest.raises(InvdiffError, match="damaged"):
        KernelNetworkBlur.load(bad, SIZE)
    for content in ([1, 2], {"a": 1}, {3: torch.zeros(1)}, torch.zeros(3)):
        torch.save(content, bad)
        with pytest.raises(InvdiffError, match="holds no state dict"):
            KernelNetworkBlur.load(bad, SIZE)
    with pytest.raises(InvdiffError, match="There is no file"):
        KernelNetworkBlur.load(tmp_path / "none.pth", SIZE)


def test_other_layouts_are_refused(network: Network, file: Path):
    weights, code = network.state_dict(), torch.zeros(1, 8 * N, 1, 1)
    KernelNetworkBlur(weights, code)
    with pytest.raises(InvdiffError, match="lack feature_extractor.0.weight"):
        KernelNetworkBlur({"conv.weight": torch.zeros(1)}, code)
    fewer = {k: v for k, v in weights.items() if k != "adapter.model.up.1.bias"}
    with pytest.raises(InvdiffError, match="lack adapter.model.up.1.bias"):
        KernelNetworkBlur(fewer, code)
    with pytest.raises(InvdiffError, match="no place for"):
        KernelNetworkBlur({**weights, "recon_trunk.99.weight": torch.zeros(1)}, code)
    # a batch norm's or an older upsampling's names are another network
    with pytest.raises(InvdiffError, match="no place for"):
        KernelNetworkBlur({**weights, "adapter.model.up.1.double_conv.0.weight": code}, code)
    turned = weights["adapter.model.up.1.weight"].transpose(0, 1)
    with pytest.raises(InvdiffError, match="adapter.model.up.1.weight has shape"):
        KernelNetworkBlur({**weights, "adapter.model.up.1.weight": turned}, code)
    broken = {**weights, "recon_trunk.3.bias": torch.full((4 * N,), torch.nan)}
    with pytest.raises(InvdiffError, match="real and finite"):
        KernelNetworkBlur(broken, code)
    for shape in ((1, 8 * N - 1, 1, 1), (8 * N, 1, 1), (1, 8 * N, 0, 1)):
        with pytest.raises(InvdiffError, match="A code has shape"):
            KernelNetworkBlur(weights, torch.zeros(shape))
    for size in ((128, 100), (64, 64)):
        with pytest.raises(InvdiffError, match="multiples of 128"):
            KernelNetworkBlur.load(file, size)
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvdiffError, match="scale of a code"):
            KernelNetworkBlur.load(file, SIZE, scale=scale)
    A = KernelNetworkBlur(weights, code)
    for shape in ((1, 128, 128), (3, 128, 256), (3, 2, 128, 128)):
        with pytest.raises(InvdiffError, match="blur images of .3, 128, 128"):
            A.y_shape(shape)
