"""Shift, convolution, bias and activation in one pass, alone and as a stack."""

import itertools

import pytest
import torch
from kernel_helpers import (
    LOW_PRECISION,
    assert_compiled,
    assert_low_precision,
    error,
    every_isa,
    layouts,
    same_bits_on_any_thread_count,
)

import bigsmall_kernels as bk
from bigsmall_kernels import reference

PLAIN = ([1, 1], [1, 1], [1, 1], 1)
ACTIVATIONS = ("none", "relu", "tanh", "elu")
# frames, n_segment, C, Cout, H, W, kernel, padding
CASES = [
    (6, 3, 32, 32, 9, 9, 3, 1),
    (3, 3, 3, 32, 9, 9, 3, 1),
    (4, 2, 5, 7, 13, 31, 3, 0),
    (3, 3, 33, 64, 5, 17, 1, 0),
    (2, 1, 1, 16, 6, 6, 5, 2),
    (4, 4, 17, 49, 7, 40, 3, 1),
    (8, 4, 2, 1, 1, 1, 3, 1),
    (6, 3, 5, 3, 2, 1, 3, 1),
    (6, 3, 20, 90, 4, 4, 3, (0, 1)),
    (3, 3, 19, 16, 7, 8, 3, (2, 3)),
]


def parameters(c: int, out: int, kernel: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(out, c, kernel, kernel) / (c * kernel * kernel) ** 0.5, torch.randn(out)


@every_isa
@pytest.mark.parametrize("case", CASES)
def test_against_float64(case) -> None:
    assert_compiled("wtsm_conv2d")
    frames, n, c, out, h, w, kernel, padding = case
    pads = [padding] * 2 if isinstance(padding, int) else list(padding)
    weight, bias = parameters(c, out, kernel)
    for wrap in (True, False):
        for name, x in layouts(torch.randn(frames, c, h, w)):
            exact = reference.wtsm_conv2d(
                x.double(), weight.double(), bias.double(), n, 3, wrap, [1, 1], pads, [1, 1], 1, "relu"
            )
            y = bk.wtsm_conv2d(x, weight, bias, n, wrap=wrap, padding=padding, activation="relu")
            assert error(y, exact) <= 1e-5, name
            assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(x)).stride(), name


@every_isa
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0])
def test_activations_keep_their_precision_when_small_and_large(activation: str, scale: float) -> None:
    x, (weight, _) = torch.randn(6, 4, 5, 7) * scale, parameters(4, 8, 3)
    exact = reference.wtsm_conv2d(x.double(), weight.double(), None, 3, 3, True, *PLAIN, activation)
    eager = reference.wtsm_conv2d(x, weight, None, 3, 3, True, *PLAIN, activation)
    assert error(bk.wtsm_conv2d(x, weight, activation=activation), exact) <= max(1e-6, 2 * error(eager, exact))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_stays_nan(activation: str) -> None:
    x, (weight, bias) = torch.randn(3, 3, 5, 5), parameters(3, 4, 1)
    x[1, 2, 2, 2] = float("nan")
    y = bk.wtsm_conv2d(x, weight, bias, activation=activation)
    assert torch.equal(
        y.isnan(), reference.wtsm_conv2d(x, weight, bias, 3, 3, True, [1, 1], [0, 0], [1, 1], 1, activation).isnan()
    )


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"stride": (1, 2), "padding": (0, 3)},
        {"dilation": 2},
        {"groups": 2},
        {"padding": "same", "dilation": (1, 3)},
        {"stride": 3, "padding": 0, "dilation": 2, "groups": 2},
    ],
)
def test_everything_conv2d_takes(options) -> None:
    groups = options.get("groups", 1)
    x, weight, bias = torch.randn(6, 8, 11, 13), torch.randn(6, 8 // groups, 3, 3) / 8, torch.randn(6)
    y = bk.wtsm_conv2d(x, weight, bias, **options, activation="elu")
    exact = torch.nn.functional.conv2d(
        bk.wtsm(x).double(), weight.double(), bias.double(), **{"padding": "same", **options}
    )
    assert error(y, torch.nn.functional.elu(exact)) <= 1e-5


@pytest.mark.parametrize("kernel", [(2, 2), (2, 3), (4, 1)])
def test_same_padding_of_even_kernels_is_torchs(kernel) -> None:
    x, weight = torch.randn(3, 4, 6, 7), torch.randn(5, 4, *kernel)
    expected = torch.nn.functional.conv2d(bk.wtsm(x).double(), weight.double(), padding="same")
    assert error(bk.wtsm_conv2d(x, weight), expected) <= 1e-5


@every_isa
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision(dtype: torch.dtype) -> None:
    x = torch.randn(6, 32, 9, 9).to(dtype)
    layers = [parameters(32, 32, 3), parameters(32, 64, 3)]
    weights, biases = [w.to(dtype) for w, _ in layers], [b.to(dtype) for _, b in layers]
    one = (3, 3, True, *PLAIN, "relu")
    exact = reference.wtsm_conv2d(x.double(), weights[0].double(), biases[0].double(), *one)
    eager = reference.wtsm_conv2d(x, weights[0], biases[0], *one)
    assert_low_precision(bk.wtsm_conv2d(x, weights[0], biases[0], activation="relu"), eager, exact)
    stack = (3, 3, True, "relu")
    exact = reference.wtsm_conv2d_stack(x.double(), [w.double() for w in weights], [b.double() for b in biases], *stack)
    eager = reference.wtsm_conv2d_stack(x, weights, biases, *stack)
    assert_low_precision(bk.wtsm_conv2d_stack(x, weights, biases), eager, exact)


@every_isa
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("n", "clips", "channels", "height", "width", "fold_div"), [
    (3, 2, (3, 32, 32, 64), 9, 9, 3),
    (1, 2, (1, 5), 1, 1, 3),
    (2, 1, (4, 33, 7), 5, 3, 2),
    (4, 3, (65, 31), 3, 37, 8),
    (3, 1, (31, 96, 2), 17, 16, 40),
    (8, 1, (2, 64), 32, 32, 1),
    (2, 1, (16, 16), 33, 32, 3),
    (3, 2, (4, 2, 5), 6, 7, 3),
    (1, 1, (3, 1, 3, 34), 5, 5, 2),
    (8, 2, (64, 96), 14, 15, 8),
    (8, 8, (64, 96), 14, 15, 8),
])  # fmt: skip
def test_bfloat16_of_many_shapes(n, clips, channels, height, width, fold_div, activation) -> None:
    """Small images and larger ones, few channels and many, of any strides, alone and as a stack, both shifts."""
    parts = [parameters(*pair, 3) for pair in itertools.pairwise(channels)]
    weights, biases = [w.bfloat16() for w, _ in parts], [b.bfloat16() for _, b in parts]
    packed = torch.ops.bigsmall_kernels.pack_wtsm_conv2d_stack(weights)
    for wrap in (True, False):
        options = (n, fold_div, wrap, activation)
        for name, x in layouts(torch.randn(n * clips, channels[0], height, width).bfloat16()):
            exact = reference.wtsm_conv2d_stack(
                x.double(), [w.double() for w in weights], [b.double() for b in biases], *options
            )
            eager = reference.wtsm_conv2d_stack(x, weights, biases, *options)
            arguments = {"n_segment": n, "fold_div": fold_div, "wrap": wrap, "activation": activation}
            ours = bk.wtsm_conv2d_stack(x, weights, biases, **arguments)
            assert_low_precision(ours, eager, exact)
            assert ours.stride() == torch.empty_like(ours, memory_format=reference.memory_format(x)).stride(), name
            assert torch.equal(ours, bk.wtsm_conv2d_stack(x, weights, biases, **arguments, packed=packed)), name
            if len(weights) == 1:
                assert torch.equal(ours, bk.wtsm_conv2d(x, weights[0], biases[0], **arguments)), name


@every_isa
def test_bfloat16_between_layers() -> None:
    """On tiles a layer's outputs are rounded to bfloat16, as in eager; in floats they are not."""
    x, weight = torch.ones(3, 4, 5, 5).bfloat16(), torch.zeros(4, 4, 3, 3).bfloat16()
    weight[range(4), range(4), 1, 1] = 1
    y = bk.wtsm_conv2d_stack(x, [weight] * 2, [torch.full((4,), b).bfloat16() for b in (2**-9, -1.0)])
    assert torch.equal(y, torch.full_like(x, 0.0 if bk.info()["isa"] == "amx" else 2**-9))


def test_float64_is_float64() -> None:
    x, weight, bias = (torch.randn(s, dtype=torch.float64) for s in ((6, 5, 9, 9), (7, 5, 3, 3), (7,)))
    exact = reference.wtsm_conv2d(x, weight, bias, 3, 3, True, *PLAIN, "tanh")
    assert error(bk.wtsm_conv2d(x, weight, bias, activation="tanh"), exact) <= 1e-14
    exact = reference.wtsm_conv2d_stack(x, [weight], [bias], 3, 3, True, "relu")
    assert error(bk.wtsm_conv2d_stack(x, [weight], [bias]), exact) <= 1e-14


STACKS = [(3, 32, 32, 32, 64), (5, 7), (1, 17, 3, 33)]


@every_isa
@pytest.mark.parametrize("channels", STACKS)
@pytest.mark.parametrize("wrap", [True, False])
def test_stack_against_float64(channels, wrap: bool) -> None:
    assert_compiled("wtsm_conv2d_stack")
    layers = [parameters(a, b, 3) for a, b in itertools.pairwise(channels)]
    weights, biases = [w for w, _ in layers], [b for _, b in layers]
    for clips, n, h, w in ((1, 3, 9, 9), (2, 1, 4, 6), (3, 4, 1, 15), (9, 3, 5, 3)):
        for name, x in layouts(torch.randn(clips * n, channels[0], h, w)):
            double = [w.double() for w in weights], [b.double() for b in biases]
            exact = reference.wtsm_conv2d_stack(x.double(), *double, n, 3, wrap, "relu")
            y = bk.wtsm_conv2d_stack(x, weights, biases, n, wrap=wrap)
            assert error(y, exact) <= 1e-5, (name, clips)
            assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(x)).stride(), name


def stack_gradients(
    grad: torch.Tensor, x: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor], *options: object
) -> list[torch.Tensor]:
    """Of x, the weights and the biases, by autograd through the reference."""
    leaves = [t.detach().requires_grad_() for t in (x, *weights, *biases)]
    n = len(weights)
    y = reference.wtsm_conv2d_stack(leaves[0], leaves[1 : n + 1], leaves[n + 1 :], *options)
    return list(torch.autograd.grad(y, leaves, grad))


# As CASES, of filters whose gradients are compiled; the last ones' paddings are larger than usual.
GRADIENT_CASES = [
    (6, 3, 32, 32, 9, 9, 3, 1),
    (3, 3, 3, 32, 9, 9, 3, 1),
    (4, 2, 5, 7, 13, 31, 3, 0),
    (3, 3, 33, 64, 5, 17, 1, 0),
    (60, 3, 6, 3, 4, 5, 1, 0),
    (54, 3, 4, 17, 3, 4, 3, 1),
    (8, 4, 2, 1, 1, 1, 3, 1),
    (4, 4, 17, 49, 7, 40, 3, 1),
    (6, 3, 20, 90, 4, 4, 3, (0, 1)),
    (3, 3, 3, 5, 4, 7, 3, (2, 1)),
    (3, 3, 19, 16, 7, 8, 3, (2, 3)),
    (2, 1, 3, 4, 6, 6, 5, 2),
]


@every_isa
@pytest.mark.parametrize("case", GRADIENT_CASES)
def test_gradients_against_float64(case) -> None:
    assert_compiled("wtsm_conv2d_backward")
    frames, n, c, out, h, w, kernel, padding = case
    pads = [padding] * 2 if isinstance(padding, int) else list(padding)
    weight, _ = parameters(c, out, kernel)
    size = [side + 2 * pad - kernel + 1 for side, pad in zip((h, w), pads, strict=True)]
    gradients = layouts(torch.randn(frames, out, *size))
    masks = itertools.cycle([[True] * 3, [False, True, True], [True, False, False], [False, False, True]])
    images = layouts(torch.randn(frames, c, h, w))
    for (name, x), (_, grad), activation, mask in zip(images, gradients, ACTIVATIONS, masks, strict=False):
        for wrap in (True, False):
            tail = (n, 3, wrap, [1, 1], pads, [1, 1], 1, activation)
            y = reference.ACTIVATIONS[activation](torch.randn(frames, out, *size))
            exact = reference.wtsm_conv2d_backward(
                grad.double(), y.double(), x.double(), weight.double(), True, *tail, [True] * 3
            )
            found = torch.ops.bigsmall_kernels.wtsm_conv2d_backward(grad, y, x, weight, True, *tail, mask)
            for wanted, ours, truth in zip(mask, found, exact, strict=True):
                assert ours.shape == (truth.shape if wanted else (0,))
                assert not wanted or error(ours, truth) <= 1e-5, (name, activation)
            layout = torch.empty_like(x, memory_format=reference.memory_format(x)).stride()
            assert not mask[0] or found[0].stride() == layout, name


@every_isa
@pytest.mark.parametrize("channels", STACKS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_stack_gradients_against_float64(channels, activation: str) -> None:
    assert_compiled("wtsm_conv2d_stack_backward")
    layers = [parameters(a, b, 3) for a, b in itertools.pairwise(channels)]
    weights, biases = [w for w, _ in layers], [b for _, b in layers]
    double = [w.double() for w in weights], [b.double() for b in biases]
    for clips, n, h, w, wrap in ((1, 3, 9, 9, True), (2, 1, 4, 6, False), (3, 4, 1, 15, True), (21, 3, 5, 3, False)):
        gradients = layouts(torch.randn(clips * n, channels[-1], h, w))
        for (name, x), (_, grad) in zip(layouts(torch.randn(clips * n, channels[0], h, w)), gradients, strict=True):
            options = (n, 3, wrap, activation)
            exact = stack_gradients(grad.double(), x.double(), *double, *options)
            found = torch.ops.bigsmall_kernels.wtsm_conv2d_stack_backward(grad, x, weights, biases, *options, True)
            for ours, truth in zip(found, exact, strict=True):
                assert error(ours, truth) <= 1e-5, (name, clips)
            assert found[0].stride() == torch.empty_like(x, memory_format=reference.memory_format(x)).stride(), name
            rest = torch.ops.bigsmall_kernels.wtsm_conv2d_stack_backward(grad, x, weights, biases, *options, False)
            assert rest[0].numel() == 0
            for ours, same in zip(rest[1:], found[1:], strict=True):
                assert torch.equal(ours, same)


@every_isa
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_gradients_in_low_precision(dtype: torch.dtype) -> None:
    layers = [parameters(3, 32, 3), parameters(32, 32, 3)]
    weights, biases = [w.to(dtype) for w, _ in layers], [b.to(dtype) for _, b in layers]
    x, grad = torch.randn(6, 3, 9, 9).to(dtype), torch.randn(6, 32, 9, 9).to(dtype)
    double = [w.double() for w in weights], [b.double() for b in biases]
    options = (3, 3, True, "tanh")
    exact = stack_gradients(grad.double(), x.double(), *double, *options)
    eager = stack_gradients(grad, x, weights, biases, *options)
    found = torch.ops.bigsmall_kernels.wtsm_conv2d_stack_backward(grad, x, weights, biases, *options, True)
    for ours, theirs, truth in zip(found, eager, exact, strict=True):
        assert_low_precision(ours, theirs, truth)
    y, one = torch.randn(6, 32, 9, 9).to(dtype), (True, 3, 3, True, *PLAIN, "relu", [True] * 3)
    exact = reference.wtsm_conv2d_backward(grad.double(), y.double(), x.double(), double[0][0], *one)
    eager = reference.wtsm_conv2d_backward(grad, y, x, weights[0], *one)
    found = torch.ops.bigsmall_kernels.wtsm_conv2d_backward(grad, y, x, weights[0], *one)
    for ours, theirs, truth in zip(found, eager, exact, strict=True):
        assert_low_precision(ours, theirs, truth)


@every_isa
def test_gradients_of_nothing_and_of_a_sum() -> None:
    (weight, bias), ops = parameters(5, 6, 3), torch.ops.bigsmall_kernels
    none, no_grad = torch.empty(0, 5, 4, 4), torch.empty(0, 6, 4, 4)
    for found in (
        ops.wtsm_conv2d_stack_backward(no_grad, none, [weight], [bias], 3, 3, True, "relu", True),
        ops.wtsm_conv2d_backward(no_grad, no_grad, none, weight, True, 3, 3, True, *PLAIN, "relu", [True] * 3),
    ):
        assert [tuple(g.shape) for g in found] == [(0, 5, 4, 4), (6, 5, 3, 3), (6,)]
        assert not any(g.any() for g in found)
    x = torch.randn(1, 5, 1, 4).expand(6, 5, 4, 4)
    grad = torch.randn(()).expand(6, 6, 4, 4)
    args = ([weight], [bias], 3, 3, False, "elu", True)
    dense = ops.wtsm_conv2d_stack_backward(grad.contiguous(), x.contiguous(), *args)
    for ours, same in zip(ops.wtsm_conv2d_stack_backward(grad, x, *args), dense, strict=True):
        assert torch.equal(ours, same)


@every_isa
def test_gradients_have_the_same_bits_on_any_thread_count(threads) -> None:
    layers, ops = [parameters(3, 32, 3), parameters(32, 32, 3), parameters(32, 64, 3)], torch.ops.bigsmall_kernels
    weights, biases = [w for w, _ in layers], [b for _, b in layers]
    x, grad = torch.randn(60, 3, 9, 9), torch.randn(60, 64, 9, 9)

    def stack(frames: int) -> torch.Tensor:
        options = (weights, biases, 3, 3, True, "relu", True)
        return torch.cat([g.flatten() for g in ops.wtsm_conv2d_stack_backward(grad[:frames], x[:frames], *options)])

    def picture(kernel: int) -> torch.Tensor:
        options = (True, 3, 3, False, [1, 1], [kernel // 2] * 2, [1, 1], 1, "none", [True] * 3)
        found = ops.wtsm_conv2d_backward(wide, wide, image, parameters_of[kernel], *options)
        return torch.cat([g.flatten() for g in found])

    parameters_of = {kernel: parameters(32, 32, kernel)[0] for kernel in (1, 3)}
    image, wide = torch.randn(3, 32, 60, 61), torch.randn(3, 32, 60, 61)
    for frames in (3, 9, 60):  # few clips share the threads, many are shared among them
        same_bits_on_any_thread_count(lambda: stack(frames))  # noqa: B023
    for kernel in parameters_of:
        same_bits_on_any_thread_count(lambda: picture(kernel))  # noqa: B023


@every_isa
def test_empty_and_expanded() -> None:
    weight, bias = parameters(4, 6, 3)
    assert bk.wtsm_conv2d(torch.empty(0, 4, 5, 5), weight, bias).shape == (0, 6, 5, 5)
    assert bk.wtsm_conv2d_stack(torch.empty(0, 4, 5, 5), [weight], [bias]).shape == (0, 6, 5, 5)
    x = torch.randn(1, 4, 1, 1).expand(6, 4, 5, 5)
    assert torch.equal(bk.wtsm_conv2d(x, weight, bias), bk.wtsm_conv2d(x.contiguous(), weight, bias))
    assert torch.equal(
        bk.wtsm_conv2d_stack(x, [weight], [bias]), bk.wtsm_conv2d_stack(x.contiguous(), [weight], [bias])
    )


@every_isa
def test_strides_beyond_32_bits() -> None:
    """An input whose last frame lies more than 2^31 elements away."""
    storage = torch.zeros(2**31 + 4096, dtype=torch.float16)
    x = storage.as_strided((2, 3, 4, 5), (2**31, 64, 8, 1))
    x.copy_(torch.randn(2, 3, 4, 5))
    weight, bias = (p.half() for p in parameters(3, 4, 3))
    assert torch.equal(bk.wtsm_conv2d(x, weight, bias, 2), bk.wtsm_conv2d(x.contiguous(), weight, bias, 2))
    assert torch.equal(
        bk.wtsm_conv2d_stack(x, [weight], [bias], 2), bk.wtsm_conv2d_stack(x.contiguous(), [weight], [bias], 2)
    )


@every_isa
def test_same_bits_on_any_thread_count(threads) -> None:
    (w1, b1), (w2, b2) = parameters(32, 32, 3), parameters(32, 64, 3)
    x, picture = torch.randn(30, 32, 9, 9), torch.randn(3, 32, 60, 61)
    same_bits_on_any_thread_count(lambda: bk.wtsm_conv2d(picture, w1, b1))
    for frames in (3, 12, 30):  # few clips share the threads, many are shared among them
        same_bits_on_any_thread_count(lambda: bk.wtsm_conv2d_stack(x[:frames], [w1, w2], [b1, b2]))  # noqa: B023


@every_isa
def test_packed_weights_are_the_references_and_change_nothing() -> None:
    (w1, b1), (w2, b2) = parameters(5, 19, 3), parameters(19, 32, 3)
    for op, weight in (("pack_wtsm_conv2d", w1), ("pack_wtsm_conv2d_stack", [w1, w2])):
        assert_compiled(op)
        packed, expected = getattr(torch.ops.bigsmall_kernels, op)(weight), getattr(reference, op)(weight)
        filters = [weight] if isinstance(weight, torch.Tensor) else weight
        assert packed.numel() == expected.numel() == sum(reference.packed_size(w) for w in filters)
        tiles = sum(25 * ((w.shape[0] + 15) // 16) * 16 * w.shape[1] for w in filters)  # where they begin
        assert torch.allclose(packed[:tiles], expected[:tiles], rtol=1e-6, atol=1e-7)
        assert torch.equal(packed[tiles:].view(torch.bfloat16), expected[tiles:].view(torch.bfloat16))
    x = torch.randn(6, 5, 4, 4)
    packed = torch.ops.bigsmall_kernels.pack_wtsm_conv2d(w1)
    assert torch.equal(bk.wtsm_conv2d(x, w1, b1, packed=packed), bk.wtsm_conv2d(x, w1, b1))
    packed = torch.ops.bigsmall_kernels.pack_wtsm_conv2d_stack([w1, w2])
    with_packed = bk.wtsm_conv2d_stack(x, [w1, w2], [b1, b2], packed=packed)
    assert torch.equal(with_packed, bk.wtsm_conv2d_stack(x, [w1, w2], [b1, b2]))
    with pytest.raises(ValueError, match="packed must be"):
        bk.wtsm_conv2d(x, w1, b1, packed=packed)


@pytest.mark.parametrize("write", ["add_", "data", "copy", "load"])
def test_module_sees_every_change_of_its_weights(write: str) -> None:
    """Also those that leave the version counter alone, and parameters made under inference_mode, which have none."""
    x = torch.randn(3, 4, 5, 5)
    for inference in (False, True):
        with torch.inference_mode(inference):
            module = bk.nn.WTSMConv2d(4, 6, activation="relu").eval()
        with torch.inference_mode():
            module(x)
            if write == "add_":
                module.weight.add_(1)
            elif write == "data":
                module.weight.data.add_(1)
            elif write == "copy":
                module.weight.copy_(torch.randn(6, 4, 3, 3))
            else:
                module.weight.data = torch.randn(6, 4, 3, 3)
            assert torch.equal(module(x), bk.wtsm_conv2d(x, module.weight, module.bias, activation="relu"))


def test_module_is_a_conv2d() -> None:
    import copy
    import pickle

    module = bk.nn.WTSMConv2d(4, 6, 3, wrap=False, activation="tanh")
    conv = torch.nn.Conv2d(4, 6, 3)
    assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in conv.state_dict().items()}
    x = torch.randn(6, 4, 5, 5)
    expected = bk.wtsm_conv2d(x, module.weight, module.bias, wrap=False, activation="tanh")
    module.eval()
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.allclose(twin(x), expected, atol=1e-6)


X, W, B = torch.zeros(6, 4, 5, 5), torch.zeros(8, 4, 3, 3), torch.zeros(8)


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "words"),
    [
        ((X.long(), W.long()), {}, TypeError, "x must be float32.* got torch.int64"),
        ((X, W.double()), {}, TypeError, "weight must have x's dtype torch.float32, got torch.float64"),
        ((X, W, B.half()), {}, TypeError, "bias must have x's dtype"),
        ((X, W.to("meta")), {}, ValueError, "weight must be on x's device cpu, got meta"),
        ((X, torch.zeros(8, 5, 3, 3)), {}, ValueError, r"weight must be \(Cout, 4, kh, kw\), got \(8, 5, 3, 3\)"),
        ((X, W, torch.zeros(7)), {}, ValueError, r"bias must be \(8,\), got \(7,\)"),
        ((X[:5], W), {}, ValueError, "multiple of n_segment=3 frames, got 5"),
        ((X, W, B, 0), {}, ValueError, "n_segment must be at least 1"),
        ((X, W, B, True), {}, TypeError, "n_segment must be an int, got bool"),
        ((X, W), {"stride": 2}, ValueError, 'padding="same" needs stride 1'),
        ((X, W), {"padding": "valid"}, ValueError, 'padding must be "same"'),
        ((X, W), {"padding": -1}, ValueError, "padding must be an int or a pair"),
        ((X, W), {"stride": 1.5, "padding": 0}, ValueError, "stride must be an int or a pair of ints.* got 1.5"),
        ((X, W), {"packed": torch.zeros(7)}, ValueError, r"packed must be .* got torch.float32 \(7,\)"),
        (
            (X.double(), W.double()),
            {"packed": torch.zeros(7)},
            ValueError,
            r"packed must be .* got torch.float32 \(7,\)",
        ),
        ((X, W), {"stride": 0, "padding": 0}, ValueError, "stride must be an int or a pair"),
        ((X, W), {"groups": 3}, ValueError, "groups must divide x's 4 channels, got 3"),
        ((X, W), {"activation": "gelu"}, ValueError, "activation must be one of none, relu, tanh, elu, got 'gelu'"),
        ((X, torch.zeros(8, 4, 7, 7)), {"padding": 0}, ValueError, "weight reaches over 7 pixels"),
    ],
)
def test_bad_arguments(args, kwargs, kind, words) -> None:
    with pytest.raises(kind, match=words):
        bk.wtsm_conv2d(*args, **kwargs)


def test_tuples_of_weights_have_gradients_too() -> None:
    weight, bias = (p.requires_grad_() for p in parameters(4, 8, 3))
    bk.wtsm_conv2d_stack(X, (weight,), (bias,)).sum().backward()
    assert weight.grad is not None
    assert bias.grad is not None


def test_bad_stacks() -> None:
    with pytest.raises(ValueError, match="weights and biases must be one each a layer, got 1 and 2"):
        bk.wtsm_conv2d_stack(X, [W], [B, B])
    with pytest.raises(ValueError, match=r"weights\[1\] must be \(Cout, 8, kh, kw\), got \(8, 4, 3, 3\)"):
        bk.wtsm_conv2d_stack(X, [W, W], [B, B])
    with pytest.raises(ValueError, match=r"weights\[0\] must be \(Cout, 4, 3, 3\)"):
        bk.wtsm_conv2d_stack(X, [torch.zeros(8, 4, 1, 1)], [B])
    with pytest.raises(TypeError, match=r"biases\[0\] must be a torch.Tensor, got NoneType"):
        bk.wtsm_conv2d_stack(X, [W], [None])
