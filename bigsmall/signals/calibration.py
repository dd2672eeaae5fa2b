"""How evidence becomes confidence and intervals: written by `python bench/trust.py fit`, not by hand.

Fitted on 370 simulated videos, measured with the default model 1d3f8489, and on as many
pairs of noises.
"""

# Of `Finding.features`: 1; log(1 + evidence) in the first waveform, in the second, in the weaker, of the
# strongest other rhythm. For two waveforms, and for one alone.
CONFIDENCE = {
    ("heart rate", "both"): (-5.611, 1.921, 1.973, 0.013, -1.327),
    ("heart rate", "alone"): (-5.822, 3.018, 0.0, 0.0, -1.311),
    ("respiration rate", "both"): (-5.65, 1.824, 0.94, 0.462, -0.593),
    ("respiration rate", "alone"): (-5.503, 2.786, 0.0, 0.0, -0.549),
}

# per minute: half an interval is hypot(least, share * standard error)
INTERVAL = {
    ("heart rate", "both"): (2.46, 1.25),
    ("heart rate", "alone"): (1.66, 2.25),
    ("respiration rate", "both"): (0.29, 2.5),
    ("respiration rate", "alone"): (0.59, 0.0),
}
