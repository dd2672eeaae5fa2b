"""Datasets: what is found on disk or simulated, prepared once into files that training and evaluation map."""

from .clips import Clips
from .folds import folds
from .prepared import Prepared, write_prepared
from .preparing import Job, PrepareError, Skip, jobs, names, open_prepared, prepare

__all__ = [
    "Clips",
    "Job",
    "PrepareError",
    "Prepared",
    "Skip",
    "folds",
    "jobs",
    "names",
    "open_prepared",
    "prepare",
    "write_prepared",
]
