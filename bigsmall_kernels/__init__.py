"""Fused kernels for temporal-shift networks on face video: the shift, its convolutions, the normalisers."""

from . import nn
from ._library import info, use_backend
from ._version import __version__
from .bigsmall_inputs import InputStats, bigsmall_input_sums, bigsmall_inputs
from .double_conv2d_pool import double_conv2d_pool
from .fuse import Fusion, fuse
from .normalize import diff_normalize, standardize
from .wtsm import wtsm
from .wtsm_conv2d import wtsm_conv2d, wtsm_conv2d_stack

__all__ = [
    "Fusion",
    "InputStats",
    "__version__",
    "bigsmall_input_sums",
    "bigsmall_inputs",
    "diff_normalize",
    "double_conv2d_pool",
    "fuse",
    "info",
    "nn",
    "standardize",
    "use_backend",
    "wtsm",
    "wtsm_conv2d",
    "wtsm_conv2d_stack",
]
