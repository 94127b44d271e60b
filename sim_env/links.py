"""How fast a link is."""

import numpy as np

SPEED_OF_LIGHT = 299_792_458.0
THERMAL_NOISE = -174.0  # dBm per Hz at 290 K
NEAREST = 1.0  # metres; closer than this the free-space formula means nothing


def wireless_rate(
    distance: np.ndarray, bandwidth: float, power: float, frequency: float
) -> np.ndarray:
    """Shannon capacity of a wireless link under free-space path loss.

    ``C = W log2(1 + SNR)`` with ``SNR_dB = P - (20 log10 d + 20 log10 f + 20 log10(4 pi / c)) -
    (-174 + 10 log10 W)``.

    Parameters
    ----------
    distance : array of float
        Metres; taken as 1 m where closer.
    bandwidth : float
        W, in Hz.
    power : float
        P, transmission power in dBm.
    frequency : float
        f, carrier frequency in Hz.

    Returns
    -------
    array of float
        Bits per second, same shape as `distance`.
    """
    d = np.maximum(distance, NEAREST)
    loss = 20 * np.log10(d) + 20 * np.log10(frequency) + 20 * np.log10(4 * np.pi / SPEED_OF_LIGHT)
    snr = power - loss - (THERMAL_NOISE + 10 * np.log10(bandwidth))
    return np.asarray(bandwidth * np.log2(1 + 10 ** (snr / 10)))
