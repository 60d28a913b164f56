"""Checks of a built page in a real browser: each returns what is wrong with it."""

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

WIDE, PHONE, HEIGHT = 1200, 420, 900
TEXT_CONTRAST = 4.5  # WCAG 2.2, level AA

# What the theme itself says on every page, and does no harm.
KNOWN_ERRORS = (
    r"Identifier 'THEBE_JS_URL' has already been declared",
    r"Got invalid theme mode: \. Resetting to auto\.",
)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/favicon.ico":  # browsers ask for it; no page does
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Yields the folder's address, which is not its host's root: so it is on GitHub Pages."""
    handler = functools.partial(_Quiet, directory=folder.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{folder.name}/"
        finally:
            server.shutdown()


def chromium(playwright) -> str | None:
    """The system's Chromium, or the one that Playwright has installed."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@contextmanager
def browser_page():
    """Yields a page of a browser that reaches this machine's own servers and nothing else."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is missing: pip install -e '.[test]'"
    )
    with playwright.sync_playwright() as driver:
        executable = chromium(driver)
        if executable is None:
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        arguments = ["--no-sandbox", alone]
        browser = driver.chromium.launch(executable_path=executable, args=arguments)
        page = browser.new_page()
        page.add_init_script(path=Path(__file__).with_suffix(".js"))
        yield page
        browser.close()


@dataclass
class Visit:
    """A page that was opened, and what it asked for and said meanwhile."""

    page: object
    folder: Path
    base: str
    requests: list[str]
    errors: list[tuple[str, str]]  # text, address of the culprit

    def ask(self, function: str, argument=None):
        """Calls a function of page_checks.js."""
        return self.page.evaluate(f"argument => pageChecks.{function}(argument)", argument)


@contextmanager
def visit(page, folder: Path, base: str, path: str) -> Iterator[Visit]:
    """Opens a page of the folder that is served at base."""
    opened = Visit(page, folder, base, [], [])

    def hear(message):
        if message.type == "error":
            opened.errors.append((message.text, message.location["url"]))

    listeners = {
        "request": lambda request: opened.requests.append(request.url),
        "console": hear,
        "pageerror": lambda error: opened.errors.append((error.message, "")),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        page.set_viewport_size({"width": WIDE, "height": HEIGHT})
        page.goto(base + path, wait_until="load")
        opened.ask("settle")
        yield opened
    finally:
        page.goto("about:blank")  # what this page still says is not heard as the next one's
        for event, listener in listeners.items():
            page.remove_listener(event, listener)


def foreign(opened: Visit, address: str) -> bool:
    wanted = urlsplit(address)
    return wanted.scheme in ("http", "https") and wanted.netloc != urlsplit(opened.base).netloc


def console_errors(opened: Visit) -> list[str]:
    """A foreign file that does not come is the business of foreign_requests."""
    return [
        f"{text} {address}"
        for text, address in opened.errors
        if not foreign(opened, address)
        and not any(re.fullmatch(known, text) for known in KNOWN_ERRORS)
    ]


def foreign_requests(opened: Visit) -> list[str]:
    return [address for address in opened.requests if foreign(opened, address)]


def bad_formulas(opened: Visit) -> list[str]:
    return opened.ask("badFormulas")


def sideways_scroll(opened: Visit) -> list[str]:
    complaints = []
    for width in (WIDE, PHONE):
        opened.page.set_viewport_size({"width": width, "height": HEIGHT})
        complaints += opened.ask("sidewaysScroll")
    return complaints


def bad_images(opened: Visit) -> list[str]:
    return opened.ask("badImages")


def bad_headings(opened: Visit) -> list[str]:
    return opened.ask("badHeadings")


def pale_text(opened: Visit) -> list[str]:
    complaints = []
    for mode in ("dark", "light"):
        opened.ask("theme", mode)
        complaints += [f"{mode}: {pale}" for pale in opened.ask("paleText")]
    return complaints


def dark_figures(opened: Visit) -> list[str]:
    """What stands off a figure's margin in light mode must do so in dark mode."""
    inks = {}
    for mode in ("dark", "light"):
        opened.ask("theme", mode)
        inks[mode] = opened.ask("figures")
    complaints = []
    for light, dark in zip(inks["light"], inks["dark"], strict=True):
        readable = [ink for ink, contrast in light["inks"].items() if contrast >= TEXT_CONTRAST]
        worst = min((dark["inks"][ink] for ink in readable), default=0)
        if not readable:
            complaints.append(f"nothing stands off in light mode: {light['name'][:60]}")
        elif worst < TEXT_CONTRAST:
            complaints.append(f"contrast {worst:.2f} in dark mode: {light['name'][:60]}")
    return complaints


def dead_sliders(opened: Visit) -> list[str]:
    complaints = []
    for number, widget in enumerate(opened.page.locator(".mamba-widget").all(), 1):
        sliders = widget.locator("input[type=range]").all()
        faults = [fault for slider in sliders for fault in slider_faults(opened.page, slider)]
        if not sliders:
            faults.append("no slider")
        complaints += [f"widget {number}: {fault}" for fault in faults]
    return complaints


def slider_faults(page, slider) -> list[str]:
    """Moves a slider by the keyboard alone, as far as one key does."""
    slider.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    before = slider.evaluate("pageChecks.slider")
    label = before["label"]
    if not before["focused"]:
        return [f"not reached by the Tab key: {label}"]
    page.keyboard.press("ArrowLeft" if before["atEnd"] else "ArrowRight")
    old, new = before["state"], slider.evaluate("pageChecks.slider")["state"]
    faults = [f"the arrow key does not change the {k}: {label}" for k in old if old[k] == new[k]]
    return faults if label else ["a slider without a label", *faults]


class _Anchors(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names = set()

    def handle_starttag(self, tag, attrs):
        self.names |= {value for key, value in attrs if key == "id" or (tag, key) == ("a", "name")}


@functools.cache
def anchors(file: Path) -> set[str]:
    parser = _Anchors()
    parser.feed(file.read_text("utf-8"))
    return parser.names


def dead_links(opened: Visit) -> list[str]:
    complaints = []
    for link in opened.ask("links"):
        if not link.startswith("http") or foreign(opened, link):
            continue
        address, fragment = urldefrag(link)
        inside = address.startswith(opened.base)
        file = opened.folder / unquote(urlsplit(address[len(opened.base) :]).path)
        if file.is_dir():
            file /= "index.html"
        if not inside or not file.exists():
            complaints.append(f"no such page: {link}")
        elif fragment and unquote(fragment) not in anchors(file):
            complaints.append(f"no such place: {link}")
    return complaints


def search_misses(opened: Visit, wanted: str) -> list[str]:
    """On an opened search.html?q=...: whether the wanted page is among the results."""
    found = [urlsplit(link).path for link in opened.ask("searchResults")]
    if any(path.endswith("/" + wanted) for path in found):
        return []
    return [f"{wanted} is not among the results: {found}"]


CHECKS = (
    bad_formulas,
    bad_images,
    bad_headings,
    pale_text,
    dark_figures,
    dead_links,
    dead_sliders,
    sideways_scroll,  # leaves the page narrow
    foreign_requests,  # these two at the end: they tell what the others made the page do
    console_errors,
)


def complaints(opened: Visit) -> dict[str, list[str]]:
    """What each check that complains has to say."""
    found = {check.__name__: check(opened) for check in CHECKS}
    return {name: said for name, said in found.items() if said}


def told(complaints: dict[str, list[str]]) -> str:
    return "\n".join(f"{check}: {said}" for check in complaints for said in complaints[check])
