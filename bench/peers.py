"""What a user would otherwise run: the same arithmetic by eager PyTorch, torch.compile, ONNX Runtime and OpenVINO.

Every builder takes an eager module, its inputs and the number of threads, and returns a call without arguments.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Call = Callable[[], Any]
MISSING = "not installed"
TAKES_LONG = "takes long, see fewer clips"
COMPILED = (1, 8, 60)  # clips
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


def left_out(clips: int, steps: int = 1) -> dict[str, str]:
    """Who does not take part in a row, and why: a whole run is to end within half an hour."""
    absent = {} if clips in COMPILED else {"torch.compile": "takes long to compile, see 1, 8 and 60 clips"}
    if steps > 1:
        absent |= dict.fromkeys(("eager NCHW", "eager channels_last"), TAKES_LONG)
    return absent


def inference(
    module: nn.Module,
    inputs: Sequence[Tensor],
    threads: int,
    *,
    quick: bool = False,
    without: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Call | str]]:
    """All float32 peers of an eager module: a name, and a call or the reason why there is none.

    quick: only those that need no compiling. without: who is left out, and why.
    """
    module, without = module.eval(), without or {}
    builders: dict[str, Callable[[], Call | str]] = {"eager NCHW": lambda: eager(module, inputs)}
    if any(x.dim() == 4 for x in inputs):
        builders["eager channels_last"] = lambda: eager_channels_last(module, inputs)
    if not quick:
        exported = cache(lambda: _exported(module, inputs))
        builders["torch.compile"] = lambda: compiled(module, inputs)
        builders["ONNX Runtime"] = lambda: _runtime("ONNX Runtime", exported(), inputs, threads)
        builders["OpenVINO"] = lambda: _runtime("OpenVINO", exported(), inputs, threads)
    for name, build in builders.items():
        yield name, without.get(name) or build()


def bfloat16(
    module: nn.Module, inputs: Sequence[Tensor], threads: int, *, quick: bool = False
) -> Iterator[tuple[str, Call | str]]:
    """The peers of the rows in bfloat16."""
    module = module.eval()
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() or len(inputs[0]) == 1
    yield "eager autocast", autocast(module, inputs) if fast else "this processor takes a second a clip for it"
    if not quick:
        name = "OpenVINO bfloat16" if openvino_has_bfloat16() else "OpenVINO"
        if name == "OpenVINO":
            yield "OpenVINO bfloat16", WITHOUT_BFLOAT16
        yield name, _runtime(name, _exported(module, inputs), inputs, threads)
