"""The command ``fauno peersimgym`` in both of its forms."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fauno_flwr.cli.compilation import LINE
from fauno_flwr.cli.main import app

CONFIG = {
    "SIZE": "2",
    "SCALE": "10",
    "CYCLES": "20",
    "CONTROLLERS": "0;1",
    "NO_NODES_PER_LAYERS": "1,1",
    "clientLayers": "0",
    "layersThatGetTasks": "0",
    "MANUAL_CONFIG": "True",
    "MANUAL_FREQS": "9.6e6;1.48e7",
    "MANUAL_CORES": "1;1",
    "MANUAL_QMAX": "20;215",
    "RANDOMIZEPOSITIONS": "False",
    "RANDOMIZETOPOLOGY": "False",
    "init.Net0.POSITIONS": "0,0;100,100",
    "init.Net1.TOPOLOGY": "0,1;1,0",
    "protocol.clt.I": "4800000,24000000",
    "protocol.clt.T": "39,20",
    "protocol.clt.minDeadline": "30",
    "protocol.clt.workloadPath": "trace.json",
    "schedules": "2-20",
}
FORMS = ("config", "files")


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, list[str]]:
    """Arguments of both forms for the same setting."""
    config, net, jobs = (tmp_path / name for name in ("config.json", "net.json", "jobs.csv"))
    config.write_text(json.dumps(CONFIG))
    nodes = {
        name: {"id": i, "coordinates": [i, i], "capacity": {"cpu_milis": speed, "memory": memory}}
        for i, (name, speed, memory) in enumerate([("rpi", 9600, 6.4e9), ("nuc", 14800, 6.88e10)])
    }
    net.write_text(json.dumps({"nodes": nodes, "links": {"neighbours": {"0": [1]}}}))
    jobs.write_text("instructions,size_mb\n4800000,39\n24000000,20\n")
    files = ["--topology", str(net), "--jobs", str(jobs)]
    return {
        "config": [str(config)],
        "files": [*files, "--arrival-rate", "2", "--scale", "10", "--cycles", "20"],
    }


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["peersimgym", *arguments])


@pytest.mark.parametrize("policy", ["lq", "lqrand", "random", "local", "threshold"])
def test_both_forms_print_the_same_object(forms: dict[str, list[str]], policy: str) -> None:
    printed = []
    for form in FORMS:
        done = run(*forms[form], "--policy", policy, "--seed", "3", "--json")
        assert done.exit_code == 0, done.stderr
        assert not done.stderr.replace(f"{LINE}\n", "")  # the first run may compile
        printed.append(json.loads(done.stdout))
        assert printed[-1].pop("seconds") >= 0
    assert printed[0] == printed[1]
    assert set(printed[0]) == {"finished_ratio", "response_ticks", "total", "finished"}
    assert printed[0]["finished_ratio"] == printed[0]["finished"] / printed[0]["total"]
    assert 20 <= printed[0]["total"] <= 60


def test_ticks_are_cycles_times_scale_unless_given(forms: dict[str, list[str]]) -> None:
    for form in FORMS:
        totals = [
            json.loads(run(*forms[form], "--policy", "local", "--json", *more).stdout)["total"]
            for more in ([], ["--ticks", "200"], ["--ticks", "2000"])
        ]
        assert totals[0] == totals[1] < totals[2] / 5


def test_options_of_the_physics_reach_both_forms(forms: dict[str, list[str]]) -> None:
    for form in FORMS:
        found = [
            json.loads(run(*forms[form], "--policy", "local", "--json", *more).stdout)
            for more in ([], ["--divided-frequencies"], ["--queue-order", "fifo"])
        ]
        assert found[1]["finished"] < found[0]["finished"]  # a tenth of the speed


def test_without_json_a_line_is_printed(forms: dict[str, list[str]]) -> None:
    done = run(*forms["config"], "--policy", "lq")
    assert "tasks finished" in done.stdout
    assert done.stdout.count("\n") == 1


def test_keys_without_effect_are_warnings_on_standard_error(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(CONFIG | {"SIZ": "3"}))
    done = run(str(path), "--policy", "lq", "--json")
    assert json.loads(done.stdout)["total"] > 0
    assert done.stderr.endswith("keys without effect: SIZ\n")


@pytest.mark.parametrize(
    ("form", "more", "sentence"),
    [
        ("config", ["--jobs", "x.csv"], "both a configuration and --jobs"),
        ("config", ["--scale", "5"], "both a configuration and --scale"),
        ("none", [], "--topology and --jobs missing"),
        ("none", ["--topology", "x.json"], "--jobs missing"),
        ("none", ["nowhere.json"], "cannot be read"),
        ("none", ["--topology", "nowhere.json", "--jobs", "nowhere.csv"], "cannot be read"),
        ("config", ["--policy", "best"], "policy is 'best'"),
        ("config", ["--ticks", "0"], "ticks is 0"),
        ("config", ["--seed", "-1"], "seed is -1"),
        ("config", ["--queue-order", "random"], "queue_order is 'random'"),
        ("files", ["--scale", "0"], "scale is 0"),
        ("files", ["--cycles", "-5"], "ticks is -50"),
        ("files", ["--arrival-rate", "nan"], "rate is nan"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    forms: dict[str, list[str]], form: str, more: list[str], sentence: str
) -> None:
    done = run(*forms.get(form, []), "--policy", "lq", "--json", *more)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("fauno: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_cut_file_is_refused(forms: dict[str, list[str]], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG)[:200])
    (tmp_path / "jobs.csv").write_text("instructions,size_mb\n4800000,39\n240")
    for form, sentence in (("config", "is not JSON"), ("files", "line 3 has 1 cells: must have 2")):
        done = run(*forms[form], "--policy", "lq")
        assert done.exit_code == 2
        assert sentence in done.stderr
