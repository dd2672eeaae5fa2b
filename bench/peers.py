"""What a user would otherwise run: the same arithmetic by eager PyTorch, torch.compile, ONNX Runtime and OpenVINO.

Every builder takes an eager module, its inputs and the number of threads, and returns a call without arguments.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Call = Callable[[], Any]
MISSING = "not installed"
KEEP_MEMORY = ("ONNX Runtime", "OpenVINO", "OpenVINO bfloat16")  # from their first call on
WITHOUT_BFLOAT16 = "this processor has no instructions for it, and OpenVINO would compute in float32"


def _as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def tensors(outputs: Any) -> list[Tensor]:
    """Whatever a peer returned, as tensors."""
    return [torch.as_tensor(np.asarray(y)) if not isinstance(y, Tensor) else y for y in _as_list(outputs)]


def rows(index: Tensor) -> Callable[[Any], list[Tensor]]:
    """The function that takes those rows of every output."""
    return lambda outputs: [y[index] for y in tensors(outputs)]


def _channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last) if x.dim() == 4 else x


def eager(module: nn.Module, inputs: Sequence[Tensor]) -> Call:
    def call() -> Any:
        with torch.inference_mode():
            return module(*inputs)

    return call


def eager_channels_last(module: nn.Module, inputs: Sequence[Tensor]) -> Call:
    return eager(copy.deepcopy(module).to(memory_format=torch.channels_last), [_channels_last(x) for x in inputs])


def compiled(module: nn.Module, inputs: Sequence[Tensor]) -> Call:
    """torch.compile with the weights frozen, in no_grad: its fastest mode on a CPU."""
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    function = torch.compile(copy.deepcopy(module), fullgraph=True, dynamic=False)

    def call() -> Any:
        with torch.no_grad():
            return function(*inputs)

    with inductor.patch(freezing=True):
        call()  # compiles, for the number of threads that is set
    return call


def _onnx(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    program = torch.onnx.export(copy.deepcopy(module), tuple(inputs), dynamo=True, verbose=False)
    assert program is not None
    buffer = io.BytesIO()
    buffer.write(program.model_proto.SerializeToString())
    return buffer.getvalue()


def onnxruntime(model: bytes, inputs: Sequence[Tensor], threads: int) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {node.name: x.numpy() for node, x in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: session.run(None, feed)


def openvino(model: bytes, inputs: Sequence[Tensor], threads: int, precision: str) -> Call:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    arrays = [x.numpy() for x in inputs]

    def call() -> Any:
        result = request.infer(arrays, share_inputs=True, share_outputs=True)
        return [result[i] for i in range(len(result))]

    return call


def openvino_has_bfloat16() -> bool:
    """Whether it would compute in it here; True where it is not installed, which is said elsewhere."""
    try:
        import openvino
    except ImportError:
        return True
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def autocast(module: nn.Module, inputs: Sequence[Tensor]) -> Call:
    """Eager in bfloat16."""

    def call() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return module(*inputs)

    return call


def _runtime(name: str, model: bytes | None, inputs: Sequence[Tensor], threads: int) -> Call | str:
    if model is None:
        return MISSING
    try:
        if name == "ONNX Runtime":
            return onnxruntime(model, inputs, threads)
        return openvino(model, inputs, threads, "bf16" if name.endswith("bfloat16") else "f32")
    except ImportError:
        return MISSING


def _exported(module: nn.Module, inputs: Sequence[Tensor]) -> bytes | None:
    try:
        return _onnx(module, inputs)
    except ImportError:
        return None


def inference(
    module: nn.Module, inputs: Sequence[Tensor], threads: int, *, quick: bool = False, large: bool = False
) -> Iterator[tuple[str, Call | str]]:
    """All float32 peers of an eager module: a name, and a call or the reason why there is none.

    quick: only those that need no compiling. large: only the runtimes, the fastest ones where a call takes seconds.
    """
    module = module.eval()
    if large:
        for name in ("eager NCHW", "eager channels_last", "torch.compile"):
            yield name, "slow: see the row of fewer clips"
    else:
        yield "eager NCHW", eager(module, inputs)
        if any(x.dim() == 4 for x in inputs):
            yield "eager channels_last", eager_channels_last(module, inputs)
        if quick:
            return
        yield "torch.compile", compiled(module, inputs)
    model = _exported(module, inputs)
    for name in ("ONNX Runtime", "OpenVINO"):
        yield name, _runtime(name, model, inputs, threads)


def bfloat16(
    module: nn.Module, inputs: Sequence[Tensor], threads: int, *, quick: bool = False
) -> Iterator[tuple[str, Call | str]]:
    """The peers of the rows in bfloat16."""
    module = module.eval()
    yield "eager autocast", autocast(module, inputs)
    if not quick:
        name = "OpenVINO bfloat16" if openvino_has_bfloat16() else "OpenVINO"
        if name == "OpenVINO":
            yield "OpenVINO bfloat16", WITHOUT_BFLOAT16
        yield name, _runtime(name, _exported(module, inputs), inputs, threads)
