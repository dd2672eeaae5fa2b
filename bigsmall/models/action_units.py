"""Action-unit networks to compare with: DRML and AlexNet on Big's frames of 144x144 (paper Table 2; FACTS 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from .network import Network, check_images, positive


class Patches(nn.Module):
    """A batch normalisation, ReLU and 3x3 convolution of its own for every patch of a grid; zeros around each patch.

    (frames, c_in, rows*h, columns*w) -> (frames, c_out, rows*h, columns*w)
    """

    def __init__(self, c_in: int, c_out: int, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        patches = rows * columns
        self.norm = nn.BatchNorm2d(patches * c_in)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(patches * c_in, patches * c_out, 3, padding=1, groups=patches)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.unflatten(2, (self.rows, -1)).unflatten(4, (self.columns, -1))  # frames, c, rows, h, columns, w
        patches: Tensor = self.conv(self.relu(self.norm(grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 3))))
        grid = patches.unflatten(1, (self.rows, self.columns, -1)).permute(0, 3, 1, 4, 2, 5)
        result: Tensor = grid.flatten(4, 5).flatten(2, 3)
        return result


class Region(nn.Module):
    """DRML's region layer: x plus what its patches give, 7x7 of them and a rest of the image along two sides."""

    grid = 7

    def __init__(self, channels: int) -> None:
        super().__init__()
        n = self.grid
        self.patches = nn.ModuleList(
            Patches(channels, channels, rows, columns) for rows in (n, 1) for columns in (n, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        inner, full = x.shape[-1] // self.grid * self.grid, x.shape[-1]
        strips = ((0, inner), (inner, full))
        quarters = [x[:, :, top:bottom, left:right] for top, bottom in strips for left, right in strips]
        a, b, c, d = (patches(part) for patches, part in zip(self.patches, quarters, strict=True))
        return x + torch.cat((torch.cat((a, b), 3), torch.cat((c, d), 3)), 2)


class _FromBig(Network):
    """Layers on every one of Big's frames (frames, 3, 144, 144) -> action-unit logits (frames, out_size)."""

    tasks, reads = ("au",), ("big",)
    features: nn.Sequential
    classifier: nn.Sequential

    def forward(self, big: Tensor) -> Tensor:
        check_images("big", big, self.big_size)
        logits: Tensor = self.classifier(self.features(big).flatten(1))
        return logits


class DRML(_FromBig):
    """Deep region and multi-label learning, at BigSmall's input size.

    Args:
        out_size: number of action units.
    """

    last_maps: ClassVar[Mapping[str, str]] = {"big": "features.11"}

    def __init__(self, *, out_size: int = 12) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 11), Region(32), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(32),
            nn.Conv2d(32, 16, 8), nn.ReLU(), nn.Conv2d(16, 16, 8), nn.ReLU(),
            nn.Conv2d(16, 16, 6, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 5), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(16 * 20 * 20, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, 2048), nn.ReLU(), nn.Dropout(),
            nn.Linear(2048, positive("out_size", out_size)),
        )  # fmt: skip


class AlexNet(_FromBig):
    """AlexNet without its adaptive pooling.

    Args:
        out_size: number of action units.
    """

    last_maps: ClassVar[Mapping[str, str]] = {"big": "features.10"}

    def __init__(self, *, out_size: int = 12) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 3 * 3, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, positive("out_size", out_size)),
        )  # fmt: skip
