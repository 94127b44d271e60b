"""Pictures of the network: load of the nodes, tasks in flight.

matplotlib is imported only when a world is drawn.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import gymnasium as gym
import numpy as np

from sim_env.errors import require_choice
from sim_env.scenario import Scenario
from sim_env.world import World

if TYPE_CHECKING:
    from sim_env.envs.picture import NetworkPicture

RENDER_MODES = ["rgb_array", "human"]
RENDER_FPS = 10  # a tick of the default physics is 0.1 s: frames in real time
# Backends of matplotlib that draw into files only.
FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
# The figure of each scenario that was drawn and is still in use.
_PICTURES: WeakKeyDictionary[Scenario, "NetworkPicture"] = WeakKeyDictionary()


def draw_world(world: World, index: int = 0) -> np.ndarray:
    """Draw a frame of one world.

    A mark at the place of each node shows its role by shape, its speed by area and its load (tasks
    / capacity) by colour. A wedge along a link shows tasks in flight to its wide end; the more,
    the wider. The title counts the outputs on their way home. Networks of up to 60 nodes show
    names. Nodes that share a place are laid out by their links, without a scale.

    Parameters
    ----------
    world : World
    index : int, default 0
        Which of its parallel worlds.

    Returns
    -------
    array of uint8, shape (700, 1000, 3)

    Raises
    ------
    ValueError
        If there is no world of that index.
    """
    if not 0 <= index < world.num_worlds:
        raise ValueError(f"index is {index}: must be between 0 and {world.num_worlds - 1}")
    from sim_env.envs.picture import NetworkPicture

    if world.scenario not in _PICTURES:
        _PICTURES[world.scenario] = NetworkPicture(world.scenario.topology)
    return _PICTURES[world.scenario].draw(world, index)


def save_frames(frames: World | Iterable[World | np.ndarray], folder: str | Path) -> list[Path]:
    """Write frames as ``frame_00000.png``, ``frame_00001.png``, ...

    Parameters
    ----------
    frames : World, or iterable of World or of frames
        A world is drawn when the iterable yields it, so that a generator may advance and yield the
        same one; a frame is what :func:`draw_world` or ``env.render()`` returns.
    folder : str or Path
        Created if missing.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    FileExistsError
        If the folder holds frames already, which would mix with the new ones.
    """
    from matplotlib.image import imsave

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("frame_*.png")):
        raise FileExistsError(f"{folder} holds frames already: choose an empty folder")
    paths = []
    for number, frame in enumerate([frames] if isinstance(frames, World) else frames):
        paths.append(folder / f"frame_{number:05d}.png")
        imsave(paths[-1], draw_world(frame) if isinstance(frame, World) else frame)
    return paths


class Viewer:
    """Frames or a window for the ``render`` of an environment, by mode.

    Parameters
    ----------
    mode : {"rgb_array", "human", None}
        ``rgb_array``: frames as arrays. ``human``: a window that follows the world; without a
        display, a warning and no window (no error, because gymnasium's checker tries every
        declared mode). None: nothing.

    Raises
    ------
    ValueError
        For another mode.
    """

    def __init__(self, mode: str | None) -> None:
        if mode is not None:
            require_choice("render_mode", mode, RENDER_MODES)
        self.mode = mode
        self._image: Any = None
        self._has_window = mode == "human" and _display()

    def render(self, world: World | None) -> np.ndarray | None:
        """Return the frame in mode ``rgb_array``, else None.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Without a world, that is before the first reset.
        """
        if world is None:
            raise gym.error.ResetNeeded("call reset before render")
        if self.mode == "rgb_array":
            return draw_world(world)
        self.follow(world)
        return None

    def follow(self, world: World | None) -> None:
        """Show the world in the window, if there is one."""
        if not self._has_window or world is None:
            return
        from matplotlib import pyplot as plt

        frame = draw_world(world)
        if self._image is None:
            figure: Any = plt.figure(
                "edge network", figsize=(frame.shape[1] / 100, frame.shape[0] / 100)
            )
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._image = axes.imshow(frame)
            figure.canvas.manager.show()
        self._image.set_data(frame)
        canvas = self._image.figure.canvas
        canvas.draw_idle()
        canvas.start_event_loop(0.001)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._image is not None:
            from matplotlib import pyplot as plt

            plt.close(self._image.figure)
            self._image = None


def _display() -> bool:
    from matplotlib import pyplot as plt

    backend = plt.get_backend().lower()
    if backend not in FILE_BACKENDS:
        return True
    warnings.warn(
        f"render_mode='human' needs a display, and matplotlib has none (its backend is {backend}): "
        "no window will open; render_mode='rgb_array' and save_frames of sim_env.envs.render work "
        "anywhere",
        stacklevel=4,
    )
    return False
