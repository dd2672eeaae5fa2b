"""How evidence becomes confidence and intervals: written by `python bench/trust.py fit`, not by hand."""

# Of `Finding.features`: 1; log(1 + evidence) in the first waveform, in the second, in the weaker, of the
# strongest other rhythm. For two waveforms, and for one alone.
CONFIDENCE = {
    ("heart rate", "both"): (-4.15, 1.11, 0.93, 0.72, -0.99),
    ("heart rate", "alone"): (-4.54, 2.35, 0.0, 0.0, -1.18),
    ("respiration rate", "both"): (-3.96, 0.0, 2.68, 0.79, -0.49),
    ("respiration rate", "alone"): (-2.57, 2.4, 0.0, 0.0, -1.26),
}

# per minute: half an interval is hypot(least, share * standard error)
INTERVAL = {
    ("heart rate", "both"): (2.33, 1.75),
    ("heart rate", "alone"): (2.54, 0.5),
    ("respiration rate", "both"): (0.83, 1.75),
    ("respiration rate", "alone"): (0.92, 0.75),
}
