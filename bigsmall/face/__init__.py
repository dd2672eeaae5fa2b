"""Detection, tracking and crops of faces."""

from bigsmall.face.crop import Box, CropPolicy, crop_box, face_scale, parse_crop
from bigsmall.face.detector import Face, FaceDetector
from bigsmall.face.networks import FaceWeightsError
from bigsmall.face.tracker import FaceTracker, Track

__all__ = [
    "Box",
    "CropPolicy",
    "Face",
    "FaceDetector",
    "FaceTracker",
    "FaceWeightsError",
    "Track",
    "crop_box",
    "face_scale",
    "parse_crop",
]
