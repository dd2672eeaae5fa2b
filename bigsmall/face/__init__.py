"""Detection, tracking and crops of faces."""

from bigsmall.face.crop import Box, CropPolicy, crop_box, parse_crop
from bigsmall.face.detector import Face, FaceDetector
from bigsmall.face.tracker import FaceTracker, Track

__all__ = ["Box", "CropPolicy", "Face", "FaceDetector", "FaceTracker", "Track", "crop_box", "parse_crop"]
