"""JAA-Net and JÂA-Net: action units and landmarks of an aligned face together (FACTS 7), and what trains them.

What the facts leave open is written as the papers have it (Shao et al., ECCV 2018 and IJCV 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .action_units import Patches
from .network import Network, check_images, positive

LANDMARKS = 49
# Where an action unit is seen: two of the landmarks, and how far below them in distances of the inner eye corners.
CENTRES = {
    "AU01": (4, 5, -1 / 2), "AU02": (1, 8, -1 / 3), "AU04": (2, 7, 1 / 3), "AU06": (24, 29, 1.0), "AU07": (21, 26, 0.0),
    "AU09": (15, 17, -1 / 2), "AU10": (43, 45, 0.0), "AU12": (31, 37, 0.0), "AU14": (31, 37, 0.0),
    "AU15": (31, 37, 0.0), "AU17": (39, 41, 1 / 2), "AU23": (34, 40, 0.0), "AU24": (34, 40, 0.0),
    "AU25": (34, 40, 0.0), "AU26": (39, 41, 1 / 2),
}  # fmt: skip
EYE_CORNERS = (22, 25)
ALIKE = {"AU25": "AU23", "AU26": "AU17"}  # of DISFA and BP4D: seen at the same places
BP4D_UNITS = ("AU01", "AU02", "AU04", "AU06", "AU07", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24")

_MARGIN = 4  # what the refining convolutions take off a map at each side
_REACH, _FALL = 0.14, 0.56  # of a predefined map: its half width in halves of a map, and its fall over that width
_FEATURES = 160  # channels of the high-level features


class Seen(NamedTuple):
    """What JAA-Net makes of F frames: `units` and `local` (F, U, 2) log-probabilities of absent and present, `local`
    None in the first version; `landmarks` (F, 49, 2) x, y in shares of the frames' side; `predefined` and `attention`
    (F, U, m, m) maps; `features` (F, 64, m, m)."""

    units: Tensor
    local: Tensor | None
    landmarks: Tensor
    predefined: Tensor
    attention: Tensor
    features: Tensor

    def held(self, times: int) -> Seen:
        """Of every frame so many, (F * times, ...)."""
        parts = {name: of.repeat_interleave(times, 0) for name, of in self._asdict().items() if of is not None}
        return self._replace(**parts)


def checked_size(name: str, size: int) -> int:
    """`size` if its grids and poolings come out even, else an error naming the argument."""
    if positive(name, size) < 32 or size % 16:
        raise ValueError(f"{name} must be a multiple of 16 of at least 32, got {size}")
    return size


class _Region(nn.Module):
    """A convolution, refined by patches of a grid of 8x8, then of 4x4, then of 2x2; halved in size."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.fine = Patches(c_out, c_out // 2, 8, 8)
        self.middle = Patches(c_out // 2, c_out // 4, 4, 4)
        self.coarse = Patches(c_out // 4, c_out // 4, 2, 2)
        self.out = nn.Sequential(nn.BatchNorm2d(c_out), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        fine = self.fine(x)
        middle = self.middle(fine)
        halved: Tensor = self.out(x + torch.cat((fine, middle, self.coarse(middle)), 1))
        return halved


def _high_level(groups: int = 1) -> nn.Sequential:
    """(F, groups*64, m, m) -> (F, groups*160, m // 8, m // 8), every group for itself."""
    layers: list[nn.Module] = []
    c_in = 64
    for c_out in (96, 128, _FEATURES):
        for c in (c_in, c_out):
            conv = nn.Conv2d(groups * c, groups * c_out, 3, padding=1, groups=groups)
            layers += [conv, nn.BatchNorm2d(groups * c_out), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        c_in = c_out
    return nn.Sequential(*layers)


def _refinement(units: int) -> nn.Sequential:
    """Predefined maps (F, U, m + 8, m + 8) -> attention (F, U, m, m), every unit for itself."""
    layers: list[nn.Module] = []
    for c_in in (1, 64, 64):
        conv = nn.Conv2d(units * c_in, units * 64, 3, groups=units)
        layers += [conv, nn.BatchNorm2d(units * 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(units * 64, units, 3, groups=units), nn.Sigmoid())


class JAANet(Network):
    """Action-unit logits of aligned faces.

    Landmarks are found first; around two of them for each unit a map is drawn, refined, and laid over the features that
    the unit's own layers read. So it has to be trained with landmarks, by `joint_loss`: a training that knows action
    units alone leaves the maps where chance put them.

    Args:
        action_units: names out of `CENTRES`, in the order of the outputs.
        size: height and width of the frames in pixels, a multiple of 16 from 32 on.
        version: 1, or 2 (JÂA-Net), where each unit's layers answer too and learn from their own answer alone.
    """

    tasks, also = ("au",), ("landmarks",)
    last_maps: ClassVar[Mapping[str, str]] = {"big": "whole.17"}

    def __init__(self, *, action_units: Sequence[str] = BP4D_UNITS, size: int = 176, version: int = 2) -> None:
        super().__init__()
        if unknown := [unit for unit in action_units if unit not in CENTRES]:
            raise ValueError(f"action_units must be among {', '.join(CENTRES)}, got {', '.join(unknown)}")
        checked_size("size", size)
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, got {version!r}")
        units = positive("the number of action_units", len(action_units))
        self.size, self.map_size, self.version = size, size // 4, version
        self.reads = (f"standard:{size}",)
        self.action_units = tuple(action_units)
        self.centres = tuple(CENTRES[unit] for unit in action_units)
        flat = _FEATURES * (self.map_size // 8) ** 2
        self.region = nn.Sequential(_Region(3, 32), _Region(32, 64))
        self.align = _high_level()
        self.landmarks = nn.Sequential(nn.Linear(flat, 512), nn.Linear(512, 2 * LANDMARKS))
        self.refine = _refinement(units)
        self.local = _high_level(units)
        if version == 2:
            self.answers = nn.Sequential(
                nn.Conv2d(units * flat, units * 64, 1, groups=units), nn.Conv2d(units * 64, units * 2, 1, groups=units)
            )
        self.whole = _high_level()
        self.units = nn.Sequential(nn.Linear(3 * flat, 512), nn.Linear(512, 2 * units))

    def forward(self, standard: Tensor) -> Tensor:
        """Standardised frames of aligned faces (F, 3, size, size) -> action-unit logits (F, units)."""
        return self.logits(self.detail(standard))

    def taught(self, standard: Tensor) -> tuple[Seen]:
        """`forward` with all that is learnt from in place of the logits."""
        return (self.detail(standard),)

    @staticmethod
    def logits(seen: Seen) -> Tensor:
        """(F, units); their sigmoid is the probability that the two log-probabilities give."""
        return seen.units[..., 1] - seen.units[..., 0]

    def detail(self, standard: Tensor) -> Seen:
        """All that is made of standardised frames of aligned faces (F, 3, size, size)."""
        check_images("standard", standard, self.size)
        units = len(self.centres)
        features = self.region(standard)
        align = self.align(features).flatten(1)
        landmarks = self.landmarks(align).unflatten(1, (LANDMARKS, 2))
        predefined = self.predefined(landmarks.detach())
        attention = self.refine(predefined)
        local = self.local((attention.unsqueeze(2) * features.unsqueeze(1)).flatten(1, 2))
        answers = None
        if self.version == 2:
            answers = self.answers(local.flatten(1)[:, :, None, None]).flatten(1)
            answers = answers.unflatten(1, (units, 2)).log_softmax(2)
        mean = local.unflatten(1, (units, -1)).mean(1).flatten(1)
        mean = mean if self.version == 1 else mean.detach()
        both = self.units(torch.cat((align, self.whole(features).flatten(1), mean), 1))
        inner = predefined[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        shares = (landmarks + 0.5) / self.size
        return Seen(both.unflatten(1, (units, 2)).log_softmax(2), answers, shares, inner, attention, features)

    def predefined(self, landmarks: Tensor) -> Tensor:
        """Maps (F, U, m + 8, m + 8) that fall off from 1 at two places of each unit, m wide over the features.

        Args:
            landmarks: (F, 49, 2) x, y in pixels of the frames.
        """
        side = self.map_size + 2 * _MARGIN
        points = landmarks * (self.map_size / self.size) + _MARGIN
        ruler = (points[:, EYE_CORNERS[0], 0] - points[:, EYE_CORNERS[1], 0]).abs()
        first, second, below = zip(*self.centres, strict=True)
        centres = torch.stack((points[:, list(first)], points[:, list(second)]), 2)  # F, U, 2, (x, y)
        down = ruler[:, None] * points.new_tensor(below)
        centres = centres + torch.stack((torch.zeros_like(down), down), -1).unsqueeze(2)
        distance = (torch.arange(side, device=points.device) - centres.clamp(0, side - 1).round().unsqueeze(-1)).abs()
        x, y = distance[..., 0, None, :], distance[..., 1, :, None]  # F, U, 2, 1, side and F, U, 2, side, 1
        reach = round((side - 1) / 2 * _REACH)
        values = (1 - (x + y) * _FALL / (side * _REACH)) * ((x <= reach) & (y <= reach))
        drawn: Tensor = values.clamp(min=0).amax(2)
        return drawn


def unit_branches(model: Network, source: Network) -> dict[str, Tensor]:
    """Tensors of a JAA-Net's `refine` and `local`, bare or in BigSmall++, with each unit's part taken from that unit's
    in another one, or from its like (FACTS 7); units without one keep theirs."""
    mine, theirs, found = list(model.action_units), list(source.action_units), source.state_dict()
    likes = [unit if unit in theirs else ALIKE.get(unit) for unit in mine]
    to = [i for i, like in enumerate(likes) if like in theirs]
    of = [theirs.index(like) for like in likes if like in theirs]
    made = {}
    for name, own in model.state_dict().items():
        if name.removeprefix("big.").startswith(("refine.", "local.")) and name in found and own.dim():
            parts = own.clone().unflatten(0, (len(mine), -1))
            parts[to] = found[name].unflatten(0, (len(theirs), -1))[of]
            made[name] = parts.flatten(0, 1)
    return made


def joint_loss(seen: Seen, au: Tensor, landmarks: Tensor, weights: Tensor | None = None) -> Tensor:
    """What JAA-Net is trained with: action units, half the landmarks' error, and in version 1 the attention's.

    Args:
        seen: of `JAANet.detail`.
        au: (F, U) 0 or 1, NaN unknown.
        landmarks: (F, 49, 2) true x, y in shares of the frames' side, NaN all those of a frame where unknown.
        weights: (U,) of the units, of mean 1, the inverse of how often they occur; None: all 1.
    Returns:
        a scalar. The authors minimise it by SGD (Nesterov 0.9, weight decay 5e-4, rate 0.01, times 0.3 every second of
        12 epochs), with twice the rate for version 1's `refine`.
    """
    units, points = unit_sum(seen, au, weights), landmark_sum(seen, landmarks)
    return units / (~au.isnan()).sum().clamp(min=1) + points / (~landmarks.isnan()).sum().clamp(min=1)


def unit_sum(seen: Seen, au: Tensor, weights: Tensor | None = None) -> Tensor:
    """What action units add to `joint_loss`, to be divided by how many values of `au` are known."""
    weights = au.new_ones(au.shape[1]) if weights is None else weights
    loss = _unit_loss(seen.units, au, weights)
    if seen.local is not None:
        return loss + _unit_loss(seen.local, au, weights)
    # Summed over a map: the authors' weight is so small because of it.
    refined = F.binary_cross_entropy(seen.attention.float(), seen.predefined.float(), reduction="none")
    return loss + 1e-4 * (refined.sum((2, 3)) * ~au.isnan()).sum()


def _unit_loss(log_probabilities: Tensor, au: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy and Dice (smoothed by 1), weighted over units, summed over those that are known."""
    known = ~au.isnan()
    truth = torch.where(known, au, 0.0)
    absent, present = log_probabilities.float().unbind(2)
    entropy = -(truth * present + (1 - truth) * absent)
    p = present.exp()
    dice = 1 - (2 * p * truth + 1) / (p**2 + truth**2 + 1)
    return ((entropy + dice) * weights * known).sum()


def landmark_sum(seen: Seen, landmarks: Tensor) -> Tensor:
    """What landmarks add to `joint_loss`, to be divided by how many values of `landmarks` are known: half of their
    squared errors, in squares of the distance between the eyes' centres, halved."""
    known = ~landmarks.isnan().any(2).any(1)
    found, true = seen.landmarks[known].float(), landmarks[known]
    left, right = true[:, 19:25].mean(1), true[:, 25:31].mean(1)
    between = (left - right).square().sum(1)
    return 0.5 * 2 * LANDMARKS * ((found - true).square().sum((1, 2)) / (2 * between)).sum()
