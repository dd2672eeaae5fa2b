"""`fuse`: other people's models onto the fused ops, the same in outputs, gradients and names."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_helpers import error
from torch import Tensor, nn

import bigsmall_kernels as bk


def sliced(x: Tensor, n_segment: int, fold_div: int, wrap: bool, turned: bool = False) -> Tensor:
    """A temporal shift as it is usually written: zeros, and slices copied into them."""
    nt, c, h, w = x.size()
    clips = x.reshape(nt // n_segment, n_segment, c, h, w)
    fold = c // fold_div
    first, second = slice(0, fold), slice(fold, 2 * fold)
    if turned:
        first, second = second, first
    out = torch.zeros_like(clips)
    out[:, :-1, first] = clips[:, 1:, first]
    out[:, 1:, second] = clips[:, :-1, second]
    if wrap:
        out[:, -1, first] = clips[:, 0, first]
        out[:, 0, second] = clips[:, -1, second]
    out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return out.reshape(nt, c, h, w)


class Slices(nn.Module):
    def __init__(self, n_segment: int = 3, fold_div: int = 3, *, wrap: bool = True, turned: bool = False) -> None:
        super().__init__()
        self.options = (n_segment, fold_div, wrap, turned)

    def forward(self, x: Tensor) -> Tensor:
        return sliced(x, *self.options)


class TwoBranches(nn.Module):
    """The paper's network with its forward written out, small."""

    def __init__(self, maps: int = 8) -> None:
        super().__init__()
        self.shifts = nn.ModuleList(Slices() for _ in range(3))
        self.big1, self.big2 = nn.Conv2d(3, maps, 3, padding=1), nn.Conv2d(maps, maps, 3, padding=1)
        self.pool, self.dropout = nn.AvgPool2d(4), nn.Dropout(0.25)
        self.small1, self.small2, self.small3 = (nn.Conv2d(c, maps, 3, padding=1) for c in (3, maps, maps))
        self.head1, self.head2 = nn.Linear(maps * 16, 6), nn.Linear(6, 2)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        big, small = inputs
        nt, c, h, w = big.size()
        big = big.view(nt // 3, 3, c, h, w)[:, 0]
        big = self.dropout(self.pool(F.relu(self.big2(F.relu(self.big1(big))))))
        big = big.repeat_interleave(3, 0)
        small = F.relu(self.small1(self.shifts[0](small)))
        small = F.relu(self.small2(self.shifts[1](small)))
        small = F.relu(self.small3(self.shifts[2](small)))
        features = torch.relu(self.head1((big + small).reshape(nt, -1)))
        return self.head2(features), features


class Around(nn.Module):
    """The shift of the TSM video networks: around a convolution, with its attributes."""

    def __init__(self, net: nn.Module, n_segment: int, n_div: int = 8) -> None:
        super().__init__()
        self.net, self.n_segment, self.fold_div = net, n_segment, n_div

    def forward(self, x: Tensor) -> Tensor:
        return self.net(sliced(x, self.n_segment, self.fold_div, wrap=False))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, n_segment: int) -> None:
        super().__init__()
        self.conv1 = Around(nn.Conv2d(channels, channels, 1, bias=False), n_segment)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Written(nn.Module):
    """A shift in the middle of a forward, into zeros of a size that it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
        x = torch.tanh(self.first(x)) * scale
        nt, c, h, w = x.shape
        x = x.reshape(nt // 2, 2, c, h, w)
        out = torch.zeros(nt // 2, 2, c, h, w, dtype=x.dtype, device=x.device)
        out[:, :-1, :3] = x[:, 1:, :3]
        out[:, 1:, 3:] = x[:, :-1, 3:]
        y = torch.tanh(self.second(out.flatten(0, 1)))
        return y if mask is None else y * mask


def names(fusion: bk.Fusion) -> list[str]:
    return [place.op for place in fusion.fused]


def places(fusion: bk.Fusion) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((place.op, place.modules) for place in fusion.fused)


def equal(model: nn.Module, fused: nn.Module, inputs: Any) -> None:
    """Outputs and the gradients of inputs and parameters, of both in the mode they are in."""
    flat: list[Tensor] = torch.utils._pytree.tree_leaves(inputs)
    found = []
    for module in (model, fused):
        module.zero_grad()
        for x in flat:
            x.requires_grad_().grad = None
        torch.manual_seed(3)
        outputs = torch.utils._pytree.tree_leaves(module(*inputs))
        sum((y.square() * torch.linspace(1, 2, y.numel()).view_as(y)).sum() for y in outputs).backward()
        found.append([*outputs, *(t.grad.clone() for t in (*flat, *module.parameters()))])
    for ours, expected in zip(*reversed(found), strict=True):
        assert error(ours, expected.double()) <= 1e-5


def both_modes(model: nn.Module, inputs: Any) -> bk.Fusion:
    fusion = bk.fuse(model, inputs)
    assert list(fusion.model.state_dict()) == list(model.state_dict())
    for training in (True, False):
        equal(model.train(training), fusion.model.train(training), inputs)
    return fusion


def test_the_papers_network() -> None:
    model = TwoBranches()
    inputs = ((torch.randn(6, 3, 16, 16), torch.randn(6, 3, 4, 4)),)
    fusion = both_modes(model, inputs)
    assert places(fusion) == (
        ("double_conv2d_pool", ("big1", "big2")), ("wtsm_conv2d_stack", ("small1", "small2", "small3")),
    )  # fmt: skip
    assert not fusion.left
    longer = ((torch.randn(9, 3, 16, 16), torch.randn(9, 3, 4, 4)),)
    equal(model, fusion.model, longer)


def test_the_paper_s_layers_of_many_channels() -> None:
    """3 and 32 channels are divided by the same 3."""
    convs = [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise((3, 32, 32, 64))]
    model = nn.Sequential(*(m for conv in convs for m in (Slices(), conv, nn.ReLU())))
    fusion = both_modes(model, (torch.randn(6, 3, 5, 5),))
    assert places(fusion) == (("wtsm_conv2d_stack", ("1", "4", "7")),)


def test_shared_tensors_and_the_models_own_class() -> None:
    model = TwoBranches().eval()
    inputs = ((torch.randn(3, 3, 16, 16), torch.randn(3, 3, 4, 4)),)
    fused = bk.fuse(model, inputs).model
    assert isinstance(fused, TwoBranches)
    assert not fused.training
    for ours, theirs in zip(fused.parameters(), model.parameters(), strict=True):
        assert ours is theirs
    assert fused.train().dropout is not model.dropout
    assert not model.dropout.training
    fused.load_state_dict({name: torch.randn_like(t) for name, t in model.state_dict().items()})
    equal(model, fused.eval(), inputs)
    equal(model, copy.deepcopy(fused), inputs)


def test_tsm_video_networks() -> None:
    """The shift around a convolution without bias, normalised and activated behind it, in a residual branch."""
    model = nn.Sequential(Bottleneck(16, 4), Bottleneck(16, 4))
    fusion = both_modes(model, (torch.randn(8, 16, 6, 5),))
    assert places(fusion) == (("wtsm_conv2d", ("0.conv1.net",)), ("wtsm_conv2d", ("1.conv1.net",)))
    assert all(place.options["activation"] == "none" for place in fusion.fused)


def test_running_statistics_are_not_touched() -> None:
    model = Bottleneck(16, 4).train()
    before = copy.deepcopy(model.state_dict())
    bk.fuse(model, torch.randn(8, 16, 6, 5))
    assert all(map(torch.equal, model.state_dict().values(), before.values()))


def test_written_in_a_forward() -> None:
    """Also with arguments left at their defaults."""
    fusion = both_modes(Written(), (torch.randn(4, 3, 9, 8),))
    assert places(fusion) == (("wtsm_conv2d", ("second",)),)
    shift = {"n_segment": 2, "fold_div": 2, "wrap": False}
    assert fusion.fused[0].options == {**shift, "padding": (0, 0), "activation": "tanh"}


@pytest.mark.parametrize(("n_segment", "fold_div", "wrap"), [(2, 2, True), (5, 3, False), (3, 8, True), (10, 1, False)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_shift(n_segment: int, fold_div: int, wrap: bool, layout: torch.memory_format) -> None:
    """Found from what it does, in an input of a single clip too."""
    model = nn.Sequential(nn.Conv2d(3, 11, 1), Slices(n_segment, fold_div, wrap=wrap), nn.Conv2d(11, 4, 3), nn.ELU())
    model = model.to(memory_format=layout) if layout == torch.channels_last else model
    fusion = both_modes(model, (torch.randn(n_segment, 3, 6, 7).contiguous(memory_format=layout),))
    assert places(fusion) == (("wtsm_conv2d", ("2",)),)
    expected = {"n_segment": n_segment, "fold_div": 11 // (11 // fold_div), "wrap": wrap, "activation": "elu"}
    assert fusion.fused[0].options == expected | {"padding": (0, 0)}


@pytest.mark.parametrize("module", [bk.nn.WTSM(3), bk.nn.TSM(2, 8)])
def test_our_own_modules(module: nn.Module) -> None:
    model = nn.Sequential(module, nn.Conv2d(16, 4, 1), nn.Tanh())
    assert places(both_modes(model, (torch.randn(6, 16, 4, 4),))) == (("wtsm_conv2d", ("1",)),)


@pytest.mark.parametrize(("options", "why"), [
    ({"stride": 2}, "its stride is (2, 2)"), ({"groups": 2}, "its groups is 2"), ({"dilation": 2}, "its dilation"),
    ({"padding_mode": "circular", "padding": 1}, "it pads by circular"), ({"padding": 2}, "with padding (2, 2)"),
])  # fmt: skip
def test_other_convolutions_stay_behind_a_fast_shift(options: dict[str, Any], why: str) -> None:
    model = nn.Sequential(Slices(), nn.Conv2d(6, 4, 3, **options), nn.ReLU())
    fusion = both_modes(model, (torch.randn(6, 6, 8, 8),))
    assert places(fusion) == (("wtsm", ("0",)),)
    ((module, reason),) = fusion.left
    assert module == "1"
    assert why in reason


def test_normalisation_stays_between_convolution_and_activation() -> None:
    model = nn.Sequential(Slices(), nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    fusion = both_modes(model, (torch.randn(6, 6, 5, 5),))
    assert places(fusion) == (("wtsm_conv2d", ("1",)),)
    assert all(place.options["activation"] == "none" for place in fusion.fused)


def test_shared_modules() -> None:
    """One shift and one convolution, used again and again; a shifted tensor that two convolutions read."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.conv, self.other = Slices(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
            self.again = self.conv

        def forward(self, x: Tensor) -> Tensor:
            for conv in (self.conv, self.again):
                x = F.relu(conv(self.shift(x)))
            x = self.shift(x)
            return self.conv(x) * torch.sigmoid(self.other(x)) + x

    fusion = both_modes(Shared(), (torch.randn(6, 4, 5, 5),))
    assert names(fusion) == ["wtsm_conv2d_stack", "wtsm", "wtsm_conv2d", "wtsm_conv2d"]


def test_layers_that_others_read_are_no_chain() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
            self.shift = Slices()

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(self.shift(x)))
            return x + F.relu(self.b(self.shift(x)))

    assert names(both_modes(Skipping(), (torch.randn(6, 4, 5, 5),))) == ["wtsm_conv2d", "wtsm_conv2d"]


def test_dropout_inside_a_block() -> None:
    """In eval it does nothing and the block is one op; in training it is heard."""
    block = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*block, nn.Dropout(0.5), nn.AvgPool2d(2))
    fusion = both_modes(model, (torch.randn(2, 3, 8, 9),))
    assert places(fusion) == (("double_conv2d_pool", ("0", "2")),)
    assert fusion.left == tuple((m, "in training, where a dropout stands between") for m in ("0", "2"))


def test_dropouts_that_are_heard_in_eval_stay() -> None:
    class Always(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.conv = Slices(), nn.Conv2d(6, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(F.dropout(self.conv(self.shift(x)), 0.5))

    fusion = both_modes(Always(), (torch.randn(3, 6, 5, 5),))
    assert fusion.fused[0].options["activation"] == "none"


def test_a_forward_that_asks_for_its_mode() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.conv = Slices(), nn.Conv2d(6, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(F.relu(self.conv(self.shift(x))), 0.5, self.training)
            return x * 2 if self.training else x

    assert names(both_modes(Moody(), (torch.randn(3, 6, 5, 5),))) == ["wtsm_conv2d"]


@pytest.mark.parametrize("shift", [
    Slices(turned=True),  # future and past exchanged
    nn.Identity(),
    type("Rolled", (nn.Module,), {"forward": lambda self, x: x.roll(1, 0)})(),  # across clips
    type("Cut", (nn.Module,), {"forward": lambda self, x: Slices()(x).clamp(max=3.0)})(),
])  # fmt: skip
def test_what_is_no_shift_of_ours_is_not_touched(shift: nn.Module) -> None:
    model = nn.Sequential(shift, nn.Conv2d(6, 4, 3), nn.ReLU())
    fusion = bk.fuse(model, torch.randn(6, 6, 5, 5))
    assert fusion.model is model
    assert places(fusion) == ()
    assert fusion.left == (() if isinstance(shift, nn.Identity) else (("0", "what it does is no shift of wtsm's"),))


def test_in_place_shifts_are_not_touched() -> None:
    """What else reads the tensor would see it shifted, or not."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            moved = sliced(x, 3, 3, wrap=True)
            x[:, :2] = moved[:, :2]
            return self.conv(moved + 0) + self.conv(x)

    model = InPlace()
    x = torch.randn(6, 6, 5, 5)
    assert torch.allclose(bk.fuse(model, x).model(x), model(x), atol=1e-5)


def test_what_cannot_be_traced_stays() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.sum() > 0 else x

    model = nn.Sequential(Asks(), Slices(), nn.Conv2d(6, 4, 3))
    fusion = both_modes(model, (torch.randn(6, 6, 5, 5).abs(),))
    assert places(fusion) == (("wtsm_conv2d", ("2",)),)
    assert [m for m, _ in fusion.left] == ["0"]
    alone = bk.fuse(model[0], torch.randn(6, 6, 5, 5))
    assert alone.model is model[0]
    assert "cannot be traced" in alone.left[0][1]


def test_convolutions_that_someone_listens_to_stay() -> None:
    model = nn.Sequential(Slices(), nn.Conv2d(6, 4, 3))
    heard: list[Tensor] = []
    model[1].register_forward_hook(lambda module, args, y: heard.append(y))
    fusion = bk.fuse(model, torch.randn(6, 6, 5, 5))
    assert places(fusion) == (("wtsm", ("0",)),)
    heard.clear()
    fusion.model(torch.randn(6, 6, 5, 5))
    assert len(heard) == 1


def test_a_wrong_fusion_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any, **options: Any) -> Tensor:
        return bk.wtsm_conv2d(*args, **options) * 1.01

    monkeypatch.setattr("bigsmall_kernels._rewrite.wtsm_conv2d", wrong)
    model = nn.Sequential(Slices(), nn.Conv2d(6, 4, 3))
    with pytest.raises(RuntimeError, match=r"output 0 is not the model's in (eval|training) mode"):
        bk.fuse(model, torch.randn(6, 6, 5, 5))


def test_fused_twice_is_fused_once() -> None:
    fused = bk.fuse(nn.Sequential(Slices(), nn.Conv2d(6, 4, 3)), torch.randn(6, 6, 5, 5)).model
    assert bk.fuse(fused, torch.randn(6, 6, 5, 5)).model is fused


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = nn.Sequential(Slices(), nn.Conv2d(6, 4, 3), nn.ReLU()).to(dtype)
    assert names(bk.fuse(model, torch.randn(6, 6, 5, 5, dtype=dtype))) == ["wtsm_conv2d"]


@pytest.mark.parametrize("training", [True, False])
def test_compile_and_export(training: bool) -> None:
    torch.compiler.reset()
    model = nn.Sequential(Slices(), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), Slices(), nn.Conv2d(4, 4, 3), nn.Tanh())
    x = torch.randn(6, 6, 5, 5)
    fused = bk.fuse(model, x).model.train(training)
    expected = model.train(training)(x)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    program = torch.export.export(fused, (x,), dynamic_shapes=({0: 3 * torch.export.Dim("clips", max=64)},))
    for run in (compiled, program.module()):
        assert torch.allclose(run(x), expected, atol=1e-5)
    longer = torch.randn(9, 6, 5, 5)
    assert torch.allclose(program.module()(longer), model(longer), atol=1e-5)
    compiled(x).square().sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    for ours, p in zip(grads, model.parameters(), strict=True):
        assert error(ours, p.grad.double()) <= 1e-5


def test_arguments() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        bk.fuse(3, torch.randn(3, 3, 4, 4))
    with pytest.raises(TypeError, match="example_inputs must be a tensor or a tuple of the model's arguments, got str"):
        bk.fuse(nn.Identity(), "x")
