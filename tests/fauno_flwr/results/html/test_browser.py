"""A report in a browser without a network: drawn, usable, with the numbers of the run."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fauno_flwr.results.html.report import runs_page, write_report
from sim_env.replay.files import load_replay

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
PATIENCE = 60  # seconds
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # as without a network
)
SECTIONS = "return document.querySelectorAll('main > section').length"
DRAWN = """
    const plots = [...document.querySelectorAll("figure .plot > *")];
    return plots.length > 0 && plots.every(place => place.childElementCount > 0) &&
      Bokeh.documents.every(doc => doc.is_idle);
"""
# The models of a switch, and a column of one of them.
COLUMN = """
    const [css, place, column] = arguments;
    const id = document.querySelector(css).dataset.sources.split(" ")[place];
    const found = Bokeh.documents.map(doc => doc.get_model_by_id(id)).find(model => model);
    const plain = value => typeof value === "object" ? Array.from(value) : value;
    return Array.from(found.data[column], plain);
"""
PLAYER = "const player = document.querySelector('.replay').player; "


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def wait(browser: Any, script: str) -> Any:
    """Wait until a script returns something true, and return that."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, PATIENCE).until(lambda driver: driver.execute_script(script))


def opened(browser: Any, path: Path) -> None:
    browser.get(path.as_uri())
    wait(browser, DRAWN)


def complaints(browser: Any) -> list[str]:
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] in ("WARNING", "SEVERE")
    ]


@pytest.fixture(scope="module")
def page(browser: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the browser with the report of a run."""
    browser.get_log("browser")
    path = tmp_path_factory.mktemp("page") / "report.html"
    opened(browser, write_report([folder], path))
    wait(browser, "return document.querySelector('.replay').dataset.ready")
    return browser


def test_all_is_drawn_without_a_complaint(page: Any) -> None:
    assert page.execute_script(SECTIONS) == 5
    assert complaints(page) == []
    loaded = page.execute_script("return performance.getEntriesByType('resource').length")
    assert loaded == 0
    paints = page.execute_script(
        "return performance.getEntriesByType('paint').map(paint => paint.startTime)"
    )
    assert max(paints) < 2000


def test_the_counters_at_the_end_are_those_of_the_evaluation(page: Any, folder: Path) -> None:
    recordings = {each.policy: each for each in load_replay(folder / "replay.npz").recordings}
    for panel, policy in enumerate(("fauno", "sed")):
        counts = page.execute_script(
            f"{PLAYER} player.seek(player.end);"
            f"return player.panels[{panel}].episode.counts(player.end, true)"
        )
        cohort = recordings[policy].cohort()
        assert counts["born"] == cohort["created"] > 50
        assert counts["finished"] == cohort["finished"]
        assert counts["lost"] == {kind: cohort[kind] for kind in counts["lost"]}
        shown = page.execute_script(
            f"return document.querySelectorAll('.panel')[{panel}].querySelector('tbody').innerText"
        )
        assert str(cohort["finished"]) in shown


def test_the_replay_plays_pauses_and_moves(page: Any) -> None:
    play = page.find_element("css selector", ".replay .play")
    page.execute_script(f"{PLAYER} player.seek(0)")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", play)
    play.click()
    wait(page, f"{PLAYER} return player.time > 1")
    assert play.text == "Pause"
    play.click()
    stopped = page.execute_script(f"{PLAYER} return player.time")
    assert page.execute_script(f"{PLAYER} return [player.playing, player.time]") == [False, stopped]
    slider = page.find_element("css selector", ".replay input[type=range]")
    page.execute_script(
        "arguments[0].value = 100; arguments[0].dispatchEvent(new Event('input'))", slider
    )
    assert page.execute_script(f"{PLAYER} return player.time") == 100
    assert "10.0 of " in page.find_element("css selector", ".replay .clock").text


def test_a_node_under_the_pointer_tells_its_queue(page: Any) -> None:
    from selenium.webdriver import ActionChains

    canvas = page.find_element("css selector", ".replay canvas")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    x, y, scale = page.execute_script(
        f"{PLAYER} const {{x, y}} = player.network; return [x[0], y[0], player.panels[0].scale]"
    )
    size = canvas.size
    offset = round(x * scale - size["width"] / 2), round(y * scale - size["height"] / 2)
    ActionChains(page).move_to_element_with_offset(canvas, *offset).perform()
    tip = page.find_element("css selector", ".replay .tip")
    assert tip.is_displayed()
    assert page.execute_script(f"{PLAYER} return player.network.names[0]") in tip.text


def test_nodes_are_switched_on_in_all_charts_in_colours_of_their_own(page: Any) -> None:
    buttons = page.find_elements("css selector", ".toggles button")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", buttons[0])
    alpha = page.execute_script(COLUMN, ".toggles", 0, "alpha")
    colour = page.execute_script(COLUMN, ".toggles", 0, "colour")
    for button in buttons[:2]:
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
    assert page.execute_script(COLUMN, ".toggles", 0, "alpha") == [1.0, 1.0, *alpha[2:]]
    assert len(set(page.execute_script(COLUMN, ".toggles", 0, "colour"))) == 3
    for button in buttons[:2]:
        button.click()
    assert page.execute_script(COLUMN, ".toggles", 0, "alpha") == alpha
    assert page.execute_script(COLUMN, ".toggles", 0, "colour") == colour


def test_the_x_axis_becomes_time(page: Any) -> None:
    second = page.find_elements("css selector", "#learning .choices input")[1]
    assert second.get_attribute("value") == "clock"
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", second)
    second.click()
    for place in range(3):
        shown = page.execute_script(COLUMN, "#learning .choices", place, "x")
        assert shown == page.execute_script(COLUMN, "#learning .choices", place, "x|clock")
    wait(page, DRAWN)
    assert complaints(page) == []


def test_another_policy_is_shown_in_the_flows(page: Any) -> None:
    local = page.find_elements("css selector", "#flow .choices input")[-1]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", local)
    local.click()
    names = page.execute_script("return document.querySelector('.replay').player.network.names")
    column = page.execute_script(COLUMN, "#flow .choices", 0, "count")
    served = {(i // len(names), i % len(names)) for i, count in enumerate(column) if count}
    assert served
    assert all(born == at for born, at in served)  # the policy local keeps every task
    assert complaints(page) == []


def test_runs_side_by_side_are_drawn_and_hidden(browser: Any, folder: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    path = tmp_path / "both.html"
    path.write_text(runs_page([folder, twin], path))
    browser.get_log("browser")
    opened(browser, path)
    browser.find_element("css selector", ".toggles button").click()
    assert browser.execute_script(COLUMN, ".toggles", 0, "alpha") == [0.0, 1.0]
    assert set(browser.execute_script(COLUMN, ".toggles", 1, "alpha")) == {0.0, 1.0}
    assert complaints(browser) == []
