"""What reading a video may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What reading a video may cost; whoever passes a limit is told by a note or a `VideoError`, never by a hang.

    The defaults let an hour of ordinary 4K video pass many times over.

    Attributes:
        seconds: without a new frame, before the decoder is taken to hang (60).
        memory: bytes that the decoder of a file may allocate (4 GiB; Linux only). 4K takes about 1 GiB on 16 threads.
        pixels: of one picture (2**26: 8K passes). Larger ones are refused before they are decoded.
        frames: of one video (10 million: a day at 100 a second). Reading ends there, with a note.
    """

    seconds: float = 60.0
    memory: int = 2**32
    pixels: int = 2**26
    frames: int = 10_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name != "seconds"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise TypeError(f"{field.name} was {value!r}, expected {'an integer' if whole else 'seconds'}")
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} was {value!r}, expected a positive number")
