"""Exercise sheets are blank, fail politely and have a solution.

That the stored outputs are what the cells really give, nbval tests.
"""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHEETS = sorted((ROOT / "exercises").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
ANSWER = re.compile(r"### BEGIN SOLUTION.*?\n(.*?)### END SOLUTION", re.DOTALL)


def read(path):
    return nbformat.read(path, 4)


def tags(cell):
    return cell.metadata.get("tags", [])


def errors(cell):
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def code(path):
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")


def answer_lines(source):
    """The lines of a sheet's answers that are long enough to be telling."""
    lines = "\n".join(ANSWER.findall(source)).split("\n")
    return {line.strip() for line in lines if len(line.strip()) > 12}


sheets = pytest.mark.parametrize("sheet", SHEETS, ids=lambda path: path.stem)


def test_there_are_sheets_and_each_has_a_solution():
    assert SHEETS, "no exercise sheets: run make nb"
    assert [path.name for path in SHEETS] == [path.name for path in SOLUTIONS]


@sheets
def test_a_sheet_has_four_to_six_checks(sheet):
    checks = [cell for cell in read(sheet).cells if "check" in tags(cell)]
    assert 4 <= len(checks) <= 6


@sheets
def test_an_untouched_check_gives_one_hint_and_no_traceback(sheet):
    for cell in read(sheet).cells:
        if "check" in tags(cell):
            assert [error.ename for error in errors(cell)] == ["NotYet"], cell.source
            [error] = errors(cell)
            assert "Hint" in error.evalue, cell.source
            assert len(error.traceback) == 1, cell.source


@sheets
def test_no_other_cell_of_a_sheet_fails(sheet):
    for cell in read(sheet).cells:
        if "check" not in tags(cell):
            assert not errors(cell), cell.source


@sheets
def test_the_checks_of_a_solution_pass(sheet):
    for cell in read(ROOT / "solutions" / sheet.name).cells:
        assert not errors(cell), cell.source


@sheets
def test_no_answer_leaks_into_a_sheet(sheet):
    source = (ROOT / "solutions" / f"{sheet.stem}.md").read_text("utf-8")
    assert ANSWER.search(source), "a sheet needs at least one blank"
    text = "\n".join(cell.source for cell in read(sheet).cells)
    assert "SOLUTION" not in text
    given = ANSWER.sub("", source)  # a line may be given elsewhere on purpose
    leaked = [line for line in answer_lines(source) if line in code(sheet)]
    assert [line for line in leaked if line not in given] == []
