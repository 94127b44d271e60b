"""What the pages show: their commands and Python code, and how each command is run by a test.

A command of a page that is not in :data:`COMMANDS`, or an entry whose command has gone from its
page, fails ``test_doc_commands.py``. To add a command, add it to the list of its page, with

* ``QUICK``: run by ``make test``; a second or two;
* ``SLOW``: run by ``make test-slow``, after the quick ones of its page, in the order of the page;
* ``SERVER``: likewise, but it does not end: started in the background, stopped at the end;
* otherwise the reason why it cannot be run. Its options and settings are checked all the same.

A command of several lines is named by the first one. Comments are left out.
"""

import re
import shlex
from dataclasses import dataclass

from tests.paths import ROOT

QUICK, SLOW, SERVER = "quick", "slow", "server"
NETWORK = "installs from the internet"
MACHINES = "needs several machines: tests/fauno_flwr/deployment/test_several_machines.py runs it"
SERVICES = "needs systemd and root: tests/fauno_flwr/deployment/test_several_machines.py runs it"
CONTAINERS = "needs Docker and root: tests/fauno_flwr/deployment/test_operations.py reads the files"
HUB = "needs Flower Hub: docs/get_started.md has the same run"
EXAMPLE = "tests/test_examples.py runs the app on an engine of its own"
SEARCH = "takes hours: tests/fauno_flwr/test_search.py runs the script with fewer trials"
SHELL = "changes the start file of the user's shell"
SYNTAX = "shows the form of a command"
DATA = "needs data of the original: tests/test_peersimgym_fauno.py runs its cells"
SUITE = "runs this test"
NEWCOMER = "tests/test_own_network.py runs it"

COMMANDS: dict[str, list[tuple[str, str]]] = {
    "README.md": [(SLOW, "make demo"), (SUITE, "make test")],
    "CONTRIBUTING.md": [(SUITE, "make test"), (SLOW, ".venv/bin/pre-commit install")],
    "docs/get_started.md": [
        (QUICK, "fauno config --show --conf balanced workload.rate=4"),
        (QUICK, "fauno config --list"),
        (QUICK, "fauno config --keys"),
        (SHELL, "fauno --install-completion"),
        (SLOW, "fauno simulate workload.rate=4 federation.buffer_size=5 --out results/mine"),
        (SLOW, "fauno simulate --conf balanced topology.clusters=4"),
        (QUICK, "fauno compare --conf ether2 --policies lq,sed,threshold,random,local --seeds 4"),
        (SLOW, "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1"),
        (
            SLOW,
            'flwr run . --stream --run-config \'overrides="federation.collect_actors=true" '
            'out="/tmp/run-1"\' '
            '--federation-config "num-supernodes=19 client-resources-num-cpus=1"',
        ),
        (SLOW, "fauno train --out results/cosim"),
        (SLOW, "fauno train --seeds 5 --out results/five-seeds"),
        (SLOW, "fauno evaluate results/cosim topology=ether4 workload.rate=1"),
        (SLOW, "fauno replay results/cosim --policies fauno,sed --out replay.html"),
        (
            SLOW,
            "fauno replay --conf ether2 --policies lq,sed --out replay.gif --seconds 60:75",
        ),
        (SLOW, "fauno experiment baseline --quick --seeds 3 --out results/baseline"),
        (SLOW, "fauno train federation.checkpoints=checkpoints/a --out results/a"),
        (SLOW, "fauno train federation.checkpoints=checkpoints/a --out results/a-2"),
        (SLOW, "fauno deploy local --nodes 3 --tls --auth federation.versions=5"),
        (SLOW, "fauno status results/deploy-<time>"),
    ],
    "docs/report.md": [
        (SLOW, "fauno train --out results/cosim"),
        (SLOW, "fauno report results/cosim"),
        (MACHINES, "fauno report results/cosim --follow"),
        (SLOW, "fauno train federation.share=nothing --out results/alone"),
        (SLOW, "fauno report results/cosim results/alone --out runs.html"),
    ],
    "docs/bring_your_own.md": [
        (SLOW, "fauno simulate --conf cartpole"),
        (SLOW, "fauno simulate --conf cartpole world.env_id=my_package:Lift-v0 world.nodes=8"),
        (SLOW, "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1"),
        (
            SLOW,
            "flwr run . --run-config "
            '\'conf="cartpole" env-id="my_package:Lift-v0" out="/tmp/lift"\'',
        ),
    ],
    "docs/own_network.md": [
        (NEWCOMER, "python make_network.py 25 net.json"),
        (NEWCOMER, "fauno topology show net.json"),
        (NEWCOMER, "fauno topology show net.json --conf mine.yaml --out net.png"),
        (
            NEWCOMER,
            "fauno compare --conf mine.yaml --policies sed,lq,local,my_rule:MyRule --seeds 4",
        ),
        (
            NEWCOMER,
            "fauno train --conf mine.yaml federation.versions=5 evaluation.worlds=4 "
            '"evaluation.policies=[sed,my_rule:MyRule]" --out results/mine',
        ),
        (NEWCOMER, "python make_network.py 40 larger.json"),
        (NEWCOMER, "fauno evaluate results/mine topology=larger.json"),
        (NEWCOMER, "python use_actor.py"),
        (NEWCOMER, "fauno topology show small.json"),
        (
            NEWCOMER,
            "fauno topology show ether2 topology.clusters=3 --out ether3.json --out ether3.png",
        ),
        (
            NEWCOMER,
            "fauno topology from-edges edges.csv --nodes nodes.csv --map rate=mbit "
            "--scale rate=1e6 --map speed=mips --scale speed=1e6 --out abc.json --out "
            "abc.png",
        ),
        (NEWCOMER, "fauno topology show net.json workload.sources=sources.csv --out sources.png"),
    ],
    "docs/environments.md": [
        (
            SLOW,
            "fauno compare --policies sed,lq --seeds 8 workload.rate=3 "
            "'physics.stated_speed_factors={\"rpi_*[02468]\": 8}'",
        ),
        (
            SLOW,
            "fauno compare --conf ether2 --policies sed,lq,threshold --seeds 16 --out results/mine",
        ),
        (SLOW, "fauno compare --conf balanced topology=grid20 workload.rate=4"),
        (SLOW, "fauno compare --policies clairvoyant,sed"),
        (SLOW, "fauno replay --conf balanced --policies lq,threshold --out replay.html"),
    ],
    "docs/experiments.md": [
        (SLOW, "fauno experiment baseline --quick --seeds 3 --out results/baseline"),
        (QUICK, "mkdir DIR && tar xzf docs/results/buffer-quick/cells.tar.gz -C DIR"),
        (QUICK, "fauno experiment buffer --quick --tables-only --out DIR"),
    ],
    "docs/extending.md": [
        (SLOW, "fauno compare --policies sed,my_rule:MyRule"),
        (SLOW, "fauno train reward.kind=my_reward:shorter federation.versions=4"),
        (SLOW, "fauno train observation=my_observation:QUEUES federation.versions=4"),
        (SLOW, "fauno compare topology.kind=my_topology:tree workload.rate=0.5"),
        (SLOW, "fauno compare workload.jobs=my_jobs:cameras workload.rate=4"),
        (SLOW, "fauno train federation.staleness=my_staleness:half_life federation.versions=4"),
        (SLOW, "fauno train federation.merge=my_merge:signs federation.versions=4"),
        (
            SLOW,
            'fauno train "federation.server_optimizer={name: my_optimizer:RMSProp, rate: 0.02}" '
            "federation.versions=4",
        ),
        (
            SLOW,
            "fauno train agent.algorithm=my_agents:ClippedPPO agent.limit=0.5 "
            "federation.versions=4",
        ),
        (SLOW, "fauno train agent=state agent.network=my_network:LOCAL federation.versions=4"),
        (
            SLOW,
            "fauno experiment my_experiment:FORGETTING --quick --seeds 1 "
            "--heuristics my_rule:MyRule --out results/forgetting",
        ),
    ],
    "docs/deployment.md": [
        (SLOW, "fauno deploy local --nodes 3 --tls --auth federation.versions=5"),
        (NETWORK, "python3 -m venv /opt/fauno && /opt/fauno/bin/pip install fauno-flwr"),
        (MACHINES, "export PATH=/opt/fauno/bin:$PATH"),
        (MACHINES, "set -a; . deploy/environment; set +a"),
        (MACHINES, "fauno prepare"),
        (MACHINES, "umask 077 && mkdir -p $FLWR_HOME"),
        (
            MACHINES,
            "fauno deploy certificates server.example 192.0.2.10 localhost 127.0.0.1 "
            "--out /etc/fauno/tls",
        ),
        (MACHINES, "head -c 32 /dev/urandom | base64 > /etc/fauno/superexec.secret"),
        (
            MACHINES,
            "flower-superlink --host 127.0.0.1 --port 8000 --database /var/lib/fauno/superlink.db "
            "--ssl-ca-certfile /etc/fauno/tls/ca.crt --ssl-certfile /etc/fauno/tls/server.pem "
            "--ssl-keyfile /etc/fauno/tls/server.key --enable-supernode-auth --isolation process "
            "--superexec-auth-secret-file /etc/fauno/superexec.secret &",
        ),
        (
            MACHINES,
            "flower-superexec --runtime-api-address localhost:8000 "
            "--root-certificates /etc/fauno/tls/ca.crt "
            "--superexec-auth-secret-file /etc/fauno/superexec.secret &",
        ),
        (MACHINES, "cat >> $FLWR_HOME/config.toml <<'TOML'"),
        (
            MACHINES,
            "cp deploy/nginx/fauno.conf /etc/nginx/conf.d/ "
            "&& rm -f /etc/nginx/sites-enabled/default",
        ),
        (MACHINES, "nginx -t && nginx -s reload"),
        (MACHINES, "fauno deploy key /etc/fauno/node.key"),
        (MACHINES, "flwr supernode register node.key.pub fauno"),
        (MACHINES, "while true; do"),
        (MACHINES, 'flwr run . fauno --run-config \'conf="ether2"'),
        (MACHINES, "flwr list fauno --format json"),
        (MACHINES, "fauno status /var/lib/fauno/results-1"),
        (SLOW, "fauno deploy local --nodes 3 --tls world=shared"),
        (MACHINES, "head -c 32 /dev/urandom | base64 > /etc/fauno/world.secret"),
        (
            MACHINES,
            "fauno world token 0 --secret-file /etc/fauno/world.secret > world-0.token",
        ),
        (
            MACHINES,
            "fauno world serve --host 0.0.0.0 --port 9100 --secret-file /etc/fauno/world.secret "
            "--certificates /etc/fauno/tls --out /var/lib/fauno/world.json topology=full20 "
            "topology.nodes=3",
        ),
        (
            MACHINES,
            "flwr run . fauno --run-config 'overrides=\"training=deployment topology=full20 "
            "topology.nodes=3",
        ),
        (
            MACHINES,
            "fauno world status server.example:9100 --secret-file /etc/fauno/world.secret "
            "--ca /etc/fauno/tls/ca.crt",
        ),
        (SERVICES, "useradd --system --home-dir /var/lib/fauno fauno"),
        (SERVICES, "install -D -m 644 deploy/environment /etc/fauno/environment"),
        (
            SERVICES,
            r"printf 'SUPERLINK=server.example:9092\nPARTITION=0\n' > /etc/fauno/node",
        ),
        (SERVICES, "cp -r deploy/systemd/fauno-.service.d /etc/systemd/system/"),
        (SERVICES, "cp deploy/systemd/fauno-supernode.service /etc/systemd/system/"),
        (
            SERVICES,
            "chown -R fauno /etc/fauno && systemctl enable --now fauno-supernode",
        ),
        (CONTAINERS, "fauno deploy certificates superlink localhost 127.0.0.1 --out tls"),
        (CONTAINERS, "head -c 32 /dev/urandom | base64 > superexec.secret"),
        (CONTAINERS, "sudo chown -R 1000 tls superexec.secret && docker compose up --build"),
        (MACHINES, "fauno status /var/lib/fauno/results-1"),
        (MACHINES, "fauno status /var/lib/fauno/results-1 --watch"),
        (MACHINES, "fauno status /var/lib/fauno/results-1 --json"),
        (MACHINES, "fauno metrics /var/lib/fauno/results-1 --port 9464"),
        (MACHINES, "fauno metrics /var/lib/fauno/results-1 > fauno.prom"),
        (MACHINES, "head -c 32 /dev/urandom | base64 > /etc/fauno/worker.secret"),
        (
            SYNTAX,
            "flower-supernode ... --isolation process "
            "--superexec-auth-secret-file /etc/fauno/worker.secret &",
        ),
        (
            MACHINES,
            "fauno deploy worker 127.0.0.1:9094 --secret-file /etc/fauno/worker.secret",
        ),
    ],
    "docs/hub.md": [
        (HUB, "flwr new @fauno/fauno-flwr"),
        (HUB, "cd fauno-flwr && pip install -e ."),
        (HUB, "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1"),
        (
            HUB,
            'flwr run . --stream --federation-config "num-supernodes=19 '
            'client-resources-num-cpus=1" --run-config '
            '\'out="/tmp/fauno-1" overrides="federation.collect_actors=true"\'',
        ),
        (
            MACHINES,
            "flower-supernode --superlink server.example:9092 --root-certificates ca.crt "
            '--node-config "partition-id=0 num-partitions=19"',
        ),
    ],
    "docs/learners.md": [
        (SLOW, "fauno export results/cosim --format csv --out metrics.csv"),
        (SLOW, "fauno export results/cosim --format tensorboard --out logs/cosim"),
        (SLOW, "fauno export results/cosim --format wandb --out logs/wandb"),
        (SLOW, "fauno train --seeds 5 --out results/five"),
        (SLOW, "fauno evaluate results/cosim"),
        (
            SLOW,
            "fauno evaluate results/cosim topology=ether4 workload.rate=1 --out results/elsewhere",
        ),
        (
            SLOW,
            "fauno train topology=ether4 "
            "federation.start=results/cosim/checkpoints/critic.safetensors --out results/started",
        ),
        (SLOW, "fauno export results/cosim --node rpi_0 --out exported"),
        (MACHINES, "fauno export --state-dir /var/lib/fauno/agent --out exported"),
    ],
    "docs/strategies.md": [(NETWORK, "pip install fauno-strategies")],
    "docs/peersimgym.md": [
        (SYNTAX, "fauno peersimgym CONFIG.json --policy lq --seed 1 [--ticks N] --json"),
        (
            SLOW,
            "fauno peersimgym --topology net.json --jobs jobs.csv --arrival-rate 1 --scale 10 "
            "--cycles 1000 --policy lq --seed 1 --json",
        ),
        (DATA, "python benchmarks/peersimgym_fauno.py DATA --out DIR"),
    ],
    "examples/README.md": [
        (NETWORK, "pip install -e '.[examples]'"),
        (EXAMPLE, "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1"),
        *(
            (
                EXAMPLE,
                "flwr run examples/quickstart --stream --federation-config "
                '"num-supernodes=10 client-resources-num-cpus=1" --run-config '
                f"\"strategy='{name}' num-rounds={rounds} out='/tmp/{name}.json'\"",
            )
            for name, rounds in (("async", 40), ("fedavg", 20))
        ),
    ],
    "examples/logged/README.md": [
        (
            EXAMPLE,
            "flwr run examples/logged --stream --federation-config "
            '"num-supernodes=10 client-resources-num-cpus=1" --run-config '
            "\"num-rounds=40 log-dir='/tmp/logs'\"",
        ),
        (EXAMPLE, "tensorboard --logdir /tmp/logs"),
    ],
    "examples/private/README.md": [
        (
            EXAMPLE,
            "flwr run examples/private --stream --federation-config "
            '"num-supernodes=10 client-resources-num-cpus=1" --run-config '
            '"num-rounds=40 epsilon=30.0"',
        ),
    ],
    "examples/cartpole/README.md": [
        (NETWORK, "pip install fauno-flwr"),
        (SLOW, "fauno simulate --conf cartpole --out results/cartpole"),
        (
            SLOW,
            "fauno simulate --conf cartpole federation.share=critic --out results/critic-only",
        ),
        (SLOW, "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1"),
        (
            SLOW,
            "flwr run . --stream --run-config "
            '\'conf="cartpole" env-id="CartPole-v1" out="/tmp/cartpole"\' '
            '--federation-config "num-supernodes=4 client-resources-num-cpus=1"',
        ),
        (SLOW, "fauno deploy local --conf cartpole --out results/cartpole-deployed"),
    ],
    "examples/reuse/README.md": [
        (NETWORK, "pip install fauno-strategies 'flwr[simulation]' torch"),
        (SLOW, "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1"),
        *(
            (
                SLOW,
                "flwr run examples/reuse --stream --federation-config "
                '"num-supernodes=10 client-resources-num-cpus=1 init-args-num-cpus=6" '
                f"--run-config \"strategy='{name}' out='/tmp/{name}.json'\"",
            )
            for name in ("async", "fedavg")
        ),
        (SERVER, "flower-superlink --insecure --disable-runtime-dependency-installation"),
        *(
            (
                SERVER,
                f"flower-supernode --insecure --superlink 127.0.0.1:8000 --port {9100 + i} "
                f'--node-config "partition-id={i} num-partitions=2"',
            )
            for i in (0, 1)
        ),
        (SLOW, "flwr run examples/reuse site --stream"),
    ],
    "examples/search/README.md": [
        (NETWORK, "pip install 'fauno-flwr[search]'"),
        (SEARCH, "python examples/search/search.py results/search 30"),
        (
            SEARCH,
            "python examples/search/search.py results/search 30 workload.rate=4 "
            "federation.versions=60",
        ),
        (
            SLOW,
            "fauno train --seeds 5 agent.learning_rate=0.003 agent.gamma=0.9 --out results/chosen",
        ),
    ],
}
# What the slow commands of a page take for granted, as shell commands.
BEFORE = {
    "CONTRIBUTING.md": "git init --quiet",
    "docs/learners.md": "fauno train federation.versions=4 --out results/cosim",
    "examples/reuse/README.md": """flwr config list  # makes the file
cat >> $FLWR_HOME/config.toml <<'TOML'
[superlink.site]
address = "127.0.0.1:8000"
insecure = true
TOML""",
    "docs/peersimgym.md": """cat > net.json <<'JSON'
{"nodes": {
    "rpi": {"id": 0, "coordinates": [0, 0], "capacity": {"cpu_milis": 9600, "memory": 6.4e9}},
    "nuc": {"id": 1, "coordinates": [1, 1], "capacity": {"cpu_milis": 14800, "memory": 7e10}}},
 "links": {"neighbours": {"0": [1]}}}
JSON
printf 'instructions,size_mb\\n4800000,39\\n24000000,20\\n' > jobs.csv""",
    # "it must be installed wherever a node or the server runs"
    "docs/bring_your_own.md": "mv python_0.py my_package.py; export PYTHONPATH=$PWD",
}
# Indented blocks that are no commands start with these: formulas, settings.
NO_PROGRAMS = ("tau_m", "agent=ddqn")

PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "examples/*/README.md")
    for page in ROOT.glob(pattern)
    if page.name != "CHANGELOG.md"
)
SHELLS = ("bash", "console", "shell", "sh")
OTHERS = ("", "python", "bibtex", "diff", "json", "toml", "yaml", "csv", "text")
INDENTED = "indented"
BLOCK = re.compile(
    r"^```(?P<info>.*)\n(?P<fenced>(?:.*\n)*?)```$"
    r"|(?<=\n\n)(?P<indented>(?: {4}.*\n|\n(?= {4}))+)",
    re.MULTILINE,
)
LOOP, HEREDOC = re.compile(r"^(while|for) "), re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True)
class Block:
    """Text of a page that is set as code.

    Parameters
    ----------
    info : str
        What follows the fence, such as ``python title="my_rule.py"``, or ``indented``.
    text : str
    """

    info: str
    text: str

    @property
    def language(self) -> str:
        """Return the first word of `info`."""
        return self.info.partition(" ")[0]

    @property
    def title(self) -> str | None:
        """Return the name of the file that it is."""
        found = re.search(r'title="(.+?)"', self.info)
        return found and found[1]


@dataclass(frozen=True)
class Command:
    """A command of a page: its name in :data:`COMMANDS`, and its text as it stands."""

    name: str
    text: str


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of code of a page, fenced or indented, in order."""
    return [
        Block(INDENTED, re.sub("^ {4}", "", match["indented"], flags=re.MULTILINE))
        if match["indented"]
        else Block(match["info"], match["fenced"])
        for match in BLOCK.finditer(text)
    ]


def read_commands(text: str) -> list[Command]:
    """Return the commands of a page in order."""
    found = []
    for block in read_blocks(text):
        if block.language in SHELLS or (
            block.language == INDENTED and not block.text.startswith(NO_PROGRAMS)
        ):
            found += split_commands(block)
    return found


def split_commands(block: Block) -> list[Command]:
    """Return the commands of a block: lines, with those that continue them."""
    found: list[Command] = []
    pending: list[str] = []
    for line in block.text.splitlines():
        if block.language == "console" and not pending:
            if not line.startswith("$ "):
                continue  # output
            line = line.removeprefix("$ ")
        pending.append(line)
        if is_complete("\n".join(pending)):
            text = "\n".join(pending)
            if name := name_of(text):
                found.append(Command(name, text))
            pending = []
    assert not pending, f"a command does not end: {pending}"
    return found


def is_complete(text: str) -> bool:
    """Return whether a command ends here."""
    lines = text.splitlines()
    if lines and lines[-1].endswith("\\"):
        return False
    if LOOP.match(text):
        return lines[-1] == "done"
    if (heredoc := HEREDOC.search(text)) and lines[-1] != heredoc[1]:
        return False
    try:
        shlex.split("" if heredoc else text, comments=True)
    except ValueError:  # a quotation is open
        return False
    return True


def name_of(text: str) -> str:
    """Return the first line without its comment, continued lines joined; blanks collapsed."""
    line = re.sub(r"\\\n\s*", "", text).partition("\n")[0]
    quote = ""
    for i, character in enumerate(line):
        if character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        elif not quote and character == "#" and (i == 0 or line[i - 1].isspace()):
            line = line[:i]
            break
    return " ".join(line.split())


def read_page(name: str) -> str:
    """Return the text of a page."""
    return (ROOT / name).read_text()
