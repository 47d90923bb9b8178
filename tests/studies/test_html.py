"""The page of a report: every number with its runs, nothing from outside, and a browser that has nothing to complain of."""

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
from html.parser import HTMLParser

import pytest

from kdlab.studies.page import TEMPLATES
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.published import Published
from kdlab.studies.report import write_report, write_reports
from kdlab.studies.study import Comparison

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = '<script>alert("x")</script> & </table> \' "--> $\\frac{'
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")


class Page(HTMLParser):
    """What is in a page; fails at the first tag that is not closed where it should be."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.numbers, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.numbers.append(float(attributes["value"]))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data

    def values(self, attribute, tag=None):
        found = [(name, attributes.get(attribute)) for name, attributes in self.tags]
        return [value for name, value in found if value is not None and tag in (None, name)]


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_result):
    """A study with everything that a page shows, and a profile and a config in each run; do not change it."""
    folder = tmp_path_factory.mktemp("study")
    runs = [PlannedRun("teacher0", "teacher", "wide", {}, 0, (), ())]
    for variant, values in (("plain", {}), ("kd", {"model.temperature": 1}), ("kd", {"model.temperature": 4})):
        for seed in range(3):
            name = f"{variant}{values.get('model.temperature', '')}-{seed}"
            runs.append(PlannedRun(name, "student", variant, values, seed, ("--a", "b c"), ("teacher0",)))
    for number, run in enumerate(runs):
        section = {"runs": [{"variant": "eager", "batch_size": 1, "latency_ms_p50": 0.1 * (number + 1)}]}
        profile = {"latency": section, "macs": {"macs": 100 + number}, "energy": {"reason": "no <counter>"}}
        write_result(folder / run.id, 0.9 + number**2 / 1000, run.seed, profile=profile)
        (folder / run.id / "config.yaml").write_text(f"note: {HOSTILE}\n")
    comparisons = (Comparison({}, {"variant": "plain"}),)
    published = (Published("student", "plain", {}, 0.8765, "README of X <2020>", "best on test", 5),)
    metrics = ("student.test.accuracy", "student.test.nll")
    plan = Plan("study", "Which T?", metrics, comparisons, tuple(runs), (), published)
    plan.write(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(study):
    return Page(study / "report" / "report.html")


def numbers_in(node):
    if isinstance(node, dict):
        return [number for key, value in node.items() if key != "format" for number in numbers_in(value)]
    if isinstance(node, list):
        return [number for item in node for number in numbers_in(item)]
    return [float(node)] if isinstance(node, (int, float)) else []


def test_every_number_of_the_summary_is_in_the_page(study, page):
    wanted = numbers_in(json.loads((study / "report" / "summary.json").read_text()))
    assert len(set(wanted)) > 30
    assert set(wanted) - set(page.numbers) == set()


def test_every_number_is_shown_as_it_is(study, page):
    text = (study / "report" / "report.html").read_text()
    # 0.901, 0.904, 0.909: mean 0.904667, sd 0.004041, half width 4.302653 sd / sqrt(3) = 0.010040
    mean, half_width = (0.901 + 0.904 + 0.909) / 3, 0.0100395
    assert f'<data value="{mean}'[:24] in text
    assert ">90.47</data> ± <data" in text
    assert any(abs(number - half_width) < 1e-6 for number in page.numbers)


def test_every_run_is_linked_and_every_link_leads_somewhere(study, page):
    links = page.values("href", "a")
    for path in study.glob("*/result.json"):
        name = path.parent.name
        assert {f"../{name}/", f"../{name}/result.json", f"../{name}/config.yaml"} <= set(links)
    anchors = set(page.values("id"))
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        else:
            assert (study / "report" / urllib.parse.unquote(link)).exists(), link


def test_aggregated_numbers_name_their_runs(study):
    text = (study / "report" / "report.html").read_text()
    row = text[text.index('<th scope="row">kd, temperature 4</th>') :].split("</tr>")[0]
    assert [f'href="#s1-run-kd4-{seed}">kd, temperature 4, seed {seed}' in row for seed in range(3)] == [True] * 3
    assert "python -m kdlab fit --a &#39;b c&#39;" in row
    comparison = text[text.index('id="s1-comparisons"') :].split("</tr>")[1]
    assert comparison.count('href="#s1-run-') == 6
    assert "not measured: no &lt;counter&gt;" in text


def test_a_run_names_the_command_that_made_it(folder):
    result = json.loads((folder / "plain0" / "result.json").read_text())
    result["environment"]["command"] = "python -m kdlab fit --model.teacher.checkpoint 'my runs/t.pt'"
    (folder / "plain0" / "result.json").write_text(json.dumps(result))
    write_report(folder)
    text = (folder / "report" / "report.html").read_text()
    assert "python -m kdlab fit --model.teacher.checkpoint &#39;my runs/t.pt&#39;" in text


def test_a_run_of_two_cells_has_a_line_in_each(folder):
    plan = json.loads((folder / "study.json").read_text())
    shared = [run | {"variant": "twin"} for run in plan["runs"] if run["variant"] == "plain"]
    (folder / "study.json").write_text(json.dumps(plan | {"runs": plan["runs"] + shared}))
    write_report(folder)
    text = (folder / "report" / "report.html").read_text()
    for cell, anchor in (("plain", "plain0"), ("twin", "plain0-2")):
        assert text.count(f'<a href="#s1-run-{anchor}">{cell}, seed 0</a>') >= 2  # its cell, and figures
        line = text[text.index(f'<tr id="s1-run-{anchor}">') :].split("</tr>")[0]
        assert f"<td>{cell}</td>" in line
    identifiers = Page(folder / "report" / "report.html").values("id")
    assert len(identifiers) == len(set(identifiers))
    # 16 runs of 1.5 s, each trained once
    assert '<data value="24.0">0 h 0 min 24 s</data> in all <data value="16">16</data> runs' in text


def test_the_teacher_of_a_figure_has_a_line_though_it_is_no_result(tmp_path, write_result):
    student = {"test": {"accuracy": 0.9}, "confusion_matrix": [[3, 1], [1, 3]], "weights_sha256": "t"}
    write_result(tmp_path / "teacher", 0.99, 0, student=student)
    weights = str(tmp_path / "teacher" / "student.safetensors")
    write_result(tmp_path / "kd", 0.9, 0, student=student, teacher={"weights_sha256": "t", "checkpoint": weights})
    (path, _) = write_reports([tmp_path / "kd"])
    text = path.read_text()
    figure = text[text.index('<figure id="s1-kd_confusion"') :].split("</figure>")[0]
    assert 'href="#s1-run-teacher">teacher, seed 0</a>' in figure
    assert '<tr id="s1-run-teacher">' in text
    Page(path)


NODE = shutil.which("node")
SORTS = """
global.document = { querySelectorAll: () => [] };
eval(require("fs").readFileSync(0, "utf8").split("// -- figures")[0].replace('"use strict";', "") + "; global.sort = sortBy");
const cell = (number, text) => ({ querySelector: () => (number === null ? null : { value: String(number) }), textContent: text });
const rows = [cell(null, "not measured: x"), cell(10, "10"), cell(null, ""), cell(2, "2")].map((one) => ({ cells: [one] }));
let order = [];
const body = { rows, append: (...sorted) => { order = sorted.map((row) => row.cells[0].textContent); } };
let sorted = "none";
const header = {
  cellIndex: 0, classList: { contains: (name) => name === "number" },
  closest: () => ({ tBodies: [body], tHead: { querySelectorAll: () => [] } }),
  getAttribute: () => sorted, setAttribute: (_, value) => { sorted = value; },
};
sort(header); console.log(JSON.stringify(order));
sort(header); console.log(JSON.stringify(order));
"""


@pytest.mark.skipif(NODE is None, reason="no Node.js on PATH")
def test_words_among_numbers_stay_at_the_end_whichever_way_is_sorted():
    script = (TEMPLATES / "page.js").read_text()
    told = subprocess.run([NODE, "-e", SORTS], input=script, capture_output=True, text=True, check=True).stdout
    ends = ["not measured: x", ""]
    assert [json.loads(line) for line in told.splitlines()] == [["2", "10", *ends], ["10", "2", *ends]]


def test_the_best_trial_of_a_search_is_named_with_its_numbers_and_runs(searched):
    write_report(searched)
    page, text = Page(searched / "report" / "report.html"), (searched / "report" / "report.html").read_text()
    wanted = numbers_in(json.loads((searched / "report" / "summary.json").read_text()))
    assert set(wanted) - set(page.numbers) == set()
    part = text[text.index('id="s1-search"') :].split("<h2")[0]
    assert "Best of found: <strong>found, alpha 0.5, temperature 2.0</strong>" in part
    assert "selected by val accuracy (mean over the seeds, on validation images) out of 4 trials (1 more failed" in part
    assert ">94.00</data>" in part  # on the test images
    assert [f'href="#s1-run-t1-{seed}"' in part for seed in range(3)] == [True] * 3
    assert 'href="#s1-search"' in text


def test_nothing_comes_from_outside(study, page):
    text = (study / "report" / "report.html").read_text()
    assert "http:" not in text
    assert "https:" not in text
    sources = page.values("src") + page.values("xlink:href") + page.values("href", "link")
    assert all(source.startswith(("#", "data:")) for source in sources)
    assert "@import" not in text
    assert text.count("<script") == 1
    (policy,) = (value for value in page.values("content", "meta") if "default-src" in value)
    assert policy.startswith("default-src 'none'")


def test_tables_and_figures_are_named_for_those_who_cannot_see_them(page):
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") == 6
    sortable = [attributes for tag, attributes in page.tags if tag == "th" and "aria-sort" in attributes]
    assert len(sortable) > 20
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == tags.count("figure") == tags.count("figcaption") > 4
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert ("html", {"lang": "en"}) in page.tags


def test_figures_refer_to_their_own_parts(page):
    identifiers = set(page.values("id"))
    used = {value[1:] for value in page.values("xlink:href") if value.startswith("#")}
    used |= {value.removeprefix("url(#").removesuffix(")") for value in page.values("clip-path")}
    assert len(used) > 20
    assert used <= identifiers


def test_origin_warnings_and_reasons_are_told(study, page, folder, write_result):
    for said in ("Protocol: Digits, last epoch (10% of the training images held out), 360 test images.", "f" * 64,
                 "torch 2.15.0", "a CPU", "abc", "2026-11-21 10:01:30", "not measured: no <counter>"):  # fmt: skip
        assert said in page.text
    assert "Warning" not in page.text
    for name in ("plain1", "plain2"):
        (folder / name / "result.json").unlink()
    write_result(folder / "x", 0.9, 0, environment={"device": "a GPU", "git_commit": "abc"})
    (folder / "x" / "result.json").replace(folder / "kd0.1-1-0" / "result.json")
    write_report(folder)
    text = Page(folder / "report" / "report.html").text
    assert "Not finished: 2 of 16 runs are missing." in text
    assert "Warning: a cell has n = 1. Below 3 seeds an interval says next to nothing." in text
    assert "The runs differ in device: a CPU (12); a GPU (1)." in text


def test_names_are_text_and_nothing_else(tmp_path, write_result):
    name = HOSTILE.replace("/", "|") + "#1?%41"  # all but the one character that a folder cannot have
    write_result(tmp_path / "runs" / name, 0.9, 0, name=HOSTILE, environment={"command": HOSTILE, "device": HOSTILE})
    write_result(tmp_path / "runs" / "javascript:alert(1)", 0.9, 0, name="javascript:alert(1)")
    (tmp_path / "runs" / name / "config.yaml").write_text(f"note: '{HOSTILE.replace(chr(39), '')}'\n")
    (path, _) = write_reports([tmp_path / "runs"])
    page = Page(path)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count(HOSTILE) >= 3
    assert not any(link.startswith("javascript") for link in page.values("href"))
    for link in page.values("href", "a"):
        if not link.startswith("#"):
            assert (path.parent / urllib.parse.unquote(urllib.parse.urlsplit(link).path)).exists(), link


# -- in a browser --------------------------------------------------------------------------------------------------


class Browser:
    """Headless Chromium, told what to do by the DevTools protocol through two pipes."""

    def __init__(self, program, profile):
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()

        def place_pipes():  # the protocol reads from 3 and writes to 4, which may be the pipes' own numbers
            high = os.dup2(to_browser, 203), os.dup2(from_browser, 204)
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        self._process = subprocess.Popen(
            [program, *options, "about:blank"], close_fds=False, preexec_fn=place_pipes, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        self.events = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps({"id": number, "method": method, "params": params, **session}).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path):
        self("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression):
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression):
        """An event may come a moment later."""
        for _ in range(100):
            if self.value(expression):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")

    def close(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _read(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], 60)
            part = os.read(self._from, 1 << 16) if ready else b""
            assert part, "the browser does not answer"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture
def browser():
    program = os.environ.get("KDLAB_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium on PATH nor in KDLAB_CHROMIUM")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        yield browser
        browser.close()


FIRST_CELLS = "[...document.querySelector('#s1 table').tBodies[0].rows].map(row => row.cells[0].textContent)"
SORTED = "document.querySelectorAll('#s1 table th')[2].getAttribute('aria-sort')"
CLICK = "document.querySelectorAll('#s1 table th')[2].querySelector('button').click()"
PAPER = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.slow
def test_the_page_works_in_a_browser(study, browser):
    browser.open(study / "report" / "report.html")
    order = ["plain", "kd, temperature 1", "kd, temperature 4"]  # by accuracy, too
    assert browser.value(FIRST_CELLS) == order
    browser.value(CLICK)
    assert (browser.value(FIRST_CELLS), browser.value(SORTED)) == (order, "ascending")
    browser.value(CLICK)
    assert (browser.value(FIRST_CELLS), browser.value(SORTED)) == (order[::-1], "descending")

    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = browser.value(PAPER)
    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    assert (dark, browser.value(PAPER)) == ("rgb(22, 24, 28)", "rgb(255, 255, 255)")
    browser.value("theme.value = 'dark'; theme.dispatchEvent(new Event('change'))")
    assert browser.value(PAPER) == dark

    browser.value("document.querySelector('figure .enlarge').click()")
    width = "document.querySelector('.stage svg').getBoundingClientRect().width"
    fit = browser.value(width)
    browser.value("document.querySelector('[data-zoom=in]').click()")
    assert browser.value(width) == pytest.approx(1.4 * fit, rel=0.01)
    browser("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    assert browser.value("document.querySelector('dialog').open") is False
    browser.wait_for("document.activeElement.className === 'enlarge'")

    picture = base64.b64decode(browser("Page.captureScreenshot", format="png")["data"])
    assert len(picture) > 10_000
    complaints = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert [event for event in browser.events if event["method"] in complaints] == []
    requests = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in requests if not url.startswith("data:")] == [(study / "report" / "report.html").as_uri()]


@pytest.mark.slow
def test_a_phone_does_not_scroll_sideways(study, browser):
    browser("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    browser.open(study / "report" / "report.html")
    assert browser.value("document.documentElement.scrollWidth") == 390
