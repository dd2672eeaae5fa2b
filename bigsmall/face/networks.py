"""The three networks of MTCNN (Zhang et al. 2016, IEEE SPL 23(10)), with the weights of the `mtcnn` 1.0.0 distribution.

That distribution's code is not imported (it wants TensorFlow); only its weight files are read, after their SHA-256 was
checked, by an unpickler that can make numpy arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


class FaceWeightsError(RuntimeError):
    """The detector's weights are not installed, or not those that were checked."""


class _Swap(nn.Module):
    """(N, C, H, W) -> (N, W*H*C): the weights come from a framework that stores images by columns."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class _Heads(nn.Module):
    """The last layers, side by side; the one named "face" gives the probability of a face (N, ...)."""

    def __init__(self, **heads: nn.Module) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = {name: head(x) for name, head in self.heads.items()}
        out["face"] = out["face"].softmax(1)[:, 1]
        return out


def _pool(size: int, ceil_mode: bool = True) -> nn.Module:
    return nn.MaxPool2d(size, 2, ceil_mode=ceil_mode)


# Layers with parameters stand in the order of the weight files.
def _pnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 10, 3), nn.PReLU(10), _pool(2), nn.Conv2d(10, 16, 3), nn.PReLU(16),
        nn.Conv2d(16, 32, 3), nn.PReLU(32), _Heads(box=nn.Conv2d(32, 4, 1), face=nn.Conv2d(32, 2, 1)),
    )  # fmt: skip


def _rnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 28, 3), nn.PReLU(28), _pool(3), nn.Conv2d(28, 48, 3), nn.PReLU(48), _pool(3, False),
        nn.Conv2d(48, 64, 2), nn.PReLU(64), _Swap(), nn.Linear(576, 128), nn.PReLU(128),
        _Heads(box=nn.Linear(128, 4), face=nn.Linear(128, 2)),
    )  # fmt: skip


def _onet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.PReLU(32), _pool(3), nn.Conv2d(32, 64, 3), nn.PReLU(64), _pool(3, False),
        nn.Conv2d(64, 64, 3), nn.PReLU(64), _pool(2), nn.Conv2d(64, 128, 2), nn.PReLU(128), _Swap(),
        nn.Linear(1152, 256), nn.PReLU(256),
        _Heads(box=nn.Linear(256, 4), landmarks=nn.Linear(256, 10), face=nn.Linear(256, 2)),
    )  # fmt: skip


BUILDERS = {"pnet": _pnet, "rnet": _rnet, "onet": _onet}


def load(name: str) -> nn.Module:
    """One of "pnet", "rnet", "onet", in eval mode, from the installed `mtcnn` distribution.

    Input (N, 3, H, W) float32 RGB as (pixel - 127.5) / 128, output {"box": (N, 4, ...), "face": (N, ...)} and for
    "onet" {"landmarks": (N, 10)}.

    Raises:
        FaceWeightsError: the distribution is not installed, or the file is not the one that was checked.
    """
    try:
        path = Path(str(metadata.distribution("mtcnn").locate_file(f"mtcnn/assets/weights/{name}.lz4")))
        data = path.read_bytes()
    except (metadata.PackageNotFoundError, FileNotFoundError) as error:
        raise FaceWeightsError(
            "the face detector's weights are missing: install mtcnn==1.0.0, or name the picture's region with a crop"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[name]:
        raise FaceWeightsError(f"{path} has SHA-256 {digest}, expected {SHA256[name]}: install mtcnn==1.0.0 anew")
    network = BUILDERS[name]()
    state = {}
    for key, array in zip(network.state_dict(), read_arrays(data), strict=True):
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)  # HWIO -> OIHW
        elif array.ndim == 2:
            array = array.T
        state[key] = torch.from_numpy(np.ascontiguousarray(array.reshape(-1) if array.ndim == 3 else array))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def read_arrays(data: bytes) -> list[np.ndarray]:
    """The list of arrays in an lz4-compressed joblib file, with nothing else able to run.

    joblib writes a pickle in which each array is a small record followed by the array's raw bytes in the stream.

    Raises:
        pickle.UnpicklingError: the file names anything but numpy arrays.
    """
    import lz4.frame  # only here: nothing else in the package needs it

    stream = io.BytesIO(lz4.frame.decompress(data))

    class Record:
        array: np.ndarray

        def __setstate__(self, state: dict[str, Any]) -> None:
            if state.get("numpy_array_alignment_bytes") is not None:
                stream.read(stream.read(1)[0])  # padding, its length first
            dtype, shape = np.dtype(state["dtype"]), tuple(state["shape"])
            if dtype.kind != "f":
                raise pickle.UnpicklingError(f"an array of {dtype}, expected floating point")
            count = int(np.prod(shape))
            raw = np.frombuffer(stream.read(count * dtype.itemsize), dtype, count)
            self.array = raw.reshape(shape, order=state["order"]).copy()

    allowed = {
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): Record,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise pickle.UnpicklingError(f"the file asks for {module}.{name}, expected numpy arrays only")
            return allowed[module, name]

    return [record.array for record in Reader(stream).load()]
