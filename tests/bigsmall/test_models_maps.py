"""What the last convolutions see (Fig. 6), for every network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bigsmall import models
from bigsmall.models import maps

SIZES: dict[str, dict[str, Any]] = {  # those whose maps would take long otherwise
    name: {"size": 22} for name in ("deepphys", "tscan", "mttscan", "efficientphys")
} | {"jaanet": {"size": 32}, "jaanet2": {"size": 32}, "bigsmall_plus": {"big_size": 32}}


def network(name: str, clips: int = 2) -> tuple[Any, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = models.build(name, **SIZES.get(name, {}))
    return model, {key: torch.randn(shape) for key, shape in model.input_shapes(clips).items()}


@pytest.mark.parametrize("name", models.names())
def test_every_network_shows_its_maps(name: str) -> None:
    model, inputs = network(name)
    outputs = models.answer(model.eval(), inputs)
    seen = maps.activations(model, inputs)
    assert set(seen) == set(model.last_maps)
    assert set(seen) <= {"big", "small"}
    for key, values in seen.items():
        frames = 2 * model.n_segment
        assert values.dim() == 4
        assert values.shape[0] == (frames // model.big_every if key == "big" else frames)
        assert not values.requires_grad
    for task in model.tasks:
        for key, cam in maps.grad_cam(model, inputs, task).items():
            assert cam.shape == (seen[key].shape[0], *seen[key].shape[2:])
            assert ((cam >= 0) & cam.isfinite()).all()
    for task, output in models.answer(model, inputs).items():
        torch.testing.assert_close(output, outputs[task])  # looking changes nothing


def test_bigsmall_maps_are_the_ones_that_are_pooled_and_summed() -> None:
    model, inputs = network("bigsmall")
    seen = maps.activations(model, inputs)
    assert model.training
    model.eval()
    assert seen["big"].shape == (2, 64, 36, 36)
    assert seen["small"].shape == (6, 64, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(F.avg_pool2d(seen["big"], 4), model.big_maps(inputs["big"]))
        torch.testing.assert_close(seen["small"], model.small_maps(inputs["small"]))


def test_long_batches() -> None:
    """Big runs over a few frames at a time in inference; its maps come back as one."""
    model, _ = network("big")
    frames = torch.randn(20, 3, 144, 144)
    torch.testing.assert_close(
        maps.activations(model, {"big": frames})["big"][17:18],
        maps.activations(model, {"big": frames[17:18]})["big"],
    )


@pytest.mark.parametrize(("task", "unit"), [("au", 3), ("pulse", None)])
def test_grad_cam_by_hand(task: str, unit: int | None) -> None:
    """The derivative of the heads with respect to the maps, taken where the maps enter them; frozen weights too."""
    model, inputs = network("bigsmall")
    model.eval().requires_grad_(False)
    big, small = (values.requires_grad_() for values in maps.activations(model, inputs).values())
    outputs = dict(zip(model.tasks, model.heads(F.avg_pool2d(big, 4), small), strict=True))
    score = outputs[task] if unit is None else outputs[task][:, unit]
    gradients = torch.autograd.grad(score.sum(), (big, small))
    for_it = maps.grad_cam(model, inputs, task, unit)
    for head in ("au", "bvp"):
        model.get_parameter(f"{head}_fc2.weight").neg_()
    against_it = maps.grad_cam(model, inputs, task, unit)
    for name, values, gradient in zip(("big", "small"), (big, small), gradients, strict=True):
        expected = torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), values)
        assert expected.any()
        torch.testing.assert_close(for_it[name], expected.clamp(min=0))
        torch.testing.assert_close(against_it[name], -expected.clamp(max=0))


@pytest.mark.parametrize(
    ("task", "unit", "message"),
    [
        ("gaze", None, "task must be one of au, pulse, respiration, got 'gaze'"),
        ("au", 12, "unit must be from 0 to 11, got 12"),
        ("pulse", -1, "unit must be from 0 to 0, got -1"),
    ],
)
def test_bad_input(task: str, unit: int | None, message: str) -> None:
    model, inputs = network("bigsmall")
    with pytest.raises(ValueError, match=message):
        maps.grad_cam(model, inputs, task, unit)
    assert model.training
