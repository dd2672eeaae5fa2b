"""From waveforms to rates: filters, rates, their quality, and pulses without a network."""

from bigsmall.signals.quality import HEART_RATE, RESPIRATION_RATE, Rate, Vital, assess, macc, snr
from bigsmall.signals.rates import rate_fft, rate_peaks

__all__ = ["HEART_RATE", "RESPIRATION_RATE", "Rate", "Vital", "assess", "macc", "rate_fft", "rate_peaks", "snr"]
