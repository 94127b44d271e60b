"""Cost of co-simulation with 10, 100 and 1,000 nodes that learn.

``python benchmarks/cosim_cost.py [NODES ...]`` trains grids of so many nodes, each size in a
process of its own, and prints CPU seconds of one core, which depend little on other load.
"""

import logging
import resource
import subprocess
import sys
import time

import torch

from fauno_flwr.config.loading import load_config
from fauno_flwr.experiments.cells import train
from fauno_flwr.federation.logs import quiet_flower

SIZES = (10, 100, 1000)
SETTINGS = ("topology=grid20", "training.worlds=4", "evaluation.worlds=1", "evaluation.window=10")
COLUMNS = "nodes | updates | CPU s | agent-steps/s | CPU ms per update | memory, MB"


def measure(nodes: int) -> str:
    """Train with four messages per node on average; return a row of the table."""
    torch.set_num_threads(1)
    settings = [*SETTINGS, f"topology.nodes={nodes}", "federation.versions=8"]
    config = load_config("ether2", [*settings, "evaluation.policies=[]"])
    agents = len(config.build_scenario().agents)
    begin = time.process_time()
    with quiet_flower(logging.ERROR):
        trained = train(config)
    spent = time.process_time() - begin
    steps = trained.seconds / config.physics.tick * config.training.worlds * agents
    updates = 4 * agents * config.training.rollouts
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    numbers = f"{spent:.1f} | {steps / spent:,.0f} | {1000 * spent / updates:.1f} | {memory:.0f}"
    return f"| {agents:,} | {updates:,} | {numbers} |"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(measure(int(sys.argv[2])))
    else:
        print(f"| {COLUMNS} |\n" + "|---" * (1 + COLUMNS.count("|")) + "|", flush=True)
        for size in map(int, sys.argv[1:] or SIZES):
            subprocess.run([sys.executable, __file__, "--one", str(size)], check=True)
