"""Whole reports: what they say, of which folders, and that they need nothing but their file."""

import json
import re
import shutil
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.cli.report import report_at_end
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.directory import read_lines
from fauno_flwr.results.html import report
from fauno_flwr.results.html.experiment import experiment_page, mean_curve, read_curves
from fauno_flwr.results.html.files import changed_settings, read_run
from fauno_flwr.results.html.folders import kind_of
from fauno_flwr.results.html.notices import notices
from fauno_flwr.results.html.report import run_page, runs_page, seeds_page, write_report
from fauno_flwr.results.html.several import paired
from fauno_flwr.results.html.summary import comparison
from fauno_flwr.results.report import plus_minus
from tests.paths import ROOT

HOSTILE = "</script><img src=x onerror=alert(1)>"
SECTIONS = ["summary", "learning", "federation", "replay", "flow"]


class Reader(HTMLParser):
    """The text of a page, its sections, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.sections: list[str] = []
        self.unnamed: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        named = dict(attrs)
        self.loads += [str(named[key]) for key in ("src", "srcset", "data") if key in named]
        if tag == "link":
            self.loads.append(str(named))
        if tag == "a":
            self.links.append(str(named["href"]))
        if tag == "section" and "id" in named:
            self.sections.append(str(named["id"]))
        if tag in ("figure", "canvas", "table") and not named.get("aria-label"):
            self.unnamed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data + "\n"


def copied(folder: Path, path: Path, **changed: Any) -> Path:
    """Copy a run, with other lines of its events or other settings."""
    shutil.copytree(folder, path)
    if "events" in changed:
        lines = "".join(json.dumps(event) + "\n" for event in changed["events"])
        (path / "events.jsonl").write_text(lines)
    for old, new in changed.get("settings", {}).items():
        text = (path / "config.yaml").read_text()
        assert old in text
        (path / "config.yaml").write_text(text.replace(old, new))
    return path


def without_ids(page: str) -> str:
    """Return a page without the ids that Bokeh counts up or draws."""
    uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return re.sub(rf"{uuid}|\bp\d{{4,}}\b", "id", page)


def test_a_run_is_shown_with_its_numbers_and_loads_nothing(folder: Path) -> None:
    page = Reader(run_page(folder))
    assert page.sections == SECTIONS
    assert page.loads == []
    assert all(link.startswith("#") for link in page.links)
    assert set(page.unnamed) <= {"table"}  # the counters of the player
    summary = json.loads((folder / "summary.json").read_text())
    for row in summary["table"]:
        assert plus_minus(row["finished_ratio"], 100) in page.text
    assert "federation.versions" in page.text
    assert summary["software"]["torch"] in page.text


def test_the_folder_may_be_moved(folder: Path, tmp_path: Path) -> None:
    moved = copied(folder, tmp_path / "elsewhere" / folder.name)
    (moved / "process.json").unlink()
    shutil.rmtree(moved / "checkpoints")
    shutil.rmtree(moved / "figures")
    assert without_ids(run_page(moved)) == without_ids(run_page(folder))


def test_a_run_that_failed_half_way_is_shown_as_far_as_it_got(folder: Path, tmp_path: Path) -> None:
    events = read_lines(folder / "events.jsonl")
    half = [event for event in events if event["event"] != "end"][: len(events) // 2]
    half.append({"event": "end", "state": "failed", "reason": HOSTILE})
    failed = copied(folder, tmp_path / "failed", events=half)
    for name in ("summary.json", "replay.npz", "metrics.jsonl"):
        (failed / name).unlink()
    text = run_page(failed)
    page = Reader(text)
    assert page.sections == ["summary", "learning", "federation"]
    assert "The run has not finished: failed" in page.text
    assert "of 4 versions were made." in page.text
    assert "There is no evaluation" in page.text
    assert HOSTILE not in text
    assert HOSTILE in page.text


def test_a_run_that_did_nothing_has_a_summary(folder: Path, tmp_path: Path) -> None:
    empty = copied(folder, tmp_path / "empty", events=[])
    for name in ("summary.json", "replay.npz", "metrics.jsonl"):
        (empty / name).unlink()
    assert Reader(run_page(empty)).sections == ["summary"]


def test_a_damaged_replay_is_a_warning(folder: Path, tmp_path: Path) -> None:
    damaged = copied(folder, tmp_path / "damaged")
    (damaged / "replay.npz").write_bytes(b"nothing")
    page = Reader(run_page(damaged))
    assert page.sections == ["summary", "learning", "federation"]
    assert "There is no replay: " in page.text


def test_who_was_rejected_and_why_is_at_the_top_and_in_a_table(
    folder: Path, tmp_path: Path
) -> None:
    events = read_lines(folder / "events.jsonl")
    name = next(event["name"] for event in events if event["event"] == "reply")
    changed = []
    for event in events:
        if event["event"] == "reply" and event["name"] == name:
            kept = {key: event[key] for key in ("t", "node", "name", "message", "version", "kind")}
            event = {"event": "reject", "check": "finite", "reason": HOSTILE, **kept}
        changed.append(event)
    changed.insert(-1, {"event": "ban", "name": name, "node": 1, "offences": 5, "reason": "bad"})
    changed.insert(-1, {"event": "refused", "node": 7, "reason": "another critic"})
    settings = {"buffer_size: 0.5": "buffer_size: 9.0"}
    bad = copied(folder, tmp_path / "bad", events=changed, settings=settings)
    found = notices(read_run(bad))
    assert f"Never answered with an update: {name}." in found
    assert "K is 9, larger than the 6 nodes that took part." in found
    assert any(text.endswith("without an accepted update: finite.") for text in found)
    assert f"{name} was banned after 5 offences: bad" in found
    assert "1 node not let in: another critic" in found
    text = run_page(bad)
    assert HOSTILE not in text
    assert "x finite" in Reader(text).text


def test_a_complete_run_has_no_warnings(folder: Path) -> None:
    run = read_run(folder)
    assert notices(run) == []
    (key, value, default), *_ = changed_settings(run.settings)
    assert (key, value, default) == ("topology.clusters", 1, 2)


def test_versions_of_fewer_updates_than_k_are_named(folder: Path, tmp_path: Path) -> None:
    events = read_lines(folder / "events.jsonl")
    settings = {"buffer_size: 0.5": "buffer_size: 5.0"}
    small = copied(folder, tmp_path / "small", events=events, settings=settings)
    assert "4 versions of fewer than K = 5 updates." in notices(read_run(small))


def test_a_node_that_never_took_part_is_named(folder: Path, tmp_path: Path) -> None:
    run = copied(folder, tmp_path / "absent")
    summary = json.loads((run / "summary.json").read_text())
    summary["learning_nodes"].append("tx2_9")
    (run / "summary.json").write_text(json.dumps(summary))
    assert notices(read_run(run)) == ["Never took part: tx2_9."]


def test_runs_are_paired_where_their_worlds_are_the_same(folder: Path, tmp_path: Path) -> None:
    twin = copied(folder, tmp_path / "twin", settings={"gamma: 0.9": "gamma: 0.5"})
    other = copied(folder, tmp_path / "other", settings={"rate: 8.0": "rate: 4.0"})
    a, b, c = map(read_run, (folder, twin, other))
    assert {key: (each.mean, each.low, each.high) for key, each in paired(a, b).items()} == {
        "finished_ratio": (0, 0, 0),
        "response_mean": (0, 0, 0),
    }
    assert paired(a, c) == {}
    page = Reader(runs_page([folder, twin, other], tmp_path / "report.html"))
    assert page.sections == ["summary", "learning"]
    assert "agent.gamma" in page.text
    assert "workload.rate" in page.text
    assert "Runs whose worlds differ are not paired." in page.text


def test_several_seeds_are_shown_together_and_linked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    for seed in (2, 10):
        copied(folder, out / f"seed-{seed}")
    copied(folder, out / "seed-3.unfinished-1")
    write_report([out / "seed-2"])
    page = Reader(seeds_page(out, out / "report.html"))
    assert "Not all seeds have finished" in page.text
    assert "seed-2, seed-10." in page.text
    assert "seed-2/report.html" in page.links
    table = json.loads((folder / "summary.json").read_text())["table"]
    summary = {"seeds": [2, 10], "rho": 0.4, "table": table}
    (out / "summary.json").write_text(json.dumps(summary))
    page = Reader(seeds_page(out, out / "report.html"))
    assert "Not all seeds" not in page.text
    assert "over seeds and worlds" in page.text


def test_an_experiment_is_shown_with_its_cells(tmp_path: Path) -> None:
    out = tmp_path / "buffer"
    shutil.copytree(ROOT / "docs" / "results" / "buffer-quick", out)
    page = Reader(experiment_page(out))
    assert page.sections == ["map", "differences", "cells"]
    with tarfile.open(out / "cells.tar.gz") as cells:
        cells.extractall(out, filter="data")
    assert kind_of(out) == "experiment"
    page = Reader(experiment_page(out))
    assert page.sections == ["map", "differences", "curves", "cells"]
    assert "cells/rate2.half-a0.1.json" in page.links
    summary = json.loads((out / "summary.json").read_text())
    summary["titles"] = {"conditions": {"rate2": "two a second"}, "policies": {"half-a0": "Half"}}
    (out / "summary.json").write_text(json.dumps(summary))
    for path in (out / "cells").glob("*.json"):
        path.write_text(path.read_text().replace('"key": "rate2.', '"key": "rate2.5.'))
    assert list(read_curves(out)) == ["rate2.5"]
    page = Reader(experiment_page(out))
    assert {"two a second", "Half", "LeastQueue"} <= set(page.text.split("\n"))
    assert page.loads == []
    assert page.unnamed == []


def test_a_table_without_losses_and_intervals_has_its_charts(folder: Path) -> None:
    rows = json.loads((folder / "summary.json").read_text())["table"]
    for row in rows:
        row["lost"] = dict.fromkeys(row["lost"], 0.0)
        row["response_p95"] = None
        for key in ("finished_ratio", "response_mean"):
            row[key] = {"mean": row[key]["mean"], "low": None, "high": None}
    charts, numbers, differences = comparison(rows, 0.4)
    assert [chart.plot.renderers != [] for chart in charts] == [True] * 3
    assert charts[0].note == "a single world, hence no intervals"
    assert "± -" in numbers
    assert "minus" not in differences


def test_curves_of_seeds_are_averaged_where_all_have_points() -> None:
    runs = [
        {"seconds": [0.0, 10.0], "finished": [0.0, 1.0]},
        {"seconds": [0.0, 5.0, 20.0], "finished": [1.0, None, 1.0]},
    ]
    seconds, middle, low, high = mean_curve(runs)
    assert (seconds[0], seconds[-1]) == (0, 10)
    assert (middle[0], low[0], high[0]) == (50, 0, 100)
    assert middle[-1] == pytest.approx(100)


def invoke(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_writes_one_file(folder: Path, tmp_path: Path) -> None:
    run = copied(folder, tmp_path / "run")
    assert invoke(run)[0] == 0
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert invoke(run, folder, "--out", tmp_path / "both.html")[0] == 0
    assert "2 runs: " in (tmp_path / "both.html").read_text()


def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    code, text = invoke(tmp_path)
    assert code == 2
    assert "must be a folder with the results of fauno simulate" in text
    assert text.count("\n") == 1
    assert "must be given once" in invoke(folder, folder)[1]
    out = tmp_path / "missing" / "report.html"
    assert "must be a file in a folder that exists" in invoke(folder, "--out", out)[1]
    assert "cannot be written (Is a directory)" in invoke(folder, "--out", tmp_path)[1]
    broken = copied(folder, tmp_path / "broken")
    (broken / "summary.json").write_text("{")
    assert "must be JSON" in invoke(broken)[1]
    (broken / "summary.json").unlink()
    (broken / "metrics.jsonl").write_text("{\n")
    assert "cannot be read" in invoke(broken)[1]
    (tmp_path / "seeds").mkdir()
    copied(folder, tmp_path / "seeds" / "seed-1")
    with pytest.raises(ConfigError, match="must be a single run beside others"):
        write_report([folder, tmp_path / "seeds"])


def test_a_report_that_cannot_be_made_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folders: list[Path]) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(report, "write_report", fail)
    report_at_end(folder, True)
    report_at_end(folder, False)
    assert not (folder / "report.html").exists()
