"""Each check of a page finds the faults that it is for, and no others."""

import itertools
from pathlib import Path

import page_checks
import pytest
from PIL import Image, ImageDraw

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent
MATHJAX = ROOT / "book" / "_static" / "mathjax" / "tex-svg-full.js"

# A page without a fault. Each of the pages below differs from it in one place.
SOUND = r"""<!doctype html>
<html lang="en" data-theme="light">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width">
  <title>Sound</title>
  <style>
    html { background: #fff; color: #111; }
    html[data-theme=dark] { background: #121212; color: #ddd; }
    html[data-theme=dark] img { background: #fff; }
    a { color: inherit; }
    big { font-size: 24px; color: #888; }
    b { font-size: 19px; color: gray; }
  </style>
</head>
<body><article class="bd-article">
  <h1 hidden>In print</h1>
  <h1>Title</h1>
  <p>Words, a <a href="#part">link</a> <big>large gray</big> and <b>bold</b>.</p>
  <p hidden style="color: #fff; background: #fff">Nobody sees this.</p>
  <h2 id="part">Part</h2>
  <pre style="overflow-x: auto"><code>print("code that is much too wide for a phone")</code></pre>
  <details><summary>More</summary><p>Folded.</p></details>
  <img src="figure.png" alt="A line">
  <div class="mamba-widget">
    <label>step <input type="range" max="9" value="9"></label> <output>9</output>
    <svg width="90" height="90">
      <rect y="50" width="9" height="9" fill="#eee" stroke="black"></rect>
      <path fill="none" stroke="#777" d="M0 3L90 9"></path>
    </svg>
  </div>
  <img style="margin-top: 9999px" loading="lazy" src="below.png" alt="Far below">
</article>
<script>
  const [slider, output, path] =
    ["input", "output", "path"].map(tag => document.querySelector(tag));
  slider.addEventListener("keydown", event => { /* keys */ });
  slider.addEventListener("input", () => {
    output.textContent = slider.value;
    path.setAttribute("d", `M0 3L90 ${slider.value}`);
  });
</script>
</body></html>
"""


def formula(tex):
    return rf'<script defer src="mathjax.js"></script><span class="math">\({tex}\)</span>'


def at_the_end(html):
    return "</article>", html + "</article>"


def folded(html):
    return "Folded.", html


def styled(rule):
    return "a {", rule + " a {"


# For each check: pages with a fault, what must be named, and what in the sound page is replaced.
FAULTS = {
    "console_errors": {
        "exception": ("lost is not defined", *at_the_end("<script>lost()</script>")),
        "unlike-a-known-one": (
            "theme mode: blue",
            *at_the_end("<script>console.error('Got invalid theme mode: blue')</script>"),
        ),
        "message": ("spoilt", *at_the_end("<script>console.error('spoilt')</script>")),
        "exception-when-used": (
            "lost is not defined",
            "slider.value}`);",
            "slider.value}`); lost();",
        ),
        "file-not-found": ("/no.js", *at_the_end("<script src='no.js'></script>")),
        "address-from-the-root": (
            "/mathjax.js",
            *at_the_end("<script src='/mathjax.js'></script>"),
        ),
    },
    "foreign_requests": {
        "script": (
            "https://cdn.test/a.js",
            *at_the_end("<script src='https://cdn.test/a.js'></script>"),
        ),
        "style": (
            "https://fonts.test/a.css",
            *at_the_end("<link rel='stylesheet' href='https://fonts.test/a.css'>"),
        ),
        "other-port": (
            "http://127.0.0.1:9/",
            *at_the_end("<script src='http://127.0.0.1:9/'></script>"),
        ),
    },
    "bad_formulas": {
        "unknown-macro": (r"TeX error in \unknown x", *folded(formula(r"\unknown x"))),
        "syntax": (r"TeX error in \frac{x}", *folded(formula(r"\frac{x}"))),
        "not-typeset": (r"not typeset: \(x\)", *folded(r"<span class='math'>\(x\)</span>")),
        "dollars-in-prose": (r"TeX in prose: If $\Delta$", *folded(r"If $\Delta$ grows")),
        "parentheses-in-prose": (r"TeX in prose: If \(x\)", *folded(r"If \(x\) grows")),
        "environment-in-prose": (r"TeX in prose: \begin", *folded(r"\begin{align} x \end{align}")),
        "display-in-prose": ("TeX in prose: $$ x = 1 $$", *folded("$$ x = 1 $$")),
    },
    "bad_images": {
        "broken": ("does not load", "figure.png", "broken.png"),
        "broken-far-below": ("does not load", "below.png", "broken.png"),
        "no-alt": ("no alt text", 'alt="A line"', ""),
        "blank-alt": ("no alt text", 'alt="A line"', 'alt=" "'),
    },
    "bad_headings": {
        "two-titles": ("2 h1: Title, Part", '<h2 id="part">Part</h2>', '<h1 id="part">Part</h1>'),
        "no-title": ("0 h1", "<h1>Title</h1>", "<p>Title</p>"),
        "skipped-level": (
            "h3 skips a level: Part",
            '<h2 id="part">Part</h2>',
            '<h3 id="part">Part</h3>',
        ),
        "lower-title": ("h2 skips a level", "<h1>Title</h1>", "<h2>Before</h2><h1>Title</h1>"),
    },
    "pale_text": {
        "in-both": (
            "light: p: #777777 on #ffffff is 4.48",
            *at_the_end("<p style='color: #777; background: #fff'>Pale</p>"),
        ),
        "in-light": (
            "light: code: #aaaaaa",
            *styled("html[data-theme=light] code { color: #aaa }"),
        ),
        "in-dark": ("dark: code: #555555", *styled("html[data-theme=dark] code { color: #555 }")),
        "large": ("light: big: #999999 on #ffffff is 2.85, needs 3", "color: #888", "color: #999"),
        "small": ("light: big: #888888 on #ffffff is 3.54, needs 4.5", "24px", "23px"),
        "by-opacity": ("light: code: #b8b8b8 on #ffffff", *styled("pre { opacity: 0.3 }")),
        "by-clear-ground": (
            "light: code: #111111 on #666666",
            *styled("pre { background: rgb(0 0 0 / 60%) }"),
        ),
        "when-unfolded": ("light: i: #cccccc", *folded("<i style='color: #ccc'>Pale</i>")),
        "behind-a-toggle": (
            "light: i: #cccccc",
            *folded(
                "<style>.toggle-hidden { display: none }</style>"
                "<i class='toggle-hidden' style='color: #ccc'>Pale</i>"
            ),
        ),
        "in-transition": (
            "dark: code: #555555",
            *styled("html[data-theme=dark] code { color: #555 } code { transition: color 9s }"),
        ),
        "formula": ("light: g: #808080 on #ffffff", *folded(formula(r"\color{gray}{x}"))),
        "words-in-a-drawing": (
            "light: text: #bbbbbb",
            "<path",
            "<text y='20' fill='#bbb'>Pale</text><path",
        ),
        "shape": (
            "light: rect: #dfdfdf on #ffffff",
            "<path",
            "<rect height='9' width='9' fill='black' fill-opacity='0.125'></rect><path",
        ),
        "curve": ("light: path: #bbbbbb on #ffffff", 'stroke="#777"', 'stroke="#bbb"'),
    },
    "dark_figures": {
        "dark-ground": ("in dark mode: A line", "img { background: #fff; }", "img { }"),
        "filter": (
            "in dark mode: A line",
            "img { background",
            "img { filter: brightness(0.2); background",
        ),
        "only-for-dark-mode": (
            "nothing stands off in light mode: A line",
            "figure.png",
            "white.png",
        ),
    },
    "dead_links": {
        "no-page": ("no such page", "#part", "no.html"),
        "no-place": ("#nowhere", "#part", "#nowhere"),
        "no-place-elsewhere": ("search.html#part", "#part", "search.html#part"),
        "from-the-root": ("no such page", "#part", "/planted9/search.html"),
    },
    "dead_sliders": {
        "none": ("widget 2: no slider", *at_the_end("<div class='mamba-widget'></div>")),
        "no-label": ("widget 1: a slider without a label", "<label>step", "<label>"),
        "off-the-tab-order": ("not reached by the Tab key", "<input", "<input tabindex='-1'"),
        "disabled": ("not reached by the Tab key", "<input", "<input disabled"),
        "deaf": (
            "does not change the value",
            "/* keys */",
            "if (event.key !== 'Tab') event.preventDefault();",
        ),
        "curve-stays": (
            "does not change the drawing",
            "path.setAttribute",
            "void path.getAttribute",
        ),
        "output-stays": ("does not change the output", "output.textContent = slider.value", ""),
    },
    "sideways_scroll": {
        "box": (
            "in a window of 420: i",
            *at_the_end("<i style='display: block; width: 900px'>.</i>"),
        ),
        "when-unfolded": (
            "in a window of 420: i",
            *folded("<i style='display: block; width: 900px'>.</i>"),
        ),
        "word": ("in a window of 420: h1", "Title", "tf_mamba_edu_discretization_zoh"),
        "on-a-desk": (
            "in a window of 1200: h1",
            *styled("@media (width > 900px) { h1 { width: 2000px } }"),
        ),
    },
}

# What the theme's search page does: the results come one after the other, then the summary.
SEARCH = """<!doctype html>
<div id="search-results"><p class="search-summary"></p><ul></ul></div>
<script>
  setTimeout(() => {
    document.querySelector("ul").innerHTML = "<li><a href='book/02.html'>02</a>";
    document.querySelector("p").textContent = "Search finished";
  }, 300);
</script>
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Opens a page with the given text, in a folder with a few files of its own."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "mathjax.js").symlink_to(MATHJAX)
    (folder / "broken.png").write_text("no picture")
    (folder / "search.html").write_text(SEARCH)
    for name, ink in (("figure", "black"), ("below", "black"), ("white", "white")):
        picture = Image.new("RGBA", (60, 60))
        ImageDraw.Draw(picture).line((9, 9, 50, 40), fill=ink, width=3)
        picture.save(folder / f"{name}.png")

    with page_checks.browser_page() as page, page_checks.serve(folder) as address:
        numbers = itertools.count()

        def open_page(text):
            name = f"page{next(numbers)}.html"  # a name used twice would come from the cache
            (folder / name).write_text(text)
            return page_checks.visit(page, folder, address, name)

        yield open_page


@pytest.mark.parametrize(
    "text", [SOUND, SOUND.replace("Folded.", formula("x"))], ids=["prose", "formula"]
)
def test_no_check_complains_of_a_sound_page(planted, text):
    with planted(text) as opened:
        assert page_checks.complaints(opened) == {}


@pytest.mark.parametrize(
    ("check", "fault"), [(check, fault) for check in FAULTS for fault in FAULTS[check]]
)
def test_a_planted_fault_is_found_by_its_check_alone(planted, check, fault):
    named, old, new = FAULTS[check][fault]
    assert SOUND.count(old) == 1
    with planted(SOUND.replace(old, new)) as opened:
        complaints = page_checks.complaints(opened)
    assert list(complaints) == [check]
    assert named in page_checks.told(complaints)


def test_every_check_has_a_planted_fault():
    assert set(FAULTS) == {check.__name__ for check in page_checks.CHECKS}


def test_a_chapter_that_the_search_misses_is_named(planted):
    with planted(SEARCH) as opened:
        assert page_checks.search_misses(opened, "book/02.html") == []
        [missed] = page_checks.search_misses(opened, "book/03.html")
    assert missed.startswith("book/03.html is not among the results: ")
