"""Each chapter keeps the shape that readers rely on."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb"))

chapters = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(path):
    cells = nbformat.read(path, 4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def headings(path):
    cells = nbformat.read(path, 4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(r"^#+ (.*)$", prose, re.MULTILINE)


def shows_figure(cell):
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_the_table_of_contents_names_every_notebook():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    named = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    folders = ("book", "exercises", "solutions")
    built = {f"{f}/{p.name}" for f in folders for p in (ROOT / f).glob("*.ipynb")}
    assert built <= named


@chapters
def test_a_chapter_has_its_sections(path):
    found = headings(path)
    assert re.match(r"\d\d · ", found[0])
    for wanted in ("goes wrong", "Where we are", "Exercises", "Further reading"):
        assert any(wanted in heading for heading in found), wanted


@chapters
def test_every_figure_has_a_name_a_caption_and_a_text_for_those_who_cannot_see_it(path):
    figures = [cell for cell in code_cells(path) if shows_figure(cell)]
    assert figures
    for cell in figures:
        described = cell.metadata.get("mystnb", {})
        assert described.get("figure", {}).get("name", "").startswith("fig-"), cell.source
        assert len(described["figure"]["caption"]) > 40
        assert len(described["image"]["alt"]) > 40


@chapters
def test_code_cells_are_short(path):
    for cell in code_cells(path):
        lines = [line for line in cell.source.split("\n") if line.strip()]
        assert len(lines) <= (40 if "# source:" in cell.source else 15), cell.source


@chapters
def test_a_chapter_checks_what_it_claims(path):
    checks = [c for c in code_cells(path) if re.search(r"^\s*assert |assert_", c.source, re.M)]
    assert len(checks) >= 3


@chapters
def test_labels_are_unique_to_their_chapter(path):
    text = path.with_suffix(".md").read_text("utf-8")
    labels = re.findall(r"^\((.+?)\)=$|^\$\$ \((.+?)\)$|^    name: (fig-.+)$", text, re.M)
    names = ["".join(label) for label in labels]
    assert len(names) == len(set(names))
