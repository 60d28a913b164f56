"""tools/equation_map.py: each kind of gap on a small tree with that one fault planted."""

import sys

import pytest

import equation_map
from equation_map import ROOT, problems, rendered
from equation_map_read import citations

STEPS = '''"""Steps, after arXiv 2111.00396, sections 2.3 and 2.4."""


def zoh(A, delta):
    """Holds the input. Equation 4 of arXiv 2312.00752. O(1)."""


class Rule:
    """The recurrence, equation 2 and Algorithm 2 of arXiv 2312.00752."""

    def run(self):
        """Runs it."""


def _helper():
    """Equation 9 of arXiv 2312.00752 is nobody's business."""
'''
CHAPTER = """(ch:steps)=
# 03 · Steps

$$ h = 1 $$ 

$$
h_t = h_{t-1}
$$ (eq-recurrence)

Equation 2a of {cite:t}`gu2023mamba` is this, and the paper's equation 4 is that:

$$
A = 1
$$ (eq-zoh)

(sec:more)=
## More

S4's rule {cite}`gu2022s4{section 2.3}`.

## Further reading

- {cite:t}`gu2023mamba`: theorem 7.
"""
API = """```{eval-rst}
.. automodule:: tf_mamba_edu.steps
   :members: zoh

.. autoclass:: tf_mamba_edu.Rule
   :members: run
```
"""
TABLE = """
- paper: "2312.00752"
  key: gu2023mamba
  name: Mamba
  entries:
  - place: equations 2a and 2b, algorithm 2
    says: a recurrence
    chapter: [eq-recurrence]
    cited_by: [steps.Rule]
    also: [steps.Rule.run]
  - place: equation 4
    says: zero-order hold
    chapter: [eq-zoh, sec:more]
    cited_by: [steps.zoh]
    tests: ["test_steps.py::test_it"]
  - place: section 9
    says: dreams
- paper: "2111.00396"
  key: gu2022s4
  name: S4
  entries:
  - place: sections 2.3 and 2.4
    says: a rule
    cited_by: [steps]
"""


def put(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, "utf-8")


def replace(path, old, new):
    def plant(root):
        text = (root / path).read_text("utf-8")
        assert old in text
        put(root, path, text.replace(old, new))

    return plant


@pytest.fixture
def tree(tmp_path):
    put(tmp_path, "tf_mamba_edu/__init__.py", "from tf_mamba_edu.steps import Rule, zoh\n")
    put(tmp_path, "tf_mamba_edu/steps.py", STEPS)
    put(tmp_path, "tests/test_steps.py", "def test_it():\n    pass\n\n\ndef helper():\n    pass\n")
    put(tmp_path, "book/03_steps.md", CHAPTER)
    put(tmp_path, "book/api.md", API)
    put(tmp_path, equation_map.DATA, TABLE)
    put(tmp_path, equation_map.PAGE, rendered(tmp_path))
    return tmp_path


PACKAGE, BOOK, DATA = "tf_mamba_edu/steps.py", "book/03_steps.md", equation_map.DATA


@pytest.mark.parametrize(
    "plant, message",
    [
        # the page
        (replace(DATA, "zero-order hold", "a hold"), "book/equation_map.md is not what"),
        (replace(equation_map.PAGE, "dreams", "facts"), "book/equation_map.md is not what"),
        (lambda root: (root / equation_map.PAGE).unlink(), "book/equation_map.md is not what"),
        # what an entry names
        (
            replace(DATA, "[eq-recurrence]", "[eq-recurrence, eq-x]"),
            "no chapter has the label eq-x",
        ),
        (replace(BOOK, "(sec:more)=\n", ""), "equation 4: no chapter has the label sec:more"),
        (replace(DATA, "::test_it", "::test_that"), "no test test_steps.py::test_that"),
        (replace(DATA, "::test_it", "::helper"), "no test test_steps.py::helper"),
        (replace("tests/test_steps.py", "test_it", "test_all"), "no test test_steps.py::test_it"),
        (replace(DATA, "Rule.run", "Rule.walk"), "the package has no steps.Rule.walk"),
        (replace(PACKAGE, "def run", "def walk"), "the package has no steps.Rule.run"),
        (
            replace("book/api.md", "members: run", "members: walk"),
            "Rule.run is not on the API page",
        ),
        (replace(DATA, "also: [steps.Rule.run]", "also: [steps._helper]"), "has no steps._helper"),
        # what it claims of docstrings
        (replace(PACKAGE, "Equation 4 of arXiv 2312.00752", "It"), "of steps.zoh does not name it"),
        # keys
        (replace(DATA, "    tests:", "    test:"), "equation 4: test is no key of an entry"),
    ],
)
def test_what_an_entry_says_must_be_so(tree, plant, message):
    assert problems(tree) == []
    plant(tree)
    found = problems(tree)
    assert found
    assert all(message in problem for problem in found), found


@pytest.mark.parametrize(
    "plant, message",
    [
        (
            replace(PACKAGE, "Runs it.", "Section 3.1 of arXiv 2312.00752."),
            "section 3.1 of 2312.00752",
        ),
        (replace(PACKAGE, "Runs it.", "See the paper, table 7."), "table 7 of 2312.00752"),
        (replace(PACKAGE, "Runs it.", "Equation 4 of arXiv 2312.00752."), "steps.Rule.run cites"),
        (replace(PACKAGE, "O(1).", "Appendix E.2 of it."), "steps.zoh cites appendix E.2"),
        (replace(PACKAGE, "sections 2.3 and 2.4", "sections 2.3 and 2.5"), "section 2.5 of 2111"),
        (replace(PACKAGE, "Runs it.", "After arXiv 1706.03762."), "arXiv 1706.03762, which has no"),
        (replace(BOOK, "## More", "## More\n\nSee theorem 1."), "names theorem 1 of 2312.00752"),
        (replace(BOOK, "is that:", "and eq. 5 too:"), "names equation 5 of 2312.00752"),
        (
            replace(BOOK, "S4's rule", "Algorithm 1 of {cite}`gu2022s4`"),
            "algorithm 1 of 2111.00396",
        ),
        (replace(BOOK, "{section 2.3}", "{eq. 3}"), "03_steps.md names equation 3 of 2111.00396"),
        (replace(DATA, "[eq-zoh, sec:more]", "[]"), "names equation 4 of 2312.00752, and no entry"),
    ],
)
def test_what_the_book_cites_must_have_an_entry(tree, plant, message):
    plant(tree)
    found = problems(tree)
    assert found
    assert all(p.startswith("GAP: ") and message in p for p in found), found


def test_an_entry_that_is_removed_leaves_its_gaps(tree):
    start, end = TABLE.index("  - place: equation 4"), TABLE.index("  - place: section 9")
    put(tree, DATA, TABLE[:start] + TABLE[end:])
    assert problems(tree) == [
        "GAP: steps.zoh cites equation 4 of 2312.00752, and no entry says so",
        "GAP: 03_steps.md names equation 4 of 2312.00752, and no entry leads there",
    ]


def test_the_page_links_to_chapter_function_and_test(tree):
    page = (tree / equation_map.PAGE).read_text("utf-8")
    assert (
        "| *equation 4*: zero-order hold | {ref}`03 <ch:steps>`: {eq}`eq-zoh`, {ref}`sec:more` "
        "| **{py:obj}`zoh <tf_mamba_edu.steps.zoh>`** "
        "| `test_steps.py`<br><code>test_<wbr>it</code> |"
    ) in page
    assert "{py:obj}`Rule.run <tf_mamba_edu.Rule.run>`" in page
    assert "| *section 9*: dreams | not in this book |  |  |" in page
    assert "| {cite:t}`gu2022s4`, *sections 2.3 and 2.4*: a rule |" in page


@pytest.mark.parametrize(
    "text, found",
    [
        (
            "equations 2a and 2b and Algorithm 2 of arXiv 1.",
            "equation 2a, equation 2b, algorithm 2",
        ),
        (
            "Appendix E.2, sections 3.2, 3.3 and 4.",
            "appendix E.2, section 3.2, section 3.3, section 4",
        ),
        ("{cite}`k{eq. 3}`; figure 3. Table 7, A is", "equation 3, figure 3, table 7"),
        ("the two equations, section A, equation {eq}`eq-x`, 12 sections", ""),
        ("wrapped: section\n    3.3.2", "section 3.3.2"),
    ],
)
def test_places_are_recognized(text, found):
    wanted = {tuple(place.split()) for place in found.split(", ") if place}
    assert {(kind, number) for _, kind, number in citations(text, {})} == wanted


@pytest.mark.parametrize(
    "text, paper",
    [
        ("theorem 1 of arXiv 2008.07669, as in arXiv 2111.00396", "2008.07669"),
        ("as in arXiv 2008.07669 (theorem 1)", "2008.07669"),
        ("arXiv 2008.07669 and theorem 1 of arXiv 2111.00396", "2111.00396"),
        ("theorem 1 and theorem 1 of the official code for arXiv 2008.07669", "2008.07669"),
        ("theorem 1, and later arXiv 2008.07669", "2312.00752"),
        ("arXiv 2008.07669.\n\nNew paragraph: theorem 1", "2312.00752"),
        ("theorem 1 of {cite:t}`known`", "1234.56789"),
        ("{cite}`unknown{theorem 1}`", "unknown"),
    ],
)
def test_a_place_belongs_to_a_paper(text, paper):
    assert citations(text, {"known": "1234.56789"}) == {(paper, "theorem", "1")}


def test_the_repository_is_in_order():
    assert problems(ROOT) == []


def test_the_command_writes_the_page_and_checks_it(tree, monkeypatch, capsys):
    monkeypatch.setattr(equation_map, "ROOT", tree)
    put(tree, equation_map.PAGE, "old")
    for arguments, code in ((["--check"], 1), ([], 0), (["--check"], 0)):
        monkeypatch.setattr(sys, "argv", ["equation_map.py", *arguments])
        with pytest.raises(SystemExit, match=str(code)):
            equation_map.main()
    assert "is not what" in capsys.readouterr().out
    assert (tree / equation_map.PAGE).read_text("utf-8") == rendered(tree)


def test_a_table_with_a_fault_leaves_the_page_alone(tree, monkeypatch, capsys):
    monkeypatch.setattr(equation_map, "ROOT", tree)
    monkeypatch.setattr(sys, "argv", ["equation_map.py"])
    before = (tree / equation_map.PAGE).read_text("utf-8")
    replace(DATA, "eq-zoh", "eq-gone")(tree)
    with pytest.raises(SystemExit, match="1"):
        equation_map.main()
    assert "no chapter has the label eq-gone" in capsys.readouterr().out
    assert (tree / equation_map.PAGE).read_text("utf-8") == before
