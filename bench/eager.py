"""The baselines as modules of plain PyTorch: what a user writes from the paper's text."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Shift(nn.Module):
    """The wrapping temporal shift (FACTS 1.2): slices copied in eager, concatenations where a compiler fuses them."""

    def __init__(self, n_segment: int = 3) -> None:
        super().__init__()
        self.n_segment = n_segment

    def forward(self, x: Tensor) -> Tensor:
        clips = x.view(-1, self.n_segment, *x.shape[1:])
        fold = x.shape[1] // 3
        if torch.compiler.is_compiling():
            ahead, behind, same = clips[:, :, :fold], clips[:, :, fold : 2 * fold], clips[:, :, 2 * fold :]
            ahead = torch.cat((ahead[:, 1:], ahead[:, :1]), 1)
            behind = torch.cat((behind[:, -1:], behind[:, :-1]), 1)
            return torch.cat((ahead, behind, same), 2).view(x.shape)
        result = torch.empty_like(x)
        out = result.view(clips.shape)
        out[:, :-1, :fold] = clips[:, 1:, :fold]
        out[:, -1, :fold] = clips[:, 0, :fold]
        out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
        out[:, 0, fold : 2 * fold] = clips[:, -1, fold : 2 * fold]
        out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
        return result


def shifted_convolution(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(Shift(), nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU())


def trunk() -> nn.Sequential:
    """The Small branch."""
    return nn.Sequential(*(shifted_convolution(c_in, c_out) for c_in, c_out in ((3, 32), (32, 32), (32, 32), (32, 64))))


def block(c_in: int, c_mid: int, c_out: int, pool: int, dropout: float = 0.0) -> nn.Sequential:
    """A block of the Big branch."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_mid, 3, padding=1), nn.ReLU(), nn.Conv2d(c_mid, c_out, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(pool), nn.Dropout(dropout),
    )  # fmt: skip


class BigSmall(nn.Module):
    """The whole network; Big gets only the frames that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.big = nn.Sequential(block(3, 32, 32, 2, 0.25), block(32, 32, 64, 2, 0.5), block(64, 64, 64, 4, 0.5))
        self.small = trunk()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(5184, 128), nn.ReLU(), nn.Linear(128, outputs)) for outputs in (12, 1, 1)
        )

    def forward(self, big: Tensor, small: Tensor) -> tuple[Tensor, ...]:
        fused = self.big(big).repeat_interleave(3, 0) + self.small(small)
        features = fused.flatten(1)
        return tuple(head(features) for head in self.heads)


class DiffNormalize(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        x = frames.float()
        d = (x[1:] - x[:-1]) / (x[1:] + x[:-1] + 1e-7)
        return d / d.std(correction=0)


class Standardize(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        x = frames.float()
        return (x - x.mean()) / x.std(correction=0)
