"""What lossy compression makes of frames."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np

X264 = {"preset": "veryfast", "mbtree": "0"}  # its macroblock tree is not the same from one run to the next


def compressed(frames: Iterable[np.ndarray], fps: float, crf: int) -> np.ndarray:
    """Frames (H, W, 3) uint8 RGB as x264 gives them back at a quality `crf` (0 best to 51), (T, H, W, 3) uint8.

    Encoded and decoded in memory, in 4:2:0 where width and height are even; the same bits every time.
    """
    encoder: av.VideoCodecContext | None = None
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    out: list[np.ndarray] = []

    def send(frame: av.VideoFrame | None) -> None:
        assert encoder is not None
        for packet in encoder.encode(frame):
            out.extend(picture.to_ndarray(format="rgb24") for picture in decoder.decode(packet))

    for i, rgb in enumerate(frames):
        height, width = rgb.shape[:2]
        if encoder is None:
            created = av.CodecContext.create("libx264", "w")
            assert isinstance(created, av.VideoCodecContext)
            encoder = created
            encoder.width, encoder.height, encoder.thread_count = width, height, 1
            encoder.pix_fmt = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
            encoder.framerate = Fraction(fps).limit_denominator(100_000)
            encoder.time_base = 1 / encoder.framerate
            encoder.options = X264 | {"crf": str(crf)}
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
        picture.pts = i
        send(picture)
    if encoder is None:
        raise ValueError("frames was empty, expected at least one")
    send(None)
    out.extend(picture.to_ndarray(format="rgb24") for picture in decoder.decode(None))
    return np.stack(out)
