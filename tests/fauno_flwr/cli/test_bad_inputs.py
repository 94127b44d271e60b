"""Bad input of every command: one sentence, exit code 2, before anything long begins.

A case is a command line and a part of the sentence. Add one where a command or a setting is added.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.compilation import LINE
from fauno_flwr.cli.main import COMMANDS, app

FAUNO = str(Path(sys.executable).with_name("fauno"))
BUILDING = ("compare", "train", "simulate", "world serve", "deploy local")  # compile the network
LOADING = (*BUILDING, "config")

# Overrides that cannot be, by what refuses them: loading the settings, or building the network.
# Command after command takes one of each list.
LOADED = [
    ("workload.rate=-1", "workload.rate is -1.0: must be a finite number above 0"),
    ("workload.rate=nan", "workload.rate is nan"),
    ("workload.rate=inf", "workload.rate is inf"),
    ("workload.rate=1e99", "at most 100000"),
    ("workload.rate=fast", "workload.rate is 'fast': must be a number"),
    ("workload.rate=[1]", "workload.rate is [1]: must be a number"),
    ("workload.rate={a: 1}", "workload.rate is {'a': 1}: must be a number"),
    ("workload.rate=null", "workload.rate is None: must be a number"),
    ("workload.rate=", "workload.rate is None: must be a number"),
    ("workload.rate", "must be of the form key=value"),
    ("workload.rate=[1", "override 'workload.rate=[1' cannot be read"),
    ("workload.rate=???", "workload.rate is '???': must be a number"),
    ("workload.rate=${x}", "workload.rate has no value"),
    ("workload.rat=1", "did you mean workload.rate?"),
    ("wrkload.rate=1", "key is 'wrkload'"),
    ("=1", "must be of the form key=value"),
    ("", "must be of the form key=value"),
    (".=1", "key is"),
    ("a..b=1", "key is"),
    ("workload=", "workload is"),
    ("workload=5", "workload is 5: must be a name or a mapping"),
    ("workload=[1]", "workload is [1]: must be a name or a mapping"),
    ("workload=alibabba", "did you mean alibaba?"),
    ("workload=null", "workload is None: must be a name or a mapping"),
    ("workload.jobs=alibabba", "did you mean alibaba?"),
    ("workload.jobs=file", "workload.path is ''"),
    ("workload.jobs=types", "workload.types is []"),
    ("workload.path=/x.csv", "has no effect with workload.jobs=alibaba"),
    ("workload.types=3", "workload.types is 3: must be of the form"),
    ("workload={jobs: types, types: [{weight: -1}]}", "weight of a task type is -1.0"),
    ("workload.types=[{wait: 1}]", "workload.types is [{'wait': 1}]: must be of the form"),
    ("workload.source_rates=3", "workload.source_rates is 3: must be of the form"),
    ("workload.source_rates={rpi: -1}", "workload.source_rates.rpi is -1.0"),
    ("workload.deadline_factors=3", "workload.deadline_factors is 3: must be of the form"),
    ("workload.deadline_factors={rpi: 0}", "workload.deadline_factors.rpi is 0.0"),
    ("workload.schedule=linear", "workload.schedule is 'linear': must be a mapping of kind"),
    ("workload.schedule.kind=lineal", "did you mean linear?"),
    ("workload.schedule.low=2", "has no effect with workload.schedule.kind=constant"),
    ("workload.schedule.steps=[1]", "workload.schedule.steps is [1]: must be of the form"),
    ("workload.deadline_min=99", "workload.deadline_max is 60.0"),
    ("workload.work_scale=0", "workload.work_scale is 0.0"),
    ("topology=ether9", "topology is 'ether9': must be one of"),
    ("topology.kind=eter", "did you mean ether?"),
    ("topology.kind=file", "topology.path is ''"),
    ("topology.nodes=30", "topology.nodes is 30: has no effect with topology.kind=ether"),
    ("topology.nodes=3.5", "topology.nodes is 3.5: must be a whole number"),
    ("topology.nodes=true", "topology.nodes is True: must be a whole number"),
    ("topology.path=net.json", "has no effect with topology.kind=ether"),
    ("topology.clusters=0", "topology.clusters is 0: must be a whole number at least 1"),
    ("topology.memory_per_task=0", "topology.memory_per_task is 0.0"),
    ("topology.seed=-1", "topology.seed is -1"),
    ("physics.link=wired", "physics.link is 'wired': must be one of wireless, fixed"),
    ("physics.rate=1e9", "has no effect with physics.link=wireless"),
    ("physics.tick=0", "physics.tick is 0.0"),
    ("physics.hop_cap=-1", "physics.hop_cap is -1"),
    ("physics.quirks=3", "physics.quirks is 3: must be a mapping of queue_order"),
    ("physics.quirks.queue_order=filo", "physics.quirks.queue_order is 'filo'"),
    ("physics.cancel_in_service=maybe", "physics.cancel_in_service is 'maybe': must be true or"),
    ("reward.kind=dely", "did you mean delay?"),
    ("reward.scale=0", "reward.scale is 0.0"),
    ("reward.queue_cap=2", "has no effect with reward.kind=delay"),
    ("observation=ful", "did you mean full?"),
    ("observation=3", "observation is 3: must be text"),
    ("dynamics.nodes=3", "dynamics.nodes is 3: must be of the form"),
    ("dynamics.nodes={rpi_3: [{down: 5, up: 1}]}", "dynamics.nodes.rpi_3: up is 1.0"),
    ("dynamics.node_mttr=5", "has no effect with dynamics.node_mttf=0.0"),
    ("evaluation.worlds=0", "evaluation.worlds is 0"),
    ("evaluation.window=0", "evaluation.window is 0"),
    ("evaluation.seed=-1", "evaluation.seed is -1"),
    ("evaluation.policies=[best]", "evaluation.policies is 'best': must be one of"),
    ("evaluation.policies=sed", "evaluation.policies is 'sed': must be of the form [sed,"),
    ("evaluation.policies=[lq,lq]", "evaluation.policies has 'lq' twice"),
    ("evaluation.policies=[3]", "evaluation.policies is '3': must be one of"),
    ("evaluation.greedy=2", "evaluation.greedy is 2: must be true or false"),
    ("seed=-1", "seed is -1"),
    ("seed=abc", "seed is 'abc': must be a whole number"),
    ("seed=99999999999999999999", "seed is 99999999999999999999"),
    ("seed=[1,2]", "seed is [1, 2]: must be a whole number"),
    ("agent.hidden=abc", "agent.hidden is 'abc': must be a whole number"),
    ("agent.hidden=0", "agent.hidden is 0"),
    ("agent.gamma=1.5", "agent.gamma is 1.5"),
    ("agent.algorithm=ppoo", "did you mean ppo?"),
    ("agent.algorithm=os.path:join", "must have a class attribute Config"),
    ("agent.algorithm=no_module:X", "cannot be imported"),
    ("agent.network=cnn", "agent.network is 'cnn'"),
    ("agent.replay=100", "key is 'agent.replay'"),
    ("agent=pppo", "agent is 'pppo': must be one of"),
    ("training.ticks=0", "training.ticks is 0"),
    ("training.ticks=1000000000", "training.ticks is 1000000000"),
    ("training.worlds=x", "training.worlds is 'x': must be a whole number"),
    ("training.peers=best", "training.peers is 'best'"),
    ("world.kind=mine", "world.kind is 'mine': must be one of own, shared, gym"),
    ("world.env_id=CartPole-v1", "has no effect with world.kind="),
    ("world.keep=0", "world.keep is 0"),
    ("world={kind: shared, address: nowhere}", "world.address is 'nowhere': must be HOST:PORT"),
    ("federation.buffer_size=2.5", "federation.buffer_size is 2.5"),
    ("federation.buffer_size=0", "federation.buffer_size is 0"),
    ("federation.buffer_size=all", "federation.buffer_size is 'all'"),
    ("federation.share=critics", "did you mean critic?"),
    ("federation.refill=never", "federation.refill is 'never'"),
    ("federation.versions=0", "federation.versions is 0"),
    ("federation.timeout=0", "federation.timeout is 0.0"),
    ("federation.staleness=hing", "did you mean hinge?"),
    ("federation.staleness={exponent: 1}", "must be a name, or a mapping with a name"),
    ("federation.staleness={name: polynomial, power: 1}", "its parameters: exponent"),
    ("federation.merge={name: trimmed-mean, fraction: 0.7}", "federation.merge.fraction is 0.7"),
    ("federation.server_optimizer=[1]", "federation.server_optimizer is [1]"),
    ("federation.compression=zip", "federation.compression is 'zip': must be one of none"),
    ("federation.max_norm=nan", "federation.max_norm is nan"),
    ("federation.collect_actors=perhaps", "must be true or false"),
    ("cosim.slowdown=rpi_3", "cosim.slowdown is 'rpi_3': must be of the form"),
    ("cosim.slowdown={rpi_3: 0}", "cosim.slowdown.rpi_3 is 0.0"),
]
BUILT = [
    ("topology.kind=full topology.nodes=1000000", "GB that are free"),
    ("topology.kind=file topology.path=none.json", "cannot be read"),
    ("topology.kind=file topology.path=broken.json", "is not JSON"),
    ("topology.kind=file topology.path=list.json", "must be a mapping"),
    ("topology.kind=random topology.radius=1", "it must be connected"),
    ("topology.kind=no_module:build", "cannot be imported"),
    ("topology.kind=os.path:sep", "must be a function"),
    ("workload.jobs=file workload.path=none.csv", "cannot be read"),
    ("workload.jobs=file workload.path=broken.csv", "must be a CSV"),
    ("workload.jobs=file workload.path=.", "cannot be read"),
    ("workload.jobs=no_module:jobs", "cannot be imported"),
    ("workload.source_rates={nuc_77: 1}", "must be for a source of this network"),
    ("workload.source_rates={rpi: 0}", "workload.source_rates are all 0"),
    ("workload.deadline_factors={nuc_0: 2}", "must be for a source of this network"),
    ("reward.loss_factors={nuc_77: 2}", "must be for a node that decides of this network"),
    ("physics.stated_speed_factors={pi: 2}", "must be for a node of this network"),
    ("physics.power=-3000", "a link of node"),
    ("observation=no_module:X", "cannot be imported"),
    ("observation=os.path:sep", "must be an Encoding"),
    ("reward.kind=os.path:sep", "must be a function of an observation"),
    ("dynamics.nodes={rpi_99: [{down: 1}]}", "dynamics.nodes: node is 'rpi_99'"),
    ("dynamics.links={rpi_0/rpi_1: [{down: 1}]}", "must be two linked nodes"),
]
OTHERS = [
    ("compare --conf eter2", "did you mean ether2?"),
    ("compare --conf ''", "conf is ''"),
    ("compare --conf none.yaml", "conf 'none.yaml' cannot be read"),
    ("compare --conf .yaml", "conf '.yaml' cannot be read"),
    ("config --conf broken.yaml", "conf 'broken.yaml' is not YAML"),
    ("config --conf list.yaml", "settings are ['a', 'b']: must be a mapping"),
    ("config --conf text.yaml", "key is 'hello'"),
    ("config --conf binary.yaml", "conf 'binary.yaml' is not YAML"),
    ("config --conf keys.yaml", "key is 'nonsense'"),
    ("config --show --list", "must be one"),
    ("config --list workload.rate=1", "has no effect with --list"),
    ("config --keys --conf balanced", "--conf balanced' has no effect with --keys"),
    ("config --sho", "--show"),
    ("compare --seeds 0", "0 is not in the range"),
    ("compare --seeds many", "'many' is not a valid integer"),
    ("compare --seeds 100000000", "evaluation.worlds is 100000000"),
    ("compare --policies ''", "policies is '': must be one of"),
    ("compare --policies sed,sed", "policies has 'sed' twice"),
    ("compare --policies sed,,lq", "policies is ''"),
    ("compare --policies no_module:X", "cannot be imported"),
    ("compare --policies json:dumps --seeds 1", "json:dumps"),
    ("compare evaluation.policies=[]", "evaluation.policies is []"),
    ("compare evaluation.worlds=100000000", "GB that are free"),
    ("compare evaluation.window=99999999999", "window is 99999999999: must be"),
    ("compare seed=2", "seed is 2: has no effect in fauno compare"),
    ("compare training.worlds=2", "has no effect in fauno compare"),
    ("compare world=gym", "world.kind"),
    ("compare --out /proc/x", "cannot be written"),
    ("compare --out full", "is not empty"),
    ("compare --out broken.json", "cannot be written"),
    ("compare --sedes 3", "--seeds"),
    ("compar", "compare"),
    ("train --out /proc/x", "cannot be written"),
    ("train agent.hidden=100000", "agent.hidden is 100000: training needs about"),
    ("train training.ticks=100000000", "GB that are free"),
    ("train training.worlds=10000000", "training.worlds is 10000000"),
    ("train federation.checkpoints=/proc/x", "federation.checkpoints is '/proc/x'"),
    ("train federation.checkpoints=broken.json/x", "federation.checkpoints is"),
    ("train federation.start=nowhere", "must be a file, as checkpoints/critic.safetensors"),
    ("train federation.start=broken.json", "cannot be read"),
    ("train world=shared world.address=127.0.0.1:9", "must be own here"),
    ("train world=gym", "must be own here"),
    ("train cosim.server=nuc_9", "cosim: node is 'nuc_9'"),
    ("train 'cosim.slowdown={rpi_99: 2}'", "cosim: node is 'rpi_99'"),
    ("train training.peers=lq", "has no effect in fauno train"),
    ("train federation.buffer_size=20", "must be at most 19"),
    ("train agent=ddqn federation.share=critic", "must be model or nothing"),
    ("train evaluation.worlds=100000000", "evaluation.worlds is 100000000"),
    ("simulate --workers 0", "0 is not in the range"),
    ("simulate --out /proc/x", "cannot be written"),
    ("simulate evaluation.worlds=100000000", "evaluation.worlds is 100000000"),
    ("simulate agent.hidden=10000000", "agent.hidden is 10000000"),
    ("simulate federation.checkpoints=/proc/x", "federation.checkpoints is '/proc/x'"),
    ("simulate world=gym", "world.env_id is ''"),
    ("simulate world=gym world.env_id=None-v9", "cannot be made"),
    ("simulate world=gym world.env_id=CartPole-v1 workload.rate=1", "has no effect with"),
    ("simulate world=gym world.env_id=CartPole-v1 world.nodes=99999", "at most 10000"),
    ("simulate world=shared", "world.address is ''"),
    ("simulate cosim.server=nuc_0", "has no effect in fauno simulate"),
    ("evaluate", "Missing argument"),
    ("evaluate nowhere", "holds no config.yaml: must be the folder of a run"),
    ("evaluate empty", "holds no config.yaml: must be the folder of a run"),
    ("evaluate run", "holds no actors"),
    ("evaluate run topology=ether9", "holds no actors"),
    ("evaluate run workload.rate=-1", "holds no actors"),
    ("experiment", "Missing"),
    ("experiment baselin --out x", "did you mean baseline?"),
    ("experiment os.path:sep --out x", "must be an Experiment"),
    ("experiment baseline", "Missing option '--out'"),
    ("experiment baseline --out x --seeds 0", "0 is not in the range"),
    ("experiment baseline --out x --methods fauno,best", "best"),
    ("experiment baseline --out x --heuristics best", "best"),
    ("peersimgym", "--topology and --jobs missing"),
    ("peersimgym none.json --policy lq", "none.json"),
    ("peersimgym broken.json --policy lq", "broken.json"),
    ("peersimgym --topology none.json --jobs none.csv --policy lq", "none.json"),
    ("peersimgym --topology broken.json --policy lq", "--jobs missing"),
    ("peersimgym list.json --jobs none.csv --policy lq", "both a configuration and --jobs"),
    ("peersimgym list.json --policy best", "best"),
    ("peersimgym list.json --ticks x", "'x' is not a valid integer"),
    ("report", "Missing argument"),
    ("report nowhere", "nowhere"),
    ("report empty", "empty"),
    ("report broken.json", "broken.json"),
    ("report run run", "must be given once"),
    ("report run --out nowhere/report.html", "must be a file in a folder that exists"),
    ("status", "Missing argument"),
    ("status nowhere", "nowhere"),
    ("status empty", "empty"),
    ("status broken.json", "broken.json"),
    ("metrics", "Missing argument"),
    ("metrics nowhere", "nowhere"),
    ("metrics run --port 99999999", "99999999 is not in the range"),
    ("metrics run --port 8080 --host no.such.host.invalid", "no.such.host.invalid"),
    ("prepare --al", "--all"),
    ("prepare now", "now"),
    ("deploy", ""),
    ("deploy lokal", "local"),
    ("deploy local --nodes 1", "1 is not in the range"),
    ("deploy local --auth", "--tls"),
    ("deploy local --nodes 3 topology=ether1", "topology.nodes is 3: has no effect"),
    ("deploy local --out /proc/x", "cannot be written"),
    ("deploy local federation.checkpoints=/proc/x", "federation.checkpoints is '/proc/x'"),
    ("deploy local agent.hidden=10000000", "agent.hidden is 10000000"),
    ("deploy local cosim.server=nuc_0", "has no effect in fauno deploy local"),
    ("deploy certificates", "Missing"),
    ("deploy certificates localhost", "Missing option '--out'"),
    ("deploy certificates '' --out tls", "hosts has ''"),
    ("deploy certificates 'a b' --out tls", "'a b'"),
    ("deploy certificates localhost --out /proc/x", "/proc/x"),
    ("deploy certificates localhost --out tls --days 0", "0 is not in the range"),
    ("deploy key", "Missing argument"),
    ("deploy key /proc/x/key", "'/proc/x' cannot be made"),
    ("deploy key broken.json", "broken.json"),
    ("deploy worker 127.0.0.1 --secret-file broken.json", "must be HOST:PORT"),
    ("deploy worker 127.0.0.1:99999 --secret-file broken.json", "must be HOST:PORT"),
    ("deploy worker 127.0.0.1:9 --secret-file none", "must be a file"),
    ("deploy worker 127.0.0.1:9", "Missing option '--secret-file'"),
    ("world", ""),
    ("world serve --port 70000", "70000 is not in the range"),
    ("world serve --pace -1", "-1.0 is not in the range"),
    ("world serve --pace fast", "'fast' is not a valid float"),
    ("world serve --secret-file none", "none"),
    ("world serve --certificates none", "none"),
    ("world serve --host 300.1.2.3", "300.1.2.3"),
    ("world serve --out full", "out is"),
    ("world serve --out /proc/x/y", "out is"),
    ("world status", "Missing argument"),
    ("world status nowhere", "must be HOST:PORT"),
    ("world status 127.0.0.1:0", "must be HOST:PORT"),
    ("world status 127.0.0.1:9 --secret-file none", "none"),
    ("world token 0 --secret-file none", "none"),
    ("world token 9999999999 --secret-file none", "9999999999"),
    ("world status 127.0.0.1:9 --ca none", "none"),
    ("topology", ""),
    ("topology show", "Missing argument 'NAME|FILE'"),
    ("topology show none.json", "none.json' cannot be read (No such file"),
    ("topology show broken.json", "broken.json"),
    ("topology show list.json", "list.json"),
    ("topology show ether9", "did you mean ether4?"),
    ("topology show ether2 --out x.bmp", "must end in .json, .png, .svg, .pdf"),
    ("topology show ether2 topology.nodes=3", "has no effect"),
    ("topology from-graphml none.graphml", "must be a GraphML file"),
    ("topology from-graphml broken.csv", "broken.csv"),
    ("topology from-edges none.csv", "must be a CSV file"),
    ("topology from-edges broken.json", "must be two names"),
    ("topology schema x", "unexpected extra argument (x)"),
    ("export none --out new", "none"),
    ("export run --out new", "holds no actors"),
    ("export run", "out is missing: must be a new folder"),
    ("export --out new", "needs the folder of a run, or --state-dir of a node"),
    ("export --state-dir none --out new", "none"),
    ("train --seeds 0", "must be a number from 1 to 1000"),
    ("train --seeds 1,1", "must be different seeds"),
    ("train --seeds many", "must be a number of seeds (5), or seeds (1,2,3)"),
    ("train evaluation.every=-1", "evaluation.every is -1"),
    ("train workload.sources=none.csv", "none.csv"),
    ("evaluate run --best", "best"),
    ("replay none", "holds no config.yaml"),
    ("replay --policies fauno", "fauno needs the folder of a run"),
    ("replay --out x.pdf", "must end in .html or .gif"),
]
HELP = {"deploy", "topology", "world"}  # a group alone shows its help


def spread(cases: list[tuple[str, str]], commands: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the cases, each with the next command that reads its settings."""
    ignored = {"compare": ("seed", "agent", "training", "world", "federation", "cosim")}
    turn = 0
    for overrides, sentence in cases:
        group = overrides.partition("=")[0].partition(".")[0]
        while group in ignored.get(commands[turn % len(commands)], ()):
            turn += 1
        quoted = " ".join(
            map(
                shlex.quote,
                overrides.split(" ")
                if " topology" in overrides or " workload" in overrides
                else [overrides],
            )
        )
        yield f"{commands[turn % len(commands)]} {quoted}", sentence
        turn += 1


CASES = [*spread(LOADED, LOADING), *spread(BUILT, BUILDING), *OTHERS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files that are none, and a run without actors."""
    made = tmp_path_factory.mktemp("bad")
    (made / "broken.json").write_text("{")
    (made / "list.json").write_text("[1]")
    (made / "broken.csv").write_text("a;b\n")
    (made / "broken.yaml").write_text("a: [1\nb: }\n")
    (made / "list.yaml").write_text("[a, b]\n")
    (made / "text.yaml").write_text("hello\n")
    (made / "keys.yaml").write_text("nonsense: 1\n")
    (made / "binary.yaml").write_bytes(bytes(range(256)))
    for name in ("empty", "full", "run"):
        (made / name).mkdir()
    (made / "full" / "kept").write_text("kept")
    (made / "run" / "config.yaml").write_text("seed: 1\n")
    (made / "run" / "events.jsonl").touch()
    return made


@pytest.fixture
def nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a command begins its work."""

    def begin(*_: object, **__: object) -> None:
        raise AssertionError("the command began")

    for work in (
        "fauno_flwr.federation.run.Run.execute",
        "fauno_flwr.deployment.engine.Engine.__enter__",
        "fauno_flwr.deployment.local.Deployment.__enter__",
        "fauno_flwr.experiments.runner.compute",
        "fauno_flwr.learning.kernels.compile_kernels",
        "os.execv",
    ):
        monkeypatch.setattr(work, begin)


def require_sentence(code: int, stdout: str, stderr: str, sentence: str) -> None:
    assert code == 2, (stdout, stderr)
    stderr = stderr.replace(f"{LINE}\n", "")  # the first run may compile
    assert "Traceback" not in stderr
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("fauno: ")
    assert len(stderr) < 600, stderr
    assert sentence in stderr
    assert not stdout.strip() or "results in" in stdout, stdout


def test_there_are_200_bad_inputs_for_all_commands() -> None:
    assert len(CASES) >= 200
    assert len(set(CASES)) == len(CASES)
    names = [
        " ".join(filter(None, [group.info.name or "", function.__name__]))
        for group, functions in COMMANDS.items()
        for function in functions
    ]
    for name in names:
        short = name.replace("None ", "").replace("_", "-")
        assert any(f" {case} ".find(f"{short} ") >= 0 for case, _ in CASES), short


@pytest.mark.usefixtures("nothing_begins")
@pytest.mark.parametrize(("line", "sentence"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_is_one_sentence(
    line: str, sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    done = CliRunner().invoke(app, shlex.split(line))
    if line in HELP:
        assert done.exit_code == 2
        return
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    require_sentence(done.exit_code, done.stdout, done.stderr, sentence)
    assert (folder / "full" / "kept").read_text() == "kept"
    assert set(before) <= set(folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize(("line", "sentence"), CASES)
def test_a_process_says_so_within_three_seconds(line: str, sentence: str, folder: Path) -> None:
    """On an idle machine; kernels are not compiled before settings are checked."""
    if line in HELP:
        return
    started = time.monotonic()
    done = subprocess.run(
        [FAUNO, *shlex.split(line)], capture_output=True, text=True, check=False, cwd=folder
    )
    require_sentence(done.returncode, done.stdout, done.stderr, sentence)
    assert time.monotonic() - started < 3
