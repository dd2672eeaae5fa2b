"""How evidence becomes confidence and intervals: written by `python bench/trust.py fit`, not by hand."""

# of `Finding.features`: 1; log(1 + evidence) in the first waveform, in the second, in the weaker; of the strongest
# other rhythm; flicker. For two waveforms, and for one alone.
CONFIDENCE = {
    ("heart rate", "both"): (-2.51, 0.36, 0.79, 0.81, -0.53, -3.74),
    ("heart rate", "alone"): (-3.37, 1.82, 0.0, 0.0, -0.59, -3.71),
    ("respiration rate", "both"): (-1.75, 0.0, 2.06, 0.13, -0.53, 0.0),
    ("respiration rate", "alone"): (-1.12, 1.7, 0.0, 0.0, -0.53, 0.0),
}

# per minute: half an interval is hypot(least, share * standard error)
INTERVAL = {
    ("heart rate", "both"): (1.5, 1.25),
    ("heart rate", "alone"): (1.5, 1.25),
    ("respiration rate", "both"): (0.9, 0.75),
    ("respiration rate", "alone"): (0.9, 0.75),
}
