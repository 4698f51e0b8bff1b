"""The site in a browser: its pages load without an error, fit narrow and wide windows, and can be searched."""

import asyncio
import functools
import http.server
import json
import shutil
import subprocess
import threading
import time

import pytest
from tornado.websocket import websocket_connect

WIDTHS = (390, 820, 1440)
WINDOW = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--hide-scrollbars")

MEASURE = """
new Promise(resolve => requestAnimationFrame(() => resolve({
    client: document.documentElement.clientWidth,
    scroll: document.documentElement.scrollWidth,
    missing: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
})))
"""
SEARCH = """
new Promise(async resolve => {
    for (let i = 0; i < 100 && !document.querySelector(".md-search-result__item"); i++)
        await new Promise(next => setTimeout(next, 100))
    resolve([...document.querySelectorAll(".md-search-result__item a")].map(link => link.href))
})
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser: `apt install chromium`, or install Google Chrome"),
]


class Tab:
    """A tab of a browser, controlled by the DevTools protocol: commands, and the events that came with the answers."""

    def __init__(self, connection):
        self.connection, self.session, self.commands, self.events = connection, {}, 0, []

    async def open(self):
        """Attaches to the first tab, and asks for the events of its pages."""
        targets = await self("Target.getTargets")
        tab = next(target for target in targets["targetInfos"] if target["type"] == "page")
        self.session = await self("Target.attachToTarget", targetId=tab["targetId"], flatten=True)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self(f"{domain}.enable")
        await self("Page.setLifecycleEventsEnabled", enabled=True)
        return self

    async def __call__(self, method, **parameters):
        """Returns the result of a command."""
        self.commands += 1
        await self.connection.write_message(
            json.dumps({"id": self.commands, "method": method, "params": parameters, **self.session})
        )
        while (answer := await self._read()).get("id") != self.commands:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def load(self, url):
        """Returns after a page and all that it loads have arrived."""
        self.events = []
        answer = await self("Page.navigate", url=url)
        while not any(_is_end(event, answer["loaderId"]) for event in self.events):
            await self._read()

    async def evaluate(self, script):
        """Returns the value of a promise in the page."""
        result = await self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "value" in result["result"], result
        return result["result"]["value"]

    def errors(self):
        """What went wrong since the last load: messages of errors and failed requests."""
        return list(filter(None, (_error(event["method"], event["params"]) for event in self.events)))

    async def _read(self):
        message = json.loads(await asyncio.wait_for(self.connection.read_message(), 120))
        if "method" in message:
            self.events.append(message)
        return message


def _is_end(event, loader):
    about = event["params"]
    return event["method"] == "Page.lifecycleEvent" and (about["name"], about["loaderId"]) == ("load", loader)


def _error(method, about):
    """What an event says that went wrong, or None."""
    if method == "Runtime.exceptionThrown":
        return about["exceptionDetails"].get("exception", {}).get("description", about["exceptionDetails"]["text"])
    if method == "Network.loadingFailed" and not about.get("canceled"):
        return about["errorText"]
    if method == "Log.entryAdded" and about["entry"]["level"] == "error":
        return f"{about['entry']['text']} {about['entry'].get('url', '')}"
    if method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
        return str([argument.get("value", argument.get("description")) for argument in about["args"]])
    return None


@pytest.fixture(scope="module")
def address(site):
    """The site, served at a free port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def in_browser(tmp_path_factory):
    """Runs a function of a tab: `in_browser(job)` returns what the coroutine `job(tab)` returns."""
    folder = tmp_path_factory.mktemp("browser")
    command = [BROWSER, *OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            url = _control(browser, folder / "DevToolsActivePort")
            yield lambda job: asyncio.run(_run(job, url))
        finally:
            browser.terminate()


def _control(browser, place):
    """The address at which a browser takes commands, from the file that it writes as it starts."""
    until = time.monotonic() + 120
    while not (place.exists() and place.read_text().count("\n")):
        assert browser.poll() is None, f"{BROWSER} ended"
        assert time.monotonic() < until, f"{BROWSER} did not start"
        time.sleep(0.1)
    port, path = place.read_text().split()
    return f"ws://127.0.0.1:{port}{path}"


async def _run(job, url):
    connection = await websocket_connect(url, max_message_size=2**30)
    try:
        return await job(await Tab(connection).open())
    finally:
        connection.close()
        while await connection.read_message() is not None:
            pass


@pytest.fixture(scope="module")
def visits(site, address, in_browser):
    """What each page measures at each width, and its errors."""
    pages = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))

    async def visit_all(tab):
        measured = {}
        for page in pages:
            await tab.load(f"{address}/{page}/")
            for width in WIDTHS:
                await tab("Emulation.setDeviceMetricsOverride", width=width, **WINDOW)
                measured[page, width] = {**await tab.evaluate(MEASURE), "errors": tab.errors()}
        return measured

    return in_browser(visit_all)


def test_pages_load_without_an_error(visits):
    assert len(visits) > 30 * len(WIDTHS)
    assert not {page: visit["errors"] for (page, _), visit in visits.items() if visit["errors"]}


def test_pages_do_not_scroll_sideways(visits):
    assert not {place: visit["scroll"] for place, visit in visits.items() if visit["scroll"] > visit["client"]}


def test_images_are_shown(visits):
    assert not {place: visit["missing"] for place, visit in visits.items() if visit["missing"]}


def test_the_search_finds_a_function(address, in_browser):
    async def search(tab):
        await tab.load(f"{address}/?q=integrate")
        return await tab.evaluate(SEARCH)

    assert any(link.split("?")[0].endswith("/reference/solve/") for link in in_browser(search))
