"""The paper's losses (FACTS 5), over what is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets import Clips
from ..models.jaanet import JAANet, Seen, landmark_sum, unit_sum

RAREST = 0.02  # prevalence; rarer AUs weigh no more than these


def known(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How many values of each task's targets are known, () float64."""
    return {task: (~values.isnan()).sum(dtype=torch.float64) for task, values in targets.items()}


def losses(
    outputs: Mapping[str, Any],
    targets: Mapping[str, Tensor],
    counts: Mapping[str, Tensor],
    pos_weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """Each task's loss: weighted binary cross-entropy of the AUs, squared errors of the signals.

    A network that learns AUs with landmarks has losses of its own (`models.jaanet.joint_loss`). Its weights are the
    inverse of a prevalence, which is 1 + pos_weight, and of mean 1.

    Args:
        outputs: logits (frames, units), or `Seen`, and signals (frames, 1), as networks answer.
        targets: of what is learnt, in the same shapes; NaN is unknown and counts for nothing.
        counts: what each sum is divided by, (): the known values of the whole batch, of which this may be a part.
        pos_weight: (units,).
    Raises:
        ValueError: outputs and targets of different shapes.
    """
    found, seen = {}, outputs.get("au")
    if isinstance(seen, Seen):
        outputs = {**outputs, "au": JAANet.logits(seen), "landmarks": seen.landmarks}
    for task, target in targets.items():
        output = outputs[task].float() if outputs[task].dtype != torch.float64 else outputs[task]
        if output.shape != target.shape:
            raise ValueError(
                f"{task}: the network gives {tuple(output.shape)} and the data {tuple(target.shape)}; "
                "does model.options.out_size, or .action_units, fit the action units?"
            )
        there = ~target.isnan()
        truth = torch.where(there, target, 0)
        if task == "au" and isinstance(seen, Seen):
            rarity = None if pos_weight is None else 1 + pos_weight
            total = unit_sum(seen, target, None if rarity is None else rarity / rarity.mean())
        elif isinstance(seen, Seen) and task == "landmarks":
            total = landmark_sum(seen, target)
        elif task == "au":
            total = F.binary_cross_entropy_with_logits(
                output, truth, weight=there.to(output.dtype), pos_weight=pos_weight, reduction="sum"
            )
        else:
            total = torch.where(there, output - truth, 0).square().sum()
        found[task] = total / counts[task].clamp(min=1).to(output.dtype)
    return found


def positive_weight(spec: Any, clips: Clips) -> Tensor | None:
    """What `pos_weight` of a configuration means for the clips' AUs, (units,) float32; None: no AUs, or no weights.

    The rarer an AU is shown the more a miss costs: by negatives / positives ("auto"), or by its root only, for F1
    counts false alarms too ("root").
    """
    if spec is None or "au" not in clips.tasks:
        return None
    if isinstance(spec, list):
        if len(spec) != len(clips.action_units):
            units = ", ".join(clips.action_units)
            raise ValueError(f"pos_weight has {len(spec)} numbers, expected {len(clips.action_units)}: of {units}")
        return torch.tensor(spec, dtype=torch.float32)
    shown = seen = np.float64(0)
    for number in np.unique(clips.recording):
        recording, starts = clips.recordings[number], clips.start[clips.recording == number]
        if not recording.action_units:
            continue
        au = recording.targets(("au",), starts, clips.n)["au"].numpy()
        shown, seen = shown + np.nansum(au, 0, dtype=np.float64), seen + (~np.isnan(au)).sum(0)
    share = shown / np.maximum(seen, 1)
    odds = (1 - share) / np.maximum(share, RAREST)
    return torch.from_numpy(odds if spec == "auto" else odds**0.5).float()
