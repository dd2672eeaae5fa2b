"""How evidence becomes confidence and intervals: written by `python bench/trust.py fit`, not by hand.

Fitted on 370 simulated videos, measured with the default model 05eb71a9, and on as many
pairs of noises.
"""

# Of `Finding.features`: 1; log(1 + evidence) in the first waveform, in the second, in the weaker, of the
# strongest other rhythm. For two waveforms, and for one alone.
CONFIDENCE = {
    ("heart rate", "both"): (-5.282, 1.672, 1.562, 0.315, -0.82),
    ("heart rate", "alone"): (-5.815, 2.996, 0.0, 0.0, -1.05),
    ("respiration rate", "both"): (-5.417, 1.484, 1.153, 0.487, -0.245),
    ("respiration rate", "alone"): (-5.573, 2.86, 0.0, 0.0, -0.622),
}

# per minute: half an interval is hypot(least, share * standard error)
INTERVAL = {
    ("heart rate", "both"): (1.68, 2.25),
    ("heart rate", "alone"): (1.82, 1.75),
    ("respiration rate", "both"): (0.48, 2.0),
    ("respiration rate", "alone"): (0.56, 2.0),
}
