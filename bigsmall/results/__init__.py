"""What a measurement found, and how it is written: tables, pictures, a page and a video."""

from bigsmall.results.measurement import (
    AU_THRESHOLD,
    DISCLAIMER,
    SCHEMA_VERSION,
    WINDOW_COLUMNS,
    Measurement,
    Reading,
    Thumbnail,
    Trace,
)

__all__ = [
    "AU_THRESHOLD",
    "DISCLAIMER",
    "SCHEMA_VERSION",
    "WINDOW_COLUMNS",
    "Measurement",
    "Reading",
    "Thumbnail",
    "Trace",
]
