"""Cost of Flower's engine with many nodes: CPU of a message, memory of a node.

``python benchmarks/engine_cost.py simulate:100 deploy:20`` trains so many nodes in the simulation
engine, or as a SuperLink with warm SuperNodes on this machine, and prints a row for each. CPU
seconds are those of all processes that the command starts, so they depend little on other load.
Training is as short as it can be: what remains is the engine.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from fauno_flwr.results.directory import read_lines

FAUNO = Path(sys.executable).with_name("fauno")
SETTINGS = (
    "federation.versions=4",
    "training.worlds=1",
    "training.ticks=64",
    "training.rollouts=1",
)
SETTINGS += ("evaluation.policies=[]", "evaluation.worlds=1", "evaluation.window=10")
COMMANDS = {
    "simulate": ("simulate", "topology=full20", "topology.nodes={nodes}"),
    "deploy": ("deploy", "local", "--nodes", "{nodes}"),
}
COLUMNS = (
    "engine | nodes | messages | wall s | CPU s | CPU s per message | memory, MB | per node, MB"
)
MEGABYTE = 2**20


class Tree:
    """CPU time and memory of a process and of all that it has started.

    Parameters
    ----------
    pid : int

    Attributes
    ----------
    peak : int
        Most memory that all had at once, bytes; what processes share counts once.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._spent: dict[tuple[int, float], float] = {}
        self.peak = 0

    def look(self, memory: bool) -> None:
        """Note what the processes have spent so far, and what they hold."""
        held = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self._spent[process.pid, process.create_time()] = times.user + times.system
                held += process.memory_full_info().pss if memory else 0
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak = max(self.peak, held)

    @property
    def cpu(self) -> float:
        """CPU seconds; of a process that has ended, those when it was last looked at."""
        return sum(self._spent.values())


def measure(engine: str, nodes: int) -> str:
    """Train to the end; return a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        arguments = [part.format(nodes=nodes) for part in COMMANDS[engine]]
        command = [FAUNO, *arguments, *SETTINGS, "--no-report", "--out", out]
        begin = time.monotonic()
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as running:
            tree, turns = Tree(running.pid), 0
            while running.poll() is None:
                try:
                    tree.look(memory=turns % 10 == 0)
                except psutil.NoSuchProcess:
                    break
                turns += 1
                time.sleep(0.2)
        if running.returncode:
            raise SystemExit(f"{engine} with {nodes} nodes ended with {running.returncode}")
        wall = time.monotonic() - begin
        messages = sum(event["event"] == "reply" for event in read_lines(out / "events.jsonl"))
    peak = tree.peak / MEGABYTE
    numbers = f"{wall:.0f} | {tree.cpu:.0f} | {tree.cpu / messages:.2f} | {peak:.0f}"
    return f"| {engine} | {nodes} | {messages} | {numbers} | {peak / nodes:.0f} |"


if __name__ == "__main__":
    print(f"| {COLUMNS} |\n" + "|---" * (1 + COLUMNS.count("|")) + "|", flush=True)
    for each in sys.argv[1:] or ["simulate:100", "deploy:20"]:
        name, number = each.split(":")
        print(measure(name, int(number)), flush=True)
