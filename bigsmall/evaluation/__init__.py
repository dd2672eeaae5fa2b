"""Evaluation: what networks give for prepared recordings, beside what is known of them.

::

    recordings = bigsmall.datasets.open_prepared("prepared/ubfc")
    found = bigsmall.evaluation.evaluate("default", recordings, convention="toolbox", output="results")
    found.summary["heart_rate"]["mae"].value, found.rows, found.markdown()
"""

from .evaluate import Evaluation, evaluate, score
from .postprocess import CONVENTIONS, Convention
from .predict import Prediction, load_predictions, predict, unpredicted

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Evaluation",
    "Prediction",
    "evaluate",
    "load_predictions",
    "predict",
    "score",
    "unpredicted",
]
