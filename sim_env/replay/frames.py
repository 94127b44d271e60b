"""Frames of recordings: for slides, as pictures or as a GIF."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sim_env.envs.picture import NetworkPicture
from sim_env.network.topology import Topology
from sim_env.replay.recording import Recording


def frames(
    topology: Topology,
    recordings: Sequence[tuple[str, Recording]],
    tick: float,
    times: Iterable[float],
) -> Iterator[np.ndarray]:
    """Draw recordings of a network at some times.

    Parameters
    ----------
    topology : Topology
    recordings : sequence of (str, Recording)
        With their titles; several are drawn side by side, at half the size.
    tick : float
        Seconds of a tick.
    times : iterable of float
        Seconds; times after the end show the end.

    Yields
    ------
    array of uint8, shape (700, 1000, 3) or (350, 500 P, 3)
    """
    picture = NetworkPicture(topology)
    prepared = [
        (title, recording, recording.lengths(topology.num_nodes), recording.flights())
        for title, recording in recordings
    ]
    for time in times:
        drawn = []
        for title, recording, lengths, flights in prepared:
            now = min(round(time / tick), recording.ticks - 1)
            flying = flights[(flights[:, 0] <= now) & (now < flights[:, 1])]
            counts = recording.counts(now)
            drawn.append(
                picture.draw_moment(
                    f"{title}, t = {now * tick:,.1f} s",
                    "    ".join(f"{name} {number:,}" for name, number in counts.items()),
                    lengths[now],
                    flying[:, 2:],
                )
            )
        yield (
            drawn[0]
            if len(drawn) == 1
            else np.concatenate([_smaller(each) for each in drawn], axis=1)
        )


def _smaller(frame: np.ndarray) -> np.ndarray:
    """Return a frame at half its size."""
    height, width, colours = frame.shape
    blocks = frame.reshape(height // 2, 2, width // 2, 2, colours)
    return np.asarray(blocks.mean(axis=(1, 3)).astype(np.uint8))


def save_gif(pictures: Iterable[np.ndarray], path: Path, frames_per_second: float) -> None:
    """Write frames as an animated GIF that repeats."""
    from PIL import Image

    first, *others = [Image.fromarray(each).quantize(64) for each in pictures]
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=round(1000 / frames_per_second),
        loop=0,
    )
