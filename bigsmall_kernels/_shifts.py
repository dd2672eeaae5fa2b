"""A model as a graph of its operations, and the temporal shifts in it, told by what they do and not by their names."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from . import reference
from .wtsm import wtsm

MOST = 64  # operations that a shift is written in, at most


class Shift(NamedTuple):
    """What `wtsm` does: `fold_divs` are all that divide these channels alike."""

    n_segment: int
    fold_divs: range
    wrap: bool

    def options(self) -> dict[str, Any]:
        """The arguments of `wtsm` and of the ops that shift like it."""
        return {"n_segment": self.n_segment, "fold_div": self.fold_divs[-1], "wrap": self.wrap}


class Form(NamedTuple):
    """Of a tensor that the example inputs led to."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs that a model may write into."""
    result: tuple[Any, ...] = pytree.tree_map_only(Tensor, lambda x: x.detach().clone(), inputs)
    return result


def hooked(module: nn.Module) -> bool:
    """Whether someone listens to what goes in and out of a module."""
    return any(
        (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    )


def stateless(module: nn.Module) -> bool:
    """Whether it is a module of the user's own without parameters and buffers."""
    foreign = not type(module).__module__.startswith("torch.nn")
    return foreign and next(module.parameters(), None) is None and next(module.buffers(), None) is None


class _Written(fx.Proxy):
    """A value that slices are assigned to."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


class Tracer(fx.Tracer):
    """Follows a model into its containers; what cannot be followed stays one operation."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(torch.zeros, torch.empty, torch.ones, torch.full))
        self._autowrap_search.append(torch)  # where user code finds them
        self.opaque: dict[str, str] = {}  # module -> why it was not followed

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        graph = super().trace(root, concrete_args)
        for node in graph.nodes:
            node.meta.pop("is_wrapped", None)  # code of the graph would have every later trace wrap them again
        return graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Written(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = type(m).__module__.startswith(f"{__package__}.")
        return own or hooked(m) or stateless(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        before, depth = len(self.graph.nodes), len(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:  # user code, run on stand-ins for tensors, may raise anything
            for node in list(self.graph.nodes)[: before - 1 : -1]:
                self.graph.erase_node(node)
            while len(self.module_stack) > depth:
                self.module_stack.popitem()
            path = self.path_of_module(m)
            self.opaque[path] = f"it cannot be traced ({' '.join(str(error).split())[:100]})"
            return self.create_proxy("call_module", path, args, kwargs)


class Forms(fx.Interpreter):
    """Runs a graph and writes the form of every tensor into its node's `meta["form"]`."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta["form"] = Form(value.shape, value.dtype, value.device)
        return value


def replace_shifts(model: nn.Module, graph: fx.Graph) -> None:
    """`wtsm` where the graph shifts; its node's meta holds the `shift` and the `modules` that it was written in."""
    gone: set[fx.Node] = set()
    for y in list(graph.nodes):
        found = None if y in gone else _shift_ending_in(model, y)
        if found is None:
            continue
        x, shift, region = found
        with graph.inserting_after(region[-1]):
            new = graph.call_function(wtsm, (x,), shift.options())
        where = [str(node.target) for node in region if node.op == "call_module"]
        where = where or [path for path, _ in list(y.meta.get("nn_module_stack", {}).values())[-1:] if path]
        new.meta = {"form": y.meta["form"], "shift": shift, "modules": tuple(where)}
        y.replace_all_uses_with(new, lambda user, region=region: user not in region)
        gone.update(region)
        for node in reversed(region):
            if not node.users:
                graph.erase_node(node)


def _shift_ending_in(model: nn.Module, y: fx.Node) -> tuple[fx.Node, Shift, list[fx.Node]] | None:
    """(what is shifted, how, the operations that do it in their order), if y is the result of a shift."""
    region = [y]
    while _movable(model, region[-1]) and len(region) <= MOST:
        for write in [w for node in region for w in _writes(node) if w not in region]:
            region.append(write)
        sources = {source for node in region for source in node.all_input_nodes}.difference(region)
        if not sources:
            return None
        nearest = max(sources)
        if len(sources) == 1 and "form" in nearest.meta and nearest.meta["form"] == y.meta.get("form"):
            ordered = sorted(region)
            shift = _what(model, nearest, y, ordered) if _closed(y, ordered) else None
            if shift is not None:
                return nearest, shift, ordered
        region.append(nearest)
    return None


def _movable(model: nn.Module, node: fx.Node) -> bool:
    """Whether an operation may be a part of a shift: nothing of the model's state is in it."""
    if node.op == "call_module":
        return stateless(model.get_submodule(str(node.target)))
    return node.op in ("call_function", "call_method") and "shift" not in node.meta


def _writes(node: fx.Node) -> Iterator[fx.Node]:
    """The assignments to slices of a tensor or of its views."""
    for user in node.users:
        if not user.args or user.args[0] is not node:
            continue
        if user.target is operator.setitem:
            yield user
        elif user.op == "call_method" or user.target is operator.getitem:
            yield from _writes(user)


def _closed(y: fx.Node, ordered: list[fx.Node]) -> bool:
    """Whether nothing else sees the tensors inside, and y only when it is finished."""
    region, last = set(ordered), ordered[-1]
    outside = [(node, user) for node in ordered for user in node.users if user not in region]
    return all(user > last if node is y else "form" not in node.meta for node, user in outside)


def _what(model: nn.Module, x: fx.Node, y: fx.Node, region: list[fx.Node]) -> Shift | None:
    """The shift that the operations do to random numbers, of as many frames and of twice as many."""
    shape, dtype, device = x.meta["form"]
    if len(shape) != 4 or 0 in shape or not dtype.is_floating_point:
        return None
    graph = fx.Graph()
    copies = {x: graph.placeholder("x")}
    for node in region:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(copies[y])
    generator = torch.Generator().manual_seed(0)
    candidates: list[Shift] | None = None
    for frames in (shape[0], 2 * shape[0]):
        values = (torch.randn(frames, *shape[1:], generator=generator) * 100).to(device, dtype)
        given = values.clone()
        try:
            result = fx.Interpreter(model, graph=graph).run(given)
        except Exception:  # user code: it may take only so many frames, or check what it gets
            return None
        if not isinstance(result, Tensor) or result.shape != values.shape or not torch.equal(given, values):
            return None
        tried = _candidates(values, result) if candidates is None else candidates
        candidates = [shift for shift in tried if _does(shift, values, result)]
        if not candidates:
            return None
    return candidates[0] if candidates else None


def _candidates(x: Tensor, y: Tensor) -> Iterator[Shift]:
    """The shifts that move as many channels as differ in a pixel."""
    frames, channels = x.shape[:2]
    moved = int((x[:, :, 0, 0] != y[:, :, 0, 0]).any(0).sum())
    for fold in sorted({channels // d for d in range(1, channels + 1)}):
        for n_segment in range(2, frames + 1):
            if min(2 * fold, channels) == moved and frames % n_segment == 0:
                for wrap in (True, False):
                    yield Shift(n_segment, range(channels // (fold + 1) + 1, channels // fold + 1), wrap)


def _does(shift: Shift, x: Tensor, y: Tensor) -> bool:
    """A pixel first: most candidates fail there."""
    pieces = ((x[:, :, :1, :1], y[:, :, :1, :1]), (x, y))
    return all(torch.equal(reference.wtsm(a, **shift.options()), b) for a, b in pieces)
