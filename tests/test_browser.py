"""The built book in a real browser."""

from pathlib import Path

import page_checks
import pytest
import yaml

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "_build" / "html"
CHAPTER, ITS_WORD = "book/03_discretization.html", "thermometer"  # no other page has the word


def pages():
    """Those of the table of contents, and one of each sort that Sphinx adds."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    files = [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]
    added = [
        "genindex.html",
        "py-modindex.html",
        "search.html",
        "_modules/tf_mamba_edu/discretization.html",
    ]
    return [str(Path(file).with_suffix(".html")) for file in files] + added


@pytest.fixture(scope="module")
def book():
    if not (BOOK / "genindex.html").exists():
        pytest.skip("the book is not built: make book")
    with page_checks.browser_page() as page, page_checks.serve(BOOK) as address:
        yield lambda path: page_checks.visit(page, BOOK, address, path)


@pytest.mark.parametrize("path", pages())
def test_a_page_is_sound(book, path):
    with book(path) as opened:
        complaints = page_checks.complaints(opened)
    assert not complaints, f"{path}\n{page_checks.told(complaints)}"


def test_the_search_finds_a_chapter_by_its_word_and_shows_it_well(book):
    with book(f"search.html?q={ITS_WORD}") as opened:
        assert page_checks.search_misses(opened, CHAPTER) == []
        complaints = page_checks.complaints(opened)
    assert not complaints, page_checks.told(complaints)
