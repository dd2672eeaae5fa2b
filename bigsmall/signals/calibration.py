"""Written by `python bench/trust.py fit`: how evidence becomes confidence and intervals. Not to be edited by hand."""

# provisional, until fitted
CONFIDENCE = {
    ("heart rate", "both"): (-6.0, 0.5, 1.0, 1.5, -0.5, -4.0),
    ("heart rate", "alone"): (-8.0, 2.5, 0.0, 0.0, -0.5, -4.0),
    ("respiration rate", "both"): (-5.0, 0.8, 1.2, 0.8, -0.5, 0.0),
    ("respiration rate", "alone"): (-6.0, 2.5, 0.0, 0.0, -0.5, 0.0),
}
INTERVAL = {
    ("heart rate", "both"): (1.0, 2.0),
    ("heart rate", "alone"): (1.0, 2.0),
    ("respiration rate", "both"): (0.6, 2.0),
    ("respiration rate", "alone"): (0.6, 2.0),
}
