"""How evidence becomes confidence and intervals: written by `python bench/trust.py fit`, not by hand.

Fitted on 370 simulated videos, measured with the default model 05eb71a9, and on as many
pairs of noises.
"""

# Of `Finding.features`: 1; log(1 + evidence) in the first waveform, in the second, in the weaker, of the
# strongest other rhythm. For two waveforms, and for one alone.
CONFIDENCE = {
    ("heart rate", "both"): (-5.23, 1.615, 1.408, 0.483, -0.768),
    ("heart rate", "alone"): (-5.715, 2.885, 0.0, 0.0, -0.983),
    ("respiration rate", "both"): (-5.417, 1.484, 1.153, 0.487, -0.245),
    ("respiration rate", "alone"): (-5.573, 2.86, 0.0, 0.0, -0.622),
}

# per minute: half an interval is hypot(least, share * standard error)
INTERVAL = {
    ("heart rate", "both"): (1.77, 1.25),
    ("heart rate", "alone"): (1.79, 1.0),
    ("respiration rate", "both"): (0.57, 0.75),
    ("respiration rate", "alone"): (0.67, 0.0),
}
