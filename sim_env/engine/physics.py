"""The physics of a world, as plain values: time, links, queues, and the fate of late tasks."""

from dataclasses import dataclass, field
from typing import ClassVar

from sim_env.errors import (
    Use,
    require_choice,
    require_effect,
    require_kind,
    require_number,
    require_whole,
    with_kind,
)
from sim_env.network.patterns import require_numbers

LINK_CHOICES = {
    "link": ("wireless", "fixed"),
    "latency_unit": ("tick", "second"),
    "noise_bandwidth": ("link", "message"),
}
QUIRK_CHOICES = {
    "queue_order": ("fifo", "lifo"),
    "keep_marks": ("undecided", "first"),
    "arrivals": ("poisson", "one_per_tick"),
    "publish": ("change", "arrival"),
    "late_results": ("lost", "finished"),
    "tick_order": ("fixed", "random"),
}


@dataclass
class Quirks:
    """Deviations of the original simulator, PeersimGym, from the plain tick.

    The defaults are the plain tick; a world with any other value runs the slower tick of
    :mod:`sim_env.engine.events`.

    Parameters
    ----------
    queue_order : str
        ``fifo``, or ``lifo``: the newest task is served and decided first.
    keep_marks : str
        Which task a keep decision marks as decided: ``undecided``, the task that it is about, or
        ``first``, the first one in the queue, decided or not.
    arrivals : str
        ``poisson``, or ``one_per_tick``: the next birth is at the rounded end of an exponential
        time, at most one per tick.
    serve_neighbours : bool
        Whether a client, in ticks without a task of its own, also creates tasks for the neighbours
        that are sources, at their rate, and sends them there.
    self_hop : int
        Ticks of a message from a node to itself: from client to worker, and back.
    intake_period : int
        Tasks from the client wait before the queue and enter it every so many ticks, when it is
        empty, or when a task is sent away; 0: at once.
    publish : str
        What makes a node publish its queue length: any ``change``, or only an ``arrival`` (of a
        client's or an offloaded task, or one sent away) but no completion.
    home_shortcut : bool
        Whether the output goes straight to the client from the node that first received the task,
        if it is served there or has come back there, instead of along the whole path of the task.
    cancel_on_arrival : bool
        Whether a task that reaches a node after its deadline is lost at once.
    expiry_grace : int
        Ticks after its deadline at which a waiting task is cancelled.
    late_results : str
        Whether a result after the deadline is ``lost`` or counts as ``finished``.
    client_forgets : bool
        Whether a client ignores a result that comes later than the time of birth + the (absolute)
        deadline.
    tick_order : str
        ``fixed``: actions, deliveries, then node by node births and service. ``random``: all
        deliveries, clients, workers and the joint action of a tick in random order.
    """

    queue_order: str = "fifo"
    keep_marks: str = "undecided"
    arrivals: str = "poisson"
    serve_neighbours: bool = False
    self_hop: int = 0
    intake_period: int = 0
    publish: str = "change"
    home_shortcut: bool = False
    cancel_on_arrival: bool = True
    expiry_grace: int = 0
    late_results: str = "lost"
    client_forgets: bool = False
    tick_order: str = "fixed"

    def __post_init__(self) -> None:
        for name, choices in QUIRK_CHOICES.items():
            require_choice(f"physics.quirks.{name}", getattr(self, name), choices)
        for name in ("self_hop", "intake_period", "expiry_grace"):
            require_whole(f"physics.quirks.{name}", getattr(self, name), at_least=0)


@dataclass
class PhysicsSpec:
    """Time, links, what nodes know of each other, and the fate of late tasks.

    Parameters
    ----------
    tick : float
        Seconds of one tick.
    link : str
        ``wireless``: Shannon capacity under free-space path loss, by distance. ``fixed``: the
        same rate and latency for all links, others for those of a server.
    bandwidth, frequency : float
        Bandwidth and carrier frequency of ``wireless`` links, in Hz.
    power : float
        Transmission power of ``wireless`` links, in dBm.
    rate, server_rate : float
        Bits per second of ``fixed`` links, and of those of a server.
    latency, server_latency : float
        Seconds of latency of ``fixed`` links, and of those of a server.
    latency_unit : str
        ``tick``: whole ticks, rounded up; ``second``: whole seconds, rounded to nearest, as in the
        original simulator. At least one tick either way.
    noise_bandwidth : str
        Bandwidth in the noise of a ``wireless`` link: that of the ``link``, or, as in the original
        simulator, one that equals the bits of the ``message``.
    hop_cap : int
        A task that has made this many hops may only be kept.
    information_delay : int
        Ticks after which neighbours know a queue length.
    stated_speed_factors : dict of str to float
        Observations state that some nodes are this many times as fast as they are; the expected
        times in them follow from that. Tasks are served, and built-in rewards computed, by the
        true speed. A key is a name, a role or a pattern of them (``rpi_1*``), and the last key that
        matches a node applies.
    cancel_in_service : bool
        Whether a task whose deadline passes is cancelled also while it is served.
    quirks : Quirks
        Further deviations of the original simulator.
    """

    uses: ClassVar[dict[str, Use]] = {
        **dict.fromkeys(
            ("bandwidth", "power", "frequency", "noise_bandwidth"), with_kind("link", "wireless")
        ),
        **dict.fromkeys(
            ("rate", "latency", "server_rate", "server_latency"), with_kind("link", "fixed")
        ),
    }

    tick: float = 0.1
    link: str = "wireless"
    bandwidth: float = 2e6
    power: float = 20.0
    frequency: float = 2.4e9
    rate: float = 600e6
    latency: float = 0.0
    server_rate: float = 300e6
    server_latency: float = 0.2
    latency_unit: str = "tick"
    noise_bandwidth: str = "link"
    hop_cap: int = 8
    information_delay: int = 1
    stated_speed_factors: dict[str, float] = field(default_factory=dict)
    cancel_in_service: bool = True
    quirks: Quirks = field(default_factory=Quirks)

    def __post_init__(self) -> None:
        for name, choices in LINK_CHOICES.items():
            require_choice(f"physics.{name}", getattr(self, name), choices)
        for name in ("hop_cap", "information_delay"):
            require_whole(f"physics.{name}", getattr(self, name), at_least=0)
        for name in ("tick", "bandwidth", "frequency", "rate", "server_rate"):
            require_number(f"physics.{name}", getattr(self, name), above=0)
        require_number("physics.power", self.power)
        for name in ("latency", "server_latency"):
            require_number(f"physics.{name}", getattr(self, name), at_least=0)
        require_numbers("physics.stated_speed_factors", self.stated_speed_factors, above=0)
        require_kind("physics.quirks", self.quirks, Quirks, "Quirks")
        require_effect("physics.", self, self.uses)
        if self.quirks.tick_order == "random" and self.information_delay == 0:
            raise ValueError(
                "physics.information_delay is 0: must be at least 1 with quirks.tick_order random"
            )
