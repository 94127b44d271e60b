"""The physics of a world, as plain values: time, links, queues, and the fate of late tasks."""

from dataclasses import dataclass

from sim_env.errors import require_choice, require_number, require_whole

PHYSICS_CHOICES = {
    "link": ("wireless", "fixed"),
    "queue_order": ("fifo", "lifo"),
    "keep_marks": ("undecided", "first"),
    "arrivals": ("poisson", "one_per_tick"),
    "latency_unit": ("tick", "second"),
    "noise_bandwidth": ("link", "message"),
    "publish": ("change", "arrival"),
    "late_results": ("lost", "finished"),
    "tick_order": ("fixed", "random"),
}


@dataclass
class PhysicsSpec:
    """How time passes, how messages travel and what becomes of late tasks.

    Parameters
    ----------
    tick : float
        Seconds of one tick.
    link : str
        ``wireless``: Shannon capacity under free-space path loss, by distance. ``fixed``: the
        same rate and latency for all links, others for those that touch a server.
    bandwidth, power, frequency : float
        Of ``wireless`` links: Hz, dBm, Hz.
    rate, latency : float
        Of ``fixed`` links: bits per second, seconds.
    server_rate, server_latency : float
        The same for ``fixed`` links that touch a server.
    hop_cap : int
        A task that has made this many hops may only be kept.
    information_delay : int
        Ticks after which neighbours know a queue length.
    cancel_in_service : bool
        Whether a task whose deadline passes is cancelled also while being served.
    queue_order : str
        ``fifo``, or ``lifo``: the newest task is served and decided first.
    keep_marks : str
        What a keep decision marks as decided: ``undecided``, the task it is about, or ``first``,
        the first one in the queue, decided or not.
    arrivals : str
        ``poisson``, or ``one_per_tick``: the next birth is at the rounded end of an exponential
        time, at most one per tick.
    serve_neighbours : bool
        Whether a client, in ticks without a task of its own, also gives birth to tasks for the
        neighbours that are sources, at their rate, and sends them there.
    latency_unit : str
        ``tick``: whole ticks, rounded up; ``second``: whole seconds, rounded to nearest. At least
        one tick either way.
    noise_bandwidth : str
        Bandwidth in the noise of a ``wireless`` link: the ``link``'s, or one that equals the bits
        of the ``message``.
    self_hop : int
        Ticks of a message from a node to itself: from client to worker, and back.
    intake_period : int
        Tasks from the client wait before the queue and enter it in every so many ticks, when it
        is empty, or when a task is sent away; 0: at once.
    publish : str
        What makes a node tell its queue length: any ``change``, or only an ``arrival`` (of a
        client's or an offloaded task, or one sent away) but no completion.
    home_shortcut : bool
        Whether the output goes straight to the client from the node that first received the task,
        be it served there or come back there, not along all of the way that the task has gone.
    cancel_on_arrival : bool
        Whether a task that reaches a node after its deadline is lost there and then.
    expiry_grace : int
        Ticks after its deadline at which a waiting task is cancelled.
    late_results : str
        Whether a result after the deadline is ``lost`` or counts as ``finished``.
    client_forgets : bool
        Whether a client no longer counts a result that comes later than the time of birth + the
        (absolute) deadline.
    tick_order : str
        ``fixed``: actions, deliveries, then node by node births and service. ``random``: all
        deliveries, clients, workers and the joint action of a tick in random order.
    """

    tick: float = 0.1
    link: str = "wireless"
    bandwidth: float = 2e6
    power: float = 20.0
    frequency: float = 2.4e9
    rate: float = 600e6
    latency: float = 0.0
    server_rate: float = 300e6
    server_latency: float = 0.2
    hop_cap: int = 8
    information_delay: int = 1
    cancel_in_service: bool = True
    queue_order: str = "fifo"
    keep_marks: str = "undecided"
    arrivals: str = "poisson"
    serve_neighbours: bool = False
    latency_unit: str = "tick"
    noise_bandwidth: str = "link"
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
        for name, choices in PHYSICS_CHOICES.items():
            require_choice(f"physics.{name}", getattr(self, name), choices)
        if self.tick_order == "random" and self.information_delay == 0:
            raise ValueError(
                "physics.information_delay is 0: must be at least 1 with tick_order random"
            )
        for name in ("self_hop", "intake_period", "expiry_grace", "hop_cap", "information_delay"):
            require_whole(f"physics.{name}", getattr(self, name), at_least=0)
        for name in ("tick", "bandwidth", "frequency", "rate", "server_rate"):
            require_number(f"physics.{name}", getattr(self, name), above=0)
        require_number("physics.power", self.power)
        for name in ("latency", "server_latency"):
            require_number(f"physics.{name}", getattr(self, name), at_least=0)


PLAIN = PhysicsSpec()
# What the plain kernel does not know; see sim_env/engine/events.py.
EVENT_OPTIONS = (
    "queue_order",
    "keep_marks",
    "arrivals",
    "serve_neighbours",
    "self_hop",
    "intake_period",
    "publish",
    "home_shortcut",
    "cancel_on_arrival",
    "expiry_grace",
    "late_results",
    "client_forgets",
    "tick_order",
)
