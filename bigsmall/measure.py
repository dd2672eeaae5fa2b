"""The main job as one function. Light to import; the pipeline and what it needs are loaded by the first call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigsmall.face import CropPolicy
    from bigsmall.results import Measurement
    from bigsmall.video import Times
    from bigsmall.weights import Predictor

Progress = Callable[[str, int, "int | None"], None]


def measure(
    source: Any,
    *,
    weights: str | Path | Predictor = "default",
    fps: float | None = None,
    timestamps: Times | None = None,
    crop: CropPolicy | None = None,
    all_faces: bool = False,
    progress: Progress | None = None,
) -> Measurement:
    """Measure pulse, respiration and facial action units in a video of a face.

    Args:
        source: a video file, an array (T, H, W, 3) of uint8 RGB, a folder of images, or a capture, as
            `bigsmall.open_video` takes them, arrays and folders with `fps` or `timestamps` (seconds); or what it
            returned, e.g. with other `Limits`.
        weights: a file, a name, "au=FILE,pulse=FILE,respiration=FILE", or what `bigsmall.weights.load` made of one.
        crop: which part of the picture is measured: "frame", "square", "face", "face:SCALE", "x,y,w,h" or (x, y, w, h)
            in pixels. Given, it is taken at its word: "face" looks for one, the others do not. Not given, it is the
            policy of the weights' card, a face is looked for, and frames without one are left out.
        all_faces: measure every face, not only the largest; needs a crop around faces.
        progress: called with what is being done, the frames done and the frames expected (None: unknown).

    Returns:
        the `Measurement` of the largest face, with those of the `others` where all were asked for; what could not be
        measured has the value None and a note that says why.

    Raises:
        VideoError: the source cannot be read as a video.
        ValueError, TypeError: an argument is wrong; the message names it.
        FaceWeightsError: the face detector's weights are not installed.
    """
    from bigsmall import pipeline

    tell = progress or (lambda stage, done, total: None)
    return pipeline.run(source, weights, fps, timestamps, crop, all_faces, tell)
