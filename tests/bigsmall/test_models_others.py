"""The models beside BigSmall: sizes and costs as published, outputs as the authors' code gives them, what they mix."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bigsmall import models

FUSIONS = ["bigsmall_concat", "bigsmall_lateral", "bigsmall_big2small", "bigsmall_small2big", "bigsmall_grey"]
QUICK = {  # every model of this file, as small as it gets
    **{name: {"big_size": 32} for name in FUSIONS},
    **{name: {"size": 16} for name in ("deepphys", "tscan", "mttscan", "efficientphys")},
    **{name: {"big_size": 48, "small_size": 3} for name in ("deepphys9", "mttscan9")},
    "tscan9": {},
    "drml": {},
    "alexnet": {},
}


def random_inputs(model: models.Network, clips: int = 1) -> dict[str, Tensor]:
    return {name: torch.randn(shape) for name, shape in model.input_shapes(clips).items()}


def outputs(model: models.Network, inputs: dict[str, Tensor]) -> list[Tensor]:
    return list(models.answer(model, inputs).values())


def test_every_model_is_tested_here_or_beside() -> None:
    beside = {"big", "small", "bigsmall", "bigsmall_tsm", "bigsmall_noshift", "bigsmall_full", "bigsmall_full_noshift"}
    assert set(models.names()) == set(QUICK) | beside | {"jaanet", "jaanet2", "bigsmall_plus"}


# --- as published -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "parameters", "per_frame"),
    [  # FACTS 1.3, 3.6 and 7: parameters, and millions of flopth's operations to as many digits as given there
        ("bigsmall_concat", {}, 4_133_134, "157.37"),
        ("bigsmall_lateral", {}, 2_160_910, "172.06"),
        ("bigsmall_big2small", {}, 2_151_694, "156.13"),
        ("bigsmall_small2big", {}, 2_151_694, "171.31"),
        ("bigsmall_grey", {}, 2_141_902, "151.40"),
        ("deepphys9", {}, 795_043, "11.29"),
        ("mttscan9", {}, 1_458_852, "11.96"),
        ("tscan9", {}, 795_043, "11.29"),
        ("deepphys", {}, 2_228_643, "228.4"),
        ("deepphys", {"size": 36}, 532_899, "51.6"),
        ("tscan", {}, 2_228_643, "228.4"),
        ("mttscan", {}, 4_326_052, None),
        ("efficientphys", {}, 2_163_081, "115.4"),
        ("efficientphys", {"size": 36}, 467_337, "26.0"),
        ("drml", {}, 35_306_252, "585.1"),
        ("alexnet", {}, 28_741_452, "280.9"),
    ],
)
def test_parameters_and_flops(name: str, options: dict[str, Any], parameters: int, per_frame: str | None) -> None:
    model = models.build(name, **options)
    described = models.cost(model)
    assert sum(p.numel() for p in model.parameters()) == described.parameters == parameters
    if per_frame:
        digits = len(per_frame.partition(".")[2])
        assert described.flops_per_frame / 1e6 == pytest.approx(float(per_frame), abs=0.5001 * 10**-digits)
    assert model.training  # as it was


@pytest.mark.parametrize("name", ["deepphys9", "mttscan9"])
@torch.inference_mode()
def test_golden_outputs(name: str, reference_dir: Path) -> None:
    """The authors' 9x9 baselines, weight by weight and to float32 rounding."""
    with np.load(reference_dir / "golden" / "baselines9.npz") as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    prefix = f"{name}/"
    model = models.build(name).eval()
    model.load_state_dict({k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}, strict=True)
    torch.testing.assert_close(model.appearance(golden["big"]), golden["appearance_9x9"], rtol=0, atol=1e-6)
    for i, actual in enumerate(outputs(model, golden)):
        expected = golden[f"{name}_out{i}"]
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


# --- against plain definitions ----------------------------------------------------------------------------------------


def shifted(x: Tensor, n: int, shift: str) -> Tensor:
    if shift == "none":
        return x
    clips = x.unflatten(0, (-1, n)).clone()
    fold = x.shape[1] // 3
    ahead, behind = clips[:, :, :fold].roll(-1, 1), clips[:, :, fold : 2 * fold].roll(1, 1)
    if shift == "tsm":
        ahead[:, -1], behind[:, 0] = 0, 0
    clips[:, :, :fold], clips[:, :, fold : 2 * fold] = ahead, behind
    return clips.flatten(0, 1)


def plain_attention(model: Any, motion: Tensor, appearance: Tensor | None, heads: list[str]) -> list[Tensor]:
    """The towers of FACTS 7 in PyTorch's own functions, without dropout."""

    def conv(tower: str, number: int, x: Tensor) -> Tensor:
        layer = getattr(model, f"{tower}_conv{number}")
        x = shifted(x, model.n_segment, model.shift) if tower == "motion" else x
        return torch.tanh(F.conv2d(x, layer.weight, layer.bias, padding=int(number % 2 or not model.pooling)))

    for stage in (1, 2):
        for number in (2 * stage - 1, 2 * stage):
            motion = conv("motion", number, motion)
            appearance = None if appearance is None else conv("apperance", number, appearance)
        mask = torch.sigmoid(getattr(model, f"apperance_att_conv{stage}")(motion if appearance is None else appearance))
        motion = motion * mask * 0.5 * mask.shape[2] * mask.shape[3] / mask.sum((2, 3), keepdim=True)
        if model.pooling:
            motion = F.avg_pool2d(motion, 2)
            appearance = None if appearance is None else F.avg_pool2d(appearance, 2)
    layers = [(getattr(model, f"final_dense_1{head}"), getattr(model, f"final_dense_2{head}")) for head in heads]
    return [second(torch.tanh(first(motion.flatten(1)))) for first, second in layers]


@pytest.mark.parametrize(
    ("name", "options", "heads"),
    [
        ("deepphys", {}, [""]),
        ("tscan", {}, [""]),
        ("tscan", {"n_segment": 4, "shift": "wtsm"}, [""]),
        ("mttscan", {}, ["_y", "_r"]),
        ("tscan9", {}, [""]),
        ("tscan9", {"shift": "wtsm"}, [""]),
        ("tscan9", {"shift": "none"}, [""]),
    ],
)
@torch.inference_mode()
def test_two_towers(name: str, options: dict[str, Any], heads: list[str]) -> None:
    model = models.build(name, **({} if name == "tscan9" else {"size": 22}), **options).eval()
    inputs = random_inputs(model, clips=3)
    for actual, expected in zip(outputs(model, inputs), plain_attention(model, *inputs.values(), heads), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame_depth", [None, 3])
@torch.inference_mode()
def test_efficientphys(frame_depth: int | None) -> None:
    """Differences end at the end of a clip, whose last frame has the difference 0; the shift may stay within less."""
    model: Any = models.build("efficientphys", size=22, n_segment=6, frame_depth=frame_depth).eval()
    frames = random_inputs(model, clips=3)["standard:22"]
    motion = torch.cat([torch.cat((clip, clip[-1:])).diff(dim=0) for clip in frames.split(6)])
    actual = model(frames)
    model.n_segment = frame_depth or 6  # within which plain_attention shifts
    (expected,) = plain_attention(model, model.batch_norm(motion), None, [""])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
@torch.inference_mode()
def test_fusion(name: str) -> None:
    """The variants of FACTS 7 in PyTorch's own functions, at N = 4 and M = 2."""
    model: Any = models.build(name, n_segment=4, big_every=2, big_size=32).eval()
    inputs = random_inputs(model, clips=2)
    big, small = inputs["big"], inputs["small"]

    def conv(branch: str, number: int, x: Tensor) -> Tensor:
        layer = getattr(model, f"{branch}_conv{number}")
        x = shifted(x, 4, "wtsm") if branch == "small" else x
        return F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))

    def repeated(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 0)

    if name == "bigsmall_grey":
        big = big.mean(1, keepdim=True)
    big = F.avg_pool2d(conv("big", 2, conv("big", 1, big)), 2)
    small = conv("small", 2, conv("small", 1, small))
    to_small = torch.cat((repeated(F.avg_pool2d(big, 8)), small), 1)
    means = (small[0::2] + small[1::2]) / 2
    to_big = torch.cat((means.repeat_interleave(8, 2).repeat_interleave(8, 3), big), 1)
    if name in ("bigsmall_lateral", "bigsmall_big2small"):
        small = to_small
    if name in ("bigsmall_lateral", "bigsmall_small2big"):
        big = to_big
    big = F.avg_pool2d(conv("big", 4, conv("big", 3, big)), 2)
    big = repeated(F.avg_pool2d(conv("big", 6, conv("big", 5, big)), 4))
    small = conv("small", 4, conv("small", 3, small))
    features = (torch.cat((big, small), 1) if name == "bigsmall_concat" else big + small).flatten(1)
    for head, actual in zip(("au", "bvp", "resp"), outputs(model, inputs), strict=True):
        first, second = getattr(model, f"{head}_fc1"), getattr(model, f"{head}_fc2")
        torch.testing.assert_close(actual, second(F.relu(first(features))), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_patches_are_convolutions_of_their_own() -> None:
    """DRML's region layer: 8x8 patches, the last row and column of them one pixel wide, and the image itself."""
    model: Any = models.build("drml").eval()
    region = model.features[1]
    x = torch.randn(2, 32, 134, 134)
    actual = region(x)
    edges = [*range(0, 134, 19), 134]
    for row, (top, bottom) in enumerate(pairwise(edges)):
        for column, (left, right) in enumerate(pairwise(edges)):
            group = region.patches[2 * (row == 7) + (column == 7)]
            index = (row % 7) * group.columns + column % 7
            mine = slice(32 * index, 32 * (index + 1))
            patch = x[:, :, top:bottom, left:right]
            norm, conv = group.norm, group.conv
            hidden = F.batch_norm(
                patch, norm.running_mean[mine], norm.running_var[mine], norm.weight[mine], norm.bias[mine]
            )
            expected = patch + F.conv2d(F.relu(hidden), conv.weight[mine], conv.bias[mine], padding=1)
            torch.testing.assert_close(actual[:, :, top:bottom, left:right], expected, rtol=0, atol=1e-5)


# --- clips, batches, gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_batches_of_clips(name: str) -> None:
    """An odd number of clips gives what the clips give one by one; no clip influences another; one clip works."""
    model = models.build(name, **QUICK[name]).eval()
    inputs = random_inputs(model, clips=3)
    with torch.inference_mode():
        together = outputs(model, inputs)
        single = [outputs(model, {k: v.chunk(3)[i] for k, v in inputs.items()}) for i in range(3)]
    for task, whole, parts in zip(model.tasks, together, zip(*single, strict=True), strict=True):
        assert whole.shape == (3 * model.n_segment, 12 if task == "au" else 1)
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = models.build(name, **QUICK[name])
    sum(output.square().sum() for output in outputs(model, random_inputs(model, clips=2))).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    assert all(p.grad.any() for n, p in model.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize("name", ["deepphys", "tscan", "efficientphys", "deepphys9", "tscan9"])
def test_task(name: str) -> None:
    assert models.build(name, task="respiration").tasks == ("respiration",)
    with pytest.raises(ValueError, match="task must be one of pulse, respiration, got 'au'"):
        models.build(name, task="au")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("deepphys", {"size": 9}, ValueError, "size must be at least 10.*got 9"),
        ("tscan", {"shift": "left"}, ValueError, "shift.*wtsm, tsm, none.*left"),
        ("tscan", {"n_segment": 0}, ValueError, "n_segment must be at least 1"),
        ("efficientphys", {"frame_depth": 4}, ValueError, "frame_depth must divide n_segment = 10, got 4"),
        ("deepphys9", {"small_size": 0}, ValueError, "small_size must be at least 1"),
        ("drml", {"out_size": 0}, ValueError, "out_size must be at least 1"),
        ("alexnet", {"big_size": 72}, TypeError, "no option big_size; its options are out_size"),
        ("bigsmall_lateral", {"big_every": 2}, ValueError, "big_every must divide n_segment = 3, got 2"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        models.build(name, **options)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("tscan9", [(4, 9), (4, 9)], "difference must hold a multiple of n_segment = 3 frames, got 4"),
        ("tscan9", [(3, 9), (6, 9)], "standard must hold the 3 frames of difference, got 6"),
        ("mttscan9", [(1, 144), (3, 9)], "big must hold the 3 frames of small, got 1"),
        ("efficientphys", [(10, 36)], r"standard must have shape \(frames, 3, 72, 72\), got \(10, 3, 36, 36\)"),
        ("bigsmall_grey", [(1, 72), (3, 9)], r"big must have shape \(frames, 3, 144, 144\)"),
        ("alexnet", [(1, 72)], r"big must have shape \(frames, 3, 144, 144\)"),
    ],
)
def test_bad_inputs(name: str, shapes: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name)(*(torch.zeros(frames, 3, size, size) for frames, size in shapes))
