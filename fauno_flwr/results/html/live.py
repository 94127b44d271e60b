"""The report of a run that goes on, served on this machine and written anew as the run writes."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.bounded_http import BoundedServer
from fauno_flwr.results.html.folders import ONE, kind_of
from fauno_flwr.results.html.report import run_page
from fauno_flwr.results.state import RUNNING, UNKNOWN, state_of
from fauno_flwr.results.status import read_events
from sim_env.errors import shown

HOST = "127.0.0.1"
INTERVAL = 3.0  # seconds between two looks at the files, and between two of the page at its number
WATCHED = ("events.jsonl", "metrics.jsonl", "summary.json", "replay.npz")
# Asks for the number of the newest page, and loads it; without an answer the run is over.
SCRIPT = """
<script>(() => {
  const ask = setInterval(async () => {
    try {
      const {number} = await (await fetch("/number")).json();
      if (number !== NUMBER) location.reload();
    } catch { clearInterval(ask); }
  }, INTERVAL);
})();</script></body>"""


class LiveReport:
    """The report of a run in memory, made anew by :meth:`update`.

    Parameters
    ----------
    folder : Path
        Of the run.

    Raises
    ------
    ConfigError
        If it holds no single run.
    """

    def __init__(self, folder: Path) -> None:
        if kind_of(folder) != ONE:
            raise ConfigError(f"run is {shown(str(folder))}: must be a single run with --follow")
        self.folder, self.number, self._page = folder, 0, ""
        self._seen: tuple[float, ...] = ()
        self.update()

    def update(self) -> bool:
        """Make the page anew if the run has written; return whether the run goes on."""
        going_on = state_of(self.folder, read_events(self.folder)).name in (RUNNING, UNKNOWN)
        paths = [self.folder / name for name in WATCHED]
        seen = tuple(path.stat().st_mtime if path.exists() else 0.0 for path in paths)
        if seen != self._seen:
            page = run_page(self.folder)
            number, self._seen = self.number + 1, seen
            script = SCRIPT.replace("NUMBER", str(number))
            self._page = page.replace("</body>", script.replace("INTERVAL", f"{1e3 * INTERVAL}"))
            self.number = number  # last: whoever sees it gets its page
        return going_on

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request for the page or its number (WSGI)."""
        # A page of another host that resolves to this one must not read it.
        host = str(environ.get("HTTP_HOST", "")).partition(":")[0]
        path = environ["PATH_INFO"]
        if host not in (HOST, "localhost") or path not in ("/", "/number"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"not found\n"]
        if path == "/":
            kind, body = "text/html", self._page
        else:
            kind, body = "application/json", json.dumps({"number": self.number})
        head = [("Content-Type", f"{kind}; charset=utf-8"), ("Cache-Control", "no-store")]
        start_response("200 OK", head)
        return [body.encode()]


def serve_report(folder: Path, port: int, announce: Callable[[str], None]) -> None:
    """Serve the report of a run until the run has ended.

    Parameters
    ----------
    folder : Path
    port : int
        0: any that is free.
    announce : callable
        Gets the address.

    Raises
    ------
    ConfigError
        If the folder holds no single run, or the port cannot be used.
    """
    report = LiveReport(folder)
    try:
        server = BoundedServer((HOST, port))
    except OSError as error:
        raise ConfigError(f"port is {port}: {error.strerror}") from error
    server.set_app(report)
    thread = threading.Thread(target=server.serve_forever, name="report", daemon=True)
    with server:
        thread.start()
        announce(f"http://{HOST}:{server.server_port}")
        while report.update():
            time.sleep(INTERVAL)
        time.sleep(2 * INTERVAL)  # an open page loads the last one
        server.shutdown()
        thread.join()
