"""Rate of a wireless link."""

import numpy as np

SPEED_OF_LIGHT = 299_792_458.0
THERMAL_NOISE = -174.0  # dBm per Hz at 290 K
NEAREST = 1.0  # metres; the free-space formula is invalid below


def received_power(distance: np.ndarray, power: float, frequency: float) -> np.ndarray:
    """Compute the received power under free-space path loss, in dBm.

    ``P - (20 log10 d + 20 log10 f + 20 log10(4 pi / c))``

    Parameters
    ----------
    distance : array of float
        d, in metres; taken as 1 m where closer.
    power : float
        P, transmission power in dBm.
    frequency : float
        f, carrier frequency in Hz.
    """
    d = np.maximum(distance, NEAREST)
    loss = 20 * np.log10(d) + 20 * np.log10(frequency) + 20 * np.log10(4 * np.pi / SPEED_OF_LIGHT)
    return np.asarray(power - loss)


def shannon_rate(signal: np.ndarray, bandwidth: float) -> np.ndarray:
    """Compute the Shannon capacity ``W log2(1 + SNR)`` in bits per second.

    ``SNR_dB = signal - (-174 + 10 log10 W)``

    Parameters
    ----------
    signal : array of float
        Received power in dBm.
    bandwidth : float
        W, in Hz.
    """
    snr = signal - (THERMAL_NOISE + 10 * np.log10(bandwidth))
    return np.asarray(bandwidth * np.log2(1 + 10 ** (snr / 10)))
