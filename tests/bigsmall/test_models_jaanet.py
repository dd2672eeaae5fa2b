"""JAA-Net, JÂA-Net and BigSmall++: sizes and costs as published, the maps that landmarks draw, the joint training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bigsmall import models
from bigsmall.models.jaanet import BP4D_UNITS, CENTRES, joint_loss, unit_branches

SIZE = 32
DISFA = ["AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26"]  # a list, as cards have it


def network(version: int = 2, **options: Any) -> Any:
    torch.manual_seed(0)
    return models.build("jaanet2", version=version, **{"size": SIZE, **options})


def faces(frames: int, size: int = SIZE) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, action units and landmarks; the seed is fixed."""
    torch.manual_seed(1)
    landmarks = size * (0.2 + 0.6 * torch.rand(frames, 49, 2))
    landmarks[:, 19:25, 0] -= size / 4  # so that eyes are apart
    return torch.randn(frames, 3, size, size), torch.randint(0, 2, (frames, 12)).float(), landmarks


# --- as published -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), [("jaanet", 22_162_854), ("jaanet2", 25_237_182)])
def test_parameters_and_flops(name: str, parameters: int) -> None:
    """FACTS 7, with the parts of the second version's 8.83 billion a frame."""
    described = models.describe(name)
    assert described.parameters == parameters
    assert round(described.flops_per_frame / 1e9, 2) == 8.83
    for part, billions in {"local": 5.34, "refine": 2.01, "region": 0.58, "align": 0.45, "whole": 0.45}.items():
        layers = [layer for layer in described.layers if layer.name.startswith(f"{part}.")]
        assert round(sum(layer.runs * layer.flops for layer in layers) / 1e9, 2) == billions


def test_disfa() -> None:
    model = network(action_units=DISFA)
    assert model.eval()(torch.randn(2, 3, SIZE, SIZE)).shape == (2, 8)


# --- maps -------------------------------------------------------------------------------------------------------------


def test_predefined_maps() -> None:
    """Pixel by pixel, at the published size: 52 pixels, a window of 4 around each place, clipped to the map."""
    model = network(size=176)
    _, _, landmarks = faces(2, 176)
    landmarks[0, 24] = torch.tensor([-30.0, 400.0])  # out of the picture
    maps = model.predefined(landmarks)
    assert maps.shape == (2, 12, 52, 52)
    for face, points in enumerate(landmarks / 4 + 4):
        ruler = abs(float(points[22, 0] - points[25, 0]))
        for unit, name in enumerate(BP4D_UNITS):
            first, second, below = CENTRES[name]
            expected = torch.zeros(52, 52)
            for point in (first, second):
                cx, cy = round(float(points[point, 0])), round(float(points[point, 1]) + ruler * below)
                cx, cy = min(max(cx, 0), 51), min(max(cy, 0), 51)
                for y in range(max(0, cy - 4), min(52, cy + 5)):
                    for x in range(max(0, cx - 4), min(52, cx + 5)):
                        value = 1 - (abs(x - cx) + abs(y - cy)) * 0.56 / (52 * 0.14)
                        expected[y, x] = max(float(expected[y, x]), value)
            torch.testing.assert_close(maps[face, unit], expected)


def test_attention_is_laid_over_the_features() -> None:
    """What is outside a unit's attention does not reach its own layers: with none, features have no say."""
    model = network().eval()
    x, other, _ = *faces(2)[0].chunk(2), None
    model.refine[-2].weight.data.zero_()
    model.refine[-2].bias.data.fill_(-1e4)  # a sigmoid of 0 everywhere
    torch.testing.assert_close(model.detail(x).local, model.detail(other).local)
    assert not torch.equal(model.detail(x).units, model.detail(other).units)


# --- outputs and losses -----------------------------------------------------------------------------------------------


def test_logits_give_the_probabilities() -> None:
    model = network().eval()
    x, _, _ = faces(3)
    seen = model.detail(x)
    torch.testing.assert_close(torch.sigmoid(model(x)), seen.units[..., 1].exp())
    torch.testing.assert_close(seen.units.exp().sum(-1), torch.ones(3, 12))
    torch.testing.assert_close(model(x), torch.cat([model(x[i : i + 1]) for i in range(3)]))


@pytest.mark.parametrize("version", [1, 2])
def test_joint_loss(version: int) -> None:
    """Number by number; what is unknown counts nothing."""
    x, au, landmarks = faces(3)
    landmarks = (landmarks + 0.5) / SIZE
    au[1, 4] = torch.nan
    weights = torch.linspace(0.5, 1.5, 12)
    with torch.no_grad():
        seen = network(version).detail(x)

    def units(log_probabilities: Tensor) -> float:
        terms = []
        for f in range(3):
            for u in range(12):
                t = float(au[f, u])
                if t == t:
                    p = float(log_probabilities[f, u, 1].exp())
                    entropy = -float(log_probabilities[f, u, int(t)])
                    terms.append(float(weights[u]) * (entropy + 1 - (2 * p * t + 1) / (p * p + t * t + 1)))
        return sum(terms) / len(terms)

    eyes = (landmarks[:, 19:25].mean(1) - landmarks[:, 25:31].mean(1)).norm(dim=1)
    error = ((seen.landmarks - landmarks) ** 2).flatten(1).sum(1) / (2 * eyes**2)
    expected = units(seen.units) + 0.5 * float(error.mean())
    if version == 2:
        expected += units(seen.local)
    else:
        assert seen.local is None
        a, m = seen.attention, seen.predefined
        refined = -(m * a.log() + (1 - m) * (1 - a).log()).flatten(2).sum(2)
        expected += 1e-4 * float(refined[~au.isnan()].mean())
    assert joint_loss(seen, au, landmarks, weights).item() == pytest.approx(expected, rel=1e-5)


def test_unknown_landmarks_count_nothing() -> None:
    x, au, landmarks = faces(3)
    landmarks = (landmarks + 0.5) / SIZE
    model = network().eval()
    seen = model.detail(x)
    au[:] = torch.nan
    some = landmarks.clone()
    some[1] = torch.nan
    two = type(seen)(*(None if part is None else part[[0, 2]] for part in seen))
    torch.testing.assert_close(joint_loss(seen, au, some), joint_loss(two, au[:2], landmarks[[0, 2]]))
    nothing = joint_loss(seen, au, torch.full_like(landmarks, torch.nan))
    assert nothing.item() == 0
    nothing.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("version", [1, 2])
def test_joint_training(version: int) -> None:
    """Gradients reach every parameter; a few of the authors' steps find a few faces' landmarks and units better."""
    model = network(version, action_units=("AU01", "AU12", "AU25"))
    x, au, landmarks = faces(4)
    landmarks = (landmarks + 0.5) / SIZE
    optimizer = torch.optim.SGD(model.parameters(), 0.003, momentum=0.9, nesterov=True, weight_decay=5e-4)
    losses, errors = [], []
    for _ in range(8):
        optimizer.zero_grad()
        seen = model.detail(x)
        loss = joint_loss(seen, au[:, :3], landmarks)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        errors.append(F.mse_loss(seen.landmarks, landmarks).item())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses[-1] < 0.8 * losses[0]
    assert errors[-1] < 0.8 * errors[0]


@pytest.mark.parametrize("version", [1, 2])
def test_units_branches_are_taken_by_their_names(version: int) -> None:
    """FACTS 7: of BP4D's twelve the branches 0-3, 6, 10 and 9 become DISFA's 0-3, 5, 6 and 7; AU09 has none."""
    source, model = network(version), network(version, action_units=DISFA)
    taken, own = unit_branches(model, source), model.state_dict()
    parts = {name for name, of in own.items() if name.startswith(("refine.", "local.")) and of.dim()}
    assert set(taken) == parts
    for name, of in source.state_dict().items():
        if name in parts:
            theirs, mine = of.unflatten(0, (12, -1)), taken[name].unflatten(0, (8, -1))
            for i, j in {0: 0, 1: 1, 2: 2, 3: 3, 5: 6, 6: 10, 7: 9}.items():
                assert torch.equal(mine[i], theirs[j])
            assert torch.equal(mine[4], own[name].unflatten(0, (8, -1))[4])
    model.load_state_dict(taken, strict=False)


@pytest.mark.parametrize("version", [1, 2])
def test_only_the_first_version_teaches_units_from_the_common_answer(version: int) -> None:
    model = network(version)
    model(faces(2)[0]).sum().backward()
    assert (model.local[0].weight.grad is not None) == (version == 1)
    assert model.landmarks[0].weight.grad is None  # maps are drawn from landmarks, and teach them nothing


# --- BigSmall++ -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_bigsmall_plus() -> None:
    """Action units are JÂA-Net's, held; pulse and respiration are read from the sum of both branches' maps."""
    model: Any = models.build("bigsmall_plus", n_segment=4, big_every=2, big_size=48, action_units=DISFA).eval()
    big, small = (torch.randn(shape) for shape in model.input_shapes(clips=3).values())
    au, bvp, respiration = model(big, small)
    torch.testing.assert_close(au, model.big(big).repeat_interleave(2, 0))
    maps = F.avg_pool2d(model.big.detail(big).features, 4).repeat_interleave(2, 0) + model.small_maps(small)
    for head, output in (("bvp", bvp), ("resp", respiration)):
        first, second = getattr(model, f"{head}_fc1"), getattr(model, f"{head}_fc2")
        torch.testing.assert_close(output, second(F.relu(first(maps.flatten(1)))))
    every = torch.stack((big, torch.randn_like(big)), 1).flatten(0, 1)  # frames in between are not looked at
    for held, output in zip(model(every, small), (au, bvp, respiration), strict=True):
        torch.testing.assert_close(held, output)


def test_what_bigsmall_plus_is_taught_by_is_held() -> None:
    model: Any = models.build("bigsmall_plus", big_size=SIZE).eval()
    inputs = [torch.randn(shape) for shape in model.input_shapes(clips=2).values()]
    seen, *signals = model.taught(*inputs)
    logits, *same = model(*inputs)
    torch.testing.assert_close(model.big.logits(seen), logits)
    torch.testing.assert_close(signals, same)
    torch.testing.assert_close(seen.landmarks, model.big.detail(inputs[0]).landmarks.repeat_interleave(3, 0))


def test_bigsmall_plus_is_trained_on_one_of_n_frames() -> None:
    model: Any = models.build("bigsmall_plus", big_size=SIZE)
    inputs = [torch.randn(shape) for shape in model.input_shapes(clips=2).values()]
    assert models.cost(model).parameters == sum(p.numel() for p in model.parameters())
    sum(output.square().sum() for output in model(*inputs)).backward()
    assert model.small_conv1.weight.grad.any()
    assert model.big.region[0].conv.weight.grad.any()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("jaanet", {"size": 72}, ValueError, "size must be a multiple of 16 of at least 32, got 72"),
        ("jaanet2", {"size": 16}, ValueError, "size must be a multiple of 16 of at least 32, got 16"),
        ("jaanet2", {"version": 3}, ValueError, "version must be 1 or 2, got 3"),
        ("jaanet2", {"action_units": ["AU01", "AU05"]}, ValueError, "action_units must be among.*got AU05"),
        ("jaanet2", {"action_units": []}, ValueError, "action_units must be at least 1, got 0"),
        ("bigsmall_plus", {"big_size": 150}, ValueError, "big_size must be a multiple of 16 of at least 32, got 150"),
        ("bigsmall_plus", {"big_every": 2}, ValueError, "big_every must divide n_segment = 3, got 2"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        models.build(name, **options)


def test_bad_inputs() -> None:
    with pytest.raises(ValueError, match=r"standard must have shape \(frames, 3, 32, 32\)"):
        network()(torch.zeros(1, 3, 176, 176))
    with pytest.raises(ValueError, match=r"big must hold the 3 frames of small, or the 1 that are read.*got 2"):
        models.build("bigsmall_plus", big_size=SIZE)(torch.zeros(2, 3, SIZE, SIZE), torch.zeros(3, 3, 2, 2))
