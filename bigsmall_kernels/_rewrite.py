"""A model's graph, rewritten onto the fused ops: the patterns of `fuse`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from . import _check
from ._library import ops
from ._shifts import Forms, Shift, Tracer, copied, hooked, replace_shifts, stateless
from .double_conv2d_pool import double_conv2d_pool
from .nn import Packed
from .wtsm_conv2d import wtsm_conv2d, wtsm_conv2d_stack

ACTIVATIONS: dict[Any, str] = {
    **dict.fromkeys((nn.ReLU, F.relu, torch.relu, torch.relu_, "relu", "relu_"), "relu"),
    **dict.fromkeys((nn.Tanh, F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), "tanh"),
    **dict.fromkeys((nn.ELU, F.elu), "elu"),
}
DROPOUTS = (nn.Dropout, nn.Dropout2d)


def _pack_stack(*weights: Tensor) -> Tensor:
    packed: Tensor = ops.pack_wtsm_conv2d_stack(list(weights))
    return packed


_PACK: dict[str, Callable[..., Tensor]] = {
    "wtsm_conv2d": ops.pack_wtsm_conv2d,
    "wtsm_conv2d_stack": _pack_stack,
    "double_conv2d_pool": ops.pack_double_conv2d_pool,
}


class Place(NamedTuple):
    """Where a fused op runs: the modules whose work it does, and its arguments."""

    op: str
    modules: tuple[str, ...]
    options: dict[str, Any]


class Fused(nn.Module):
    """A fused op at its place; the parameters come with the call, their packed form is kept (outside training)."""

    def __init__(self, place: Place, training: bool) -> None:
        super().__init__()
        self.place = place
        self._packed = None if training else Packed(_PACK[place.op])

    def forward(self, x: Tensor, weights: list[Tensor], biases: list[Any]) -> Tensor:
        packed = None if self._packed is None else self._packed(*weights)
        op, _, options = self.place
        if op == "wtsm_conv2d":
            return wtsm_conv2d(x, weights[0], biases[0], packed=packed, **options)
        if op == "wtsm_conv2d_stack":
            return wtsm_conv2d_stack(x, weights, biases, packed=packed, **options)
        (weight1, weight2), (bias1, bias2) = weights, biases
        return double_conv2d_pool(x, weight1, bias1, weight2, bias2, packed=packed, **options)


class Layer(NamedTuple):
    """A shift, convolution and activation that run as one op."""

    conv: str
    shift: Shift
    activation: str


class Rewriting:
    """The graph of a model in one mode, onto the fused ops."""

    def __init__(self, model: nn.Module, plain: nn.Module, inputs: tuple[Any, ...], training: bool) -> None:
        """`plain`: the same model, run on `inputs` for the shapes."""
        self.model, self.training = model.train(training), training
        self.ops: dict[str, Fused] = {}  # what the graph calls
        self.left: dict[str, str] = {}  # module -> why it stayed
        tracer, signature = Tracer(), inspect.signature(model.forward)
        given = signature.bind(*inputs).arguments
        optional = {name: p.default for name, p in signature.parameters.items() if name not in given}
        try:
            self.graph = tracer.trace(model, {name: v for name, v in optional.items() if v is not inspect._empty})
        except Exception as error:  # user code, run on stand-ins for tensors, may raise anything
            self.graph = fx.Graph()
            self.left[""] = f"it cannot be traced ({' '.join(str(error).split())[:100]})"
            return
        self.left |= tracer.opaque
        with torch.no_grad(), torch.random.fork_rng():
            Forms(plain.eval(), graph=self.graph).run(*copied(inputs))
            replace_shifts(model, self.graph)
        for node in self.graph.nodes:
            if node.op == "call_module" and stateless(model.get_submodule(node.target)):
                self.left.setdefault(node.target, "what it does is no shift of wtsm's")
        for fuse in (self._fuse_shift, self._fuse_stack, self._fuse_block):
            for node in list(self.graph.nodes):
                fuse(node)
        for node in reversed(list(self.graph.nodes)):
            if node.op == "get_attr" and not node.users:
                self.graph.erase_node(node)
        self.graph.lint()

    def places(self) -> tuple[Place, ...]:
        """The fused ops of the graph, in its order."""
        found: list[Place] = []
        for node in self.graph.nodes:
            if node.target in self.ops:
                found.append(self.ops[node.target].place)
            elif "shift" in node.meta:
                found.append(Place("wtsm", node.meta["modules"], node.meta["shift"].options()))
        return tuple(found)

    def forward(self) -> Callable[..., Any]:
        """A forward for models that have `ops` as attributes beside what this one has."""
        used = {node.target for node in self.graph.nodes}
        self.ops = {name: op for name, op in self.ops.items() if name in used}
        self.model.__dict__.update(self.ops)  # no submodules: who goes through those finds the same as before
        forward: Callable[..., Any] = type(fx.GraphModule(self.model, self.graph)).forward
        return forward

    def _fuse_shift(self, node: fx.Node) -> None:
        """shift - convolution (- activation); what else reads the shifted tensor reads it from `wtsm`."""
        if "shift" not in node.meta:
            return
        for user in list(node.users):
            conv = self._module(user)
            if not isinstance(conv, nn.Conv2d):
                continue
            if why := _why_not(conv):
                self.left[str(user.target)] = f"{why}: only its shift runs as wtsm"
                continue
            path, activation = [user], "none"
            after = self._next(user)
            if after and (name := self._activation(after[-1])):
                path, activation = [user, *after], name
            shift: Shift = node.meta["shift"]
            options = shift.options() | {"padding": _padding(conv), "activation": activation}
            new = self._put("wtsm_conv2d", node.args[0], path, (str(user.target),), options)
            new.meta["layer"] = Layer(str(user.target), shift, activation)
        if not node.users:
            self.graph.erase_node(node)

    def _fuse_stack(self, node: fx.Node) -> None:
        """A chain of 3x3 layers of one shift and one activation, each read by the next alone."""
        layers: list[Layer] = []
        path: list[fx.Node] = []
        after, divs = [node], None
        while after and "layer" in after[-1].meta and self._stacks(after[-1].meta["layer"], layers[:1]):
            found = set(after[-1].meta["layer"].shift.fold_divs)
            divs = found if divs is None else divs
            if not divs & found:
                break
            divs &= found
            layers.append(after[-1].meta["layer"])
            path += after
            after = self._next(after[-1])
        if len(layers) < 2 or divs is None:
            return
        first = layers[0]
        options = first.shift.options() | {"fold_div": max(divs), "activation": first.activation}
        self._put("wtsm_conv2d_stack", node.args[0], path, tuple(layer.conv for layer in layers), options)

    def _stacks(self, layer: Layer, first: Sequence[Layer]) -> bool:
        conv = self.model.get_submodule(layer.conv)
        assert isinstance(conv, nn.Conv2d)
        alike = all(
            (a.shift.n_segment, a.shift.wrap, a.activation)
            == (layer.shift.n_segment, layer.shift.wrap, layer.activation)
            for a in first
        )
        return alike and _is_3x3(conv) and conv.bias is not None

    def _fuse_block(self, node: fx.Node) -> None:
        """conv3x3 - ReLU - conv3x3 - ReLU - average pool."""
        path, convs = [node], []
        for _ in range(2):
            conv = self._module(path[-1])
            if not isinstance(conv, nn.Conv2d) or _why_not(conv) or not _is_3x3(conv):
                return
            convs.append(str(path[-1].target))
            relu = self._next(path[-1])
            if not relu or self._activation(relu[-1]) != "relu":
                return
            after = self._next(relu[-1])
            if not after:
                return
            path += relu + after
        pool = self._pool(path[-1])
        if pool is not None:
            self._put("double_conv2d_pool", node.args[0], path, tuple(convs), {"pool": pool})

    def _put(
        self, op: str, x: Any, path: list[fx.Node], modules: tuple[str, ...], options: dict[str, Any]
    ) -> fx.Node:
        """The op on x in place of the operations of `path`, with the modules' parameters."""
        name = f"_fused_{'training' if self.training else 'eval'}{len(self.ops)}"
        self.ops[name] = Fused(Place(op, modules, options), self.training)
        with self.graph.inserting_after(path[-1]):
            new = self.graph.create_node("call_module", name)
        with self.graph.inserting_before(new):
            weights = [self.graph.create_node("get_attr", f"{m}.weight") for m in modules]
            biased = {m for m in modules if self.model.get_submodule(m).bias is not None}
            biases = [self.graph.create_node("get_attr", f"{m}.bias") if m in biased else None for m in modules]
        path[-1].replace_all_uses_with(new)
        new.args = (x, weights, biases)
        for node in reversed(path):
            self.graph.erase_node(node)
        return new

    def _module(self, node: fx.Node) -> nn.Module | None:
        own = node.op == "call_module" and node.target not in self.ops
        return self.model.get_submodule(str(node.target)) if own else None

    def _next(self, node: fx.Node) -> list[fx.Node]:
        """The only operation that reads a node's result, behind dropouts that do nothing; [] if there are several."""
        path: list[fx.Node] = []
        while len(node.users) == 1:
            before, node = node, next(iter(node.users))
            if node.args[:1] != (before,):
                return []
            path.append(node)
            if self.training or not self._is_silent(node):
                return path
        return []

    def _is_silent(self, node: fx.Node) -> bool:
        """Whether it is a dropout that does nothing in eval mode."""
        if node.target in (F.dropout, F.dropout2d):
            return (node.args[2] if len(node.args) > 2 else node.kwargs.get("training")) is False
        return type(self._module(node)) in DROPOUTS

    def _activation(self, node: fx.Node) -> str | None:
        """The activation that an operation is, if it is one with its usual constants."""
        module = self._module(node)
        kind = type(module) if module is not None else node.target
        usual = len(node.args) == 1 and set(node.kwargs) <= {"inplace"} and not (module and hooked(module))
        usual = usual and getattr(module, "alpha", 1.0) == 1.0
        return ACTIVATIONS.get(kind) if usual else None

    def _pool(self, node: fx.Node) -> int | None:
        """The side of an average pooling's windows, if they are squares side by side."""
        module = self._module(node)
        if type(module) is nn.AvgPool2d and not hooked(module):
            plain = module.padding in (0, (0, 0)) and not module.ceil_mode and module.divisor_override is None
            size, stride = module.kernel_size, module.stride
        elif node.target is F.avg_pool2d:
            names = ("input", "kernel_size", "stride")
            given = dict(zip(names, node.args, strict=False)) | node.kwargs
            plain = len(node.args) <= len(names) and set(given) <= set(names)
            size, stride = given.get("kernel_size"), given.get("stride")  # type: ignore[assignment]
        else:
            return None
        sides = {*(size if isinstance(size, tuple) else (size,)), *(stride if isinstance(stride, tuple) else (stride,))}
        sides -= {None}
        return sides.pop() if plain and len(sides) == 1 else None


def _padding(conv: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(conv.padding, tuple):
        return conv.padding
    return tuple((k - 1) // 2 if conv.padding == "same" else 0 for k in conv.kernel_size)


def _is_3x3(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (3, 3) and _padding(conv) == (1, 1)


def _why_not(conv: nn.Conv2d) -> str:
    """Why a convolution is not one that the fused kernels do; "" if it is."""
    if type(conv) is not nn.Conv2d or hooked(conv):
        return "it is more than a Conv2d"
    for name in ("stride", "dilation", "groups"):
        if getattr(conv, name) not in (1, (1, 1)):
            return f"its {name} is {getattr(conv, name)}"
    if (conv.kernel_size, _padding(conv)) not in (((1, 1), (0, 0)), ((3, 3), (0, 0)), ((3, 3), (1, 1))):
        return f"its kernel is {conv.kernel_size} with padding {conv.padding}"
    if conv.padding_mode != "zeros":
        return f"it pads by {conv.padding_mode}"
    return "" if conv.weight.dtype in _check.FLOATING else f"it is of {conv.weight.dtype}"
