"""BigSmall: pulse, respiration and facial action units from a video of a face.

::

    import bigsmall
    result = bigsmall.measure("face.mp4")
    result.heart_rate.value, result.heart_rate.confidence, result.frames

Not a medical device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bigsmall.measure import measure

if TYPE_CHECKING:
    from bigsmall.results import Measurement, Reading
    from bigsmall.synthesis import synthesize
    from bigsmall.video import VideoError, VideoWriter, open_video
    from bigsmall_kernels import __version__

# Loaded when first asked for, so that `bigsmall --help` waits for neither torch nor a video library.
_HOMES = {
    "Measurement": "bigsmall.results",
    "Reading": "bigsmall.results",
    "VideoError": "bigsmall.video",
    "VideoWriter": "bigsmall.video",
    "__version__": "bigsmall_kernels",
    "open_video": "bigsmall.video",
    "synthesize": "bigsmall.synthesis",
}
_ROOMS = ("face", "models", "results", "signals", "synthesis", "video", "weights")

__all__ = [
    "Measurement",
    "Reading",
    "VideoError",
    "VideoWriter",
    "__version__",
    "measure",
    "open_video",
    "synthesize",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"bigsmall.{name}")
    raise AttributeError(f"module 'bigsmall' has no attribute {name!r}")
