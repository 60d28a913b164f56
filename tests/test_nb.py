"""tools/nb.py: every check on a small tree with that one fault planted."""

import base64
import importlib
import io
import sys

import nbformat
import pytest
from PIL import Image

import nb
import nb_outside
from nb_outputs import as_terminal, normalize, small_png
from nb_package import SourceError
from nb_prose import names_in_prose
from nb_shown import fill, shown_source
from nb_source import code_cells, cut_answers, expected, targets

HEADER = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3, language: python}
---

"""
CHAPTER = """# Steps

The function `zoh` of `tf_mamba_edu.steps` takes `delta`; see `np.exp`.

```{code-cell} ipython3
import numpy as np
from tf_mamba_edu import zoh
```

```{code-cell} ipython3
# source: tf_mamba_edu.steps.zoh
```
"""
SHEET = """+++ {"tags": ["exercise-only"]}

# Exercise

+++ {"tags": ["solution-only"]}

# Solution

```{code-cell} ipython3
def my_zoh(A):
    ### BEGIN SOLUTION
    return 2 * A
    ### END SOLUTION
```

```{code-cell} ipython3
:tags: [check]
my_zoh(1)
```

```{code-cell} ipython3
:tags: [needs-answer]
print(my_zoh(1))
```
"""
STEPS = '''"""Steps."""
import numpy as np
from tf_mamba_edu.deep import twice


def zoh(A, delta):
    """Zero-order hold.

    Args:
        A: the state matrix.
        delta: the step.
    """
    return np.exp(A * delta)


@register
class Thing:
    """A thing.

    More about it.
    """

    size = 3

    def grow(self, by):
        """Grow in place,
        by some steps.

        Returns:
            Nothing.
        """
        self.age = by
'''


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def replace(root, path, old, new):
    text = (root / path).read_text("utf-8")
    assert old in text
    put(root, path, text.replace(old, new))


def pretend_to_run(root):
    """Write all notebooks as they would be if no cell had an output."""
    for target in targets(root):
        notebook = expected(root, target)
        cells = [c for c in code_cells(notebook) if "nbval-skip" not in c.metadata.get("tags", [])]
        for count, cell in enumerate(cells, start=1):
            cell.execution_count = count
        target.notebook.parent.mkdir(exist_ok=True)
        nb.write(notebook, target.notebook)


def store_output(root, output):
    path = root / "book/03_steps.ipynb"
    notebook = nbformat.read(path, 4)
    code_cells(notebook)[0].outputs = [nbformat.from_dict(output)]
    nb.write(notebook, path)


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


@pytest.fixture
def tree(tmp_path):
    put(tmp_path, "tf_mamba_edu/__init__.py", "from tf_mamba_edu.steps import zoh\n")
    put(tmp_path, "tf_mamba_edu/steps.py", STEPS)
    put(tmp_path, "tf_mamba_edu/deep.py", "def twice(x):\n    return 2 * x\n")
    put(tmp_path, "tf_mamba_edu/other.py", "def unrelated():\n    pass\n")
    put(tmp_path, "book/03_steps.md", HEADER + CHAPTER)
    put(tmp_path, "solutions/03_steps.md", HEADER + SHEET)
    pretend_to_run(tmp_path)
    return tmp_path


def edited_text(root):
    replace(root, "book/03_steps.md", "takes", "wants")


def removed_notebook(root):
    (root / "exercises/03_steps.ipynb").unlink()


def unrun_cell(root):
    path = root / "book/03_steps.ipynb"
    notebook = nbformat.read(path, 4)
    code_cells(notebook)[1].execution_count = None
    nb.write(notebook, path)


def edited_package(root):
    replace(root, "tf_mamba_edu/steps.py", "np.exp(A * delta)", "np.exp(delta * A)")


def renamed_in_package(root):
    replace(root, "tf_mamba_edu/steps.py", "def zoh", "def zero_order_hold")


def misspelled_name(root):
    replace(root, "book/03_steps.md", "`delta`", "`dalta`")
    pretend_to_run(root)


def missing_in_library(root):
    replace(root, "book/03_steps.md", "`np.exp`", "`np.exq`")
    pretend_to_run(root)


def wide_cell(root):
    line = "x = " + " + ".join(["zoh"] * 15)
    replace(root, "book/03_steps.md", "import numpy", f"{line}\nimport numpy")
    pretend_to_run(root)


def wide_package(root):
    line = "    x = " + " + ".join(["A"] * 20)
    replace(root, "tf_mamba_edu/steps.py", "    return np", f"{line}\n    return np")
    pretend_to_run(root)


def stored_stderr(root):
    store_output(root, stream("careful!\n", "stderr"))


def stored_address(root):
    text = "<object at 0x7f3a5c0d2e50>"
    store_output(
        root, {"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}}
    )


def stored_path(root):
    store_output(root, stream(f"{root}/tf_mamba_edu/steps.py"))


def orphan(root):
    nb.write(nbformat.v4.new_notebook(), root / "book/04_gone.ipynb")


def open_answer(root):
    replace(root, "solutions/03_steps.md", "    ### END SOLUTION\n", "")


@pytest.mark.parametrize(
    "plant, message",
    [
        (edited_text, "book/03_steps.ipynb: differs from book/03_steps.md"),
        (removed_notebook, "exercises/03_steps.ipynb: missing"),
        (unrun_cell, "book/03_steps.ipynb: was not run (code cell 2)"),
        (edited_package, "a source cell differs from the package: tf_mamba_edu.steps.zoh"),
        (renamed_in_package, "book/03_steps.md: tf_mamba_edu.steps.zoh: tf_mamba_edu/steps.py"),
        (misspelled_name, "book/03_steps.md:9: `dalta` in prose"),
        (missing_in_library, "book/03_steps.md:9: `np.exq` in prose"),
        (wide_cell, "book/03_steps.md: code line of 91 columns, 72 fit: x = zoh"),
        (wide_package, "book/03_steps.md: tf_mamba_edu.steps.zoh: code line of 85 columns"),
        (stored_stderr, "code cell 1: an output holds stderr: careful!"),
        (stored_address, "code cell 1: an output holds a memory address: 0x7f3a5c0d2e50"),
        (stored_path, "code cell 1: an output names a path of this machine"),
        (orphan, "book/04_gone.ipynb: has no source"),
        (open_answer, "solutions/03_steps.md: ### BEGIN SOLUTION without ### END SOLUTION"),
    ],
)
def test_check_finds_a_planted_fault(tree, plant, message):
    assert nb.check(tree) == []
    plant(tree)
    found = nb.check(tree)
    assert found
    assert all(message in problem for problem in found), found


def test_the_repository_is_in_order():
    assert nb.check(nb.ROOT) == []


def test_check_and_build_can_be_limited_to_some_paths(tree):
    edited_text(tree)
    assert nb.check(tree, [tree / "solutions", tree / "exercises"]) == []
    assert len(nb.check(tree, [tree / "book/03_steps.md"])) == 1
    chosen = nb.choose(tree, [tree / "exercises/03_steps.ipynb"])
    assert [target.kind for target in chosen] == ["exercise"]


def test_the_command_says_what_is_wrong_and_fails(tree, monkeypatch, capsys):
    monkeypatch.setattr(nb, "ROOT", tree)
    monkeypatch.setattr(sys, "argv", ["nb.py", "--check"])
    edited_text(tree)
    with pytest.raises(SystemExit, match="1"):
        nb.main()
    assert "differs from book/03_steps.md" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer, blank",
    [
        ("    return A\n    # why\n", '    raise NotImplementedError("your code here")'),
        ("answer = 0.37\n", "answer = ..."),
        ("slope = 2  # why\nerror = [\n    1,\n]\n", "slope = ...\nerror = ..."),
        ("x = 1\nprint(x)\n", 'raise NotImplementedError("your code here")'),
        ("a, b = 1, 2\n", 'raise NotImplementedError("your code here")'),
        ("    x = 1\n", '    raise NotImplementedError("your code here")'),
    ],
)
def test_an_answer_becomes_a_blank(answer, blank):
    indent = answer[: len(answer) - len(answer.lstrip())]
    cell = f"before\n{indent}### BEGIN SOLUTION\n{answer}{indent}### END SOLUTION\nafter"
    assert cut_answers(cell, keep=False) == f"before\n{blank}\nafter"
    assert cut_answers(cell, keep=True) == f"before\n{answer}after"


@pytest.mark.parametrize("lines", ["BEGIN", "END", "BEGIN BEGIN END"])
def test_markers_that_do_not_match_are_an_error(lines):
    cell = "\n".join(f"### {line} SOLUTION" for line in lines.split())
    with pytest.raises(SourceError, match="SOLUTION"):
        cut_answers(cell, keep=False)


def test_exercise_and_solution_differ_where_they_should(tree):
    exercise = nbformat.read(tree / "exercises/03_steps.ipynb", 4)
    solution = nbformat.read(tree / "solutions/03_steps.ipynb", 4)
    assert [cell.source for cell in exercise.cells if cell.cell_type == "markdown"] == [
        "# Exercise"
    ]
    assert [cell.source for cell in solution.cells if cell.cell_type == "markdown"] == [
        "# Solution"
    ]
    tags = [cell.metadata.get("tags") for cell in code_cells(exercise)]
    assert tags[1] == ["check", "raises-exception"]
    assert tags[2] == ["needs-answer", "nbval-skip", "raises-exception"]
    assert [cell.metadata.get("tags") for cell in code_cells(solution)][1:] == [
        ["check"],
        ["needs-answer"],
    ]
    assert "return 2 * A" not in str(exercise)


def test_a_source_line_is_filled_and_its_docstring_cut(tree):
    assert fill(tree, "# source: tf_mamba_edu.steps.zoh") == (
        "# source: tf_mamba_edu.steps.zoh\n"
        "def zoh(A, delta):\n"
        '    """Zero-order hold."""\n'
        "    return np.exp(A * delta)"
    )


def test_several_source_lines_are_filled_in_turn(tree):
    filled = fill(tree, "# source: tf_mamba_edu.deep.twice\n# source: tf_mamba_edu.steps.zoh")
    assert "    return 2 * x\n\n\n# source: tf_mamba_edu.steps.zoh\ndef zoh" in filled


def test_a_class_is_shown_with_its_decorators_and_short_docstrings(tree):
    shown = shown_source(tree, "tf_mamba_edu.steps.Thing")
    assert shown.startswith('@register\nclass Thing:\n    """A thing."""\n\n    size = 3\n')
    assert "Returns" not in shown


def test_a_method_alone_stands_at_the_margin(tree):
    assert shown_source(tree, "tf_mamba_edu.steps.Thing.grow") == (
        'def grow(self, by):\n    """Grow in place,\n    by some steps.\n    """\n    self.age = by'
    )


@pytest.mark.parametrize("name", ["steps.nothing", "nowhere.zoh", "steps.Thing.shrink"])
def test_showing_what_does_not_exist_is_an_error(tree, name):
    with pytest.raises(SourceError, match=f"tf_mamba_edu.{name}"):
        fill(tree, f"# source: tf_mamba_edu.{name}")


def test_a_source_cell_holds_nothing_else(tree):
    with pytest.raises(SourceError, match="other code: zoh"):
        fill(tree, "# source: tf_mamba_edu.steps.zoh\nzoh(1, 2)")


@pytest.mark.parametrize(
    "module, stale", [("steps", True), ("deep", True), ("other", False), ("__init__", False)]
)
def test_a_notebook_is_stale_when_the_code_that_it_imports_changed(tree, module, stale):
    [chapter] = nb.choose(tree, [tree / "book"])
    assert nb.is_current(expected(tree, chapter), chapter.notebook)
    path = tree / f"tf_mamba_edu/{module}.py"
    path.write_text(path.read_text() + "\nLATER = 1\n")
    assert nb.is_current(expected(tree, chapter), chapter.notebook) is not stale
    assert nb.older_package(tree, [chapter]) == (["book/03_steps.ipynb"] if stale else [])


def test_new_prose_keeps_the_outputs_of_the_same_code(tree, capsys):
    store_output(tree, stream("3\n"))
    path = tree / "book/03_steps.ipynb"
    before = nbformat.read(path, 4)
    replace(tree, "book/03_steps.md", "# Steps", "# Steps and strides")
    replace(tree, "tf_mamba_edu/steps.py", "np.exp(A * delta)", "np.exp(delta * A)")
    replace(tree, "book/03_steps.md", "# source: tf_mamba_edu.steps.zoh", "np.sqrt(4)")
    [chapter] = nb.choose(tree, [tree / "book"])
    assert nb.keep_outputs(tree, [chapter]) == ["book/03_steps.ipynb: its code changed, too"]
    assert nbformat.read(path, 4) == before

    replace(tree, "book/03_steps.md", "np.sqrt(4)", "# source: tf_mamba_edu.steps.zoh")
    replace(tree, "tf_mamba_edu/steps.py", "np.exp(delta * A)", "np.exp(A * delta)")
    assert nb.keep_outputs(tree, [chapter]) == []
    assert capsys.readouterr().out == "book/03_steps.ipynb\n"
    after = nbformat.read(path, 4)
    assert after.cells[0].source.startswith("# Steps and strides")
    assert code_cells(after)[0].outputs == code_cells(before)[0].outputs != []
    assert after.metadata["tf_mamba_edu"] == before.metadata["tf_mamba_edu"]
    assert nb.keep_outputs(tree, [chapter]) == [] and nb.check(tree) == []


def test_what_was_never_run_has_no_outputs_to_keep(tree):
    [chapter] = nb.choose(tree, [tree / "book"])
    chapter.notebook.unlink()
    assert nb.keep_outputs(tree, [chapter]) == ["book/03_steps.ipynb: was never run"]


@pytest.mark.parametrize(
    "written, shown",
    [
        ("one\ntwo\n", "one\ntwo\n"),
        ("10%\r50%\r100%\n", "100%\n"),
        ("1/2 - loss: 0.51\b\b\b\b0.25\n", "1/2 - loss: 0.25\n"),
        ("12/20 - 3s left\r20/20 - 1s     \n", "20/20 - 1s\n"),
        ("\x1b[1m1/2\x1b[0m \x1b[32m━━\x1b[0m\r2/2 ━━\n", "2/2 ━━\n"),
        ("Windows\r\n", "Windows\n"),
    ],
)
def test_a_progress_bar_keeps_its_last_state(written, shown):
    assert as_terminal(written) == shown


def png(image):
    stored = io.BytesIO()
    image.save(stored, "png")
    return base64.b64encode(stored.getvalue()).decode()


def png_mode(encoded):
    return Image.open(io.BytesIO(base64.b64decode(encoded))).mode


@pytest.mark.parametrize(
    "alpha, full_color, mode", [(255, False, "P"), (255, True, "RGB"), (100, False, "RGBA")]
)
def test_a_figure_gets_a_palette_unless_it_needs_all_colors(alpha, full_color, mode):
    once = small_png(png(Image.new("RGBA", (8, 8), (1, 2, 3, alpha))), full_color)
    assert png_mode(once) == mode
    assert small_png(once, full_color) == once


def test_normalizing_twice_changes_nothing():
    figure = {"image/png": png(Image.linear_gradient("L").convert("RGB")), "text/plain": "<Figure>"}
    cell = nbformat.v4.new_code_cell("fit()")
    cell.outputs = [
        nbformat.from_dict(stream("\x1b[1m1/2\x1b[0m\r")),
        nbformat.from_dict(stream("2/2\n")),
        nbformat.from_dict({"output_type": "display_data", "data": figure, "metadata": {}}),
    ]
    normalize(cell, 7)
    assert [output.output_type for output in cell.outputs] == ["stream", "display_data"]
    assert cell.outputs[0].text == "2/2\n"
    assert cell.execution_count == 7
    once = nbformat.from_dict(cell)
    normalize(cell, 7)
    assert cell == once


def test_names_are_looked_for_in_prose_only():
    text = """
Call `zoh` or `keras.layers.Dense`, and
`selective_scan(x, method="fused")`; {ref}`no_role`, $a `no_math` b$.

```python
`no_code`
```

```{admonition} Note
About `inside`.
```

:::{tip}
About `colons`.
:::

Not names: `a b`, `x/y`, `lti.py`, `--all`, `.keras`, `0.37`.
"""
    assert names_in_prose(text) == [
        (2, "zoh"),
        (2, "keras.layers.Dense"),
        (3, 'selective_scan(x, method="fused")'),
        (10, "inside"),
        (14, "colons"),
    ]


@pytest.mark.parametrize(
    "name, known",
    [
        ("zoh", True),
        ("zoh(A, delta=1)", True),
        ("zoh(A, dalta=1)", False),
        ("Thing.grow", True),
        ("Thing.age", True),
        ("Thing.shrink", False),
        ("tf_mamba_edu.deep.twice", True),
        ("tf_mamba_edu.deep.thrice", False),
        ("dict.items", True),
        ("None", True),
        ("local", True),
        ("local.anything", True),
        ("allowed", True),
        ("deep", True),
        ("nowhere", False),
    ],
)
@pytest.mark.parametrize("fence", ["python", "{code-block} python"])
def test_a_name_in_prose_must_exist(tree, name, known, fence):
    put(tree, "tools/prose_names.txt", "# words\nallowed  # because\n")
    put(tree, "book/page.md", f"```{fence}\nlocal = 1\n```\n\nAbout `{name}`.\n")
    assert (nb.check(tree) == []) is known


def test_a_library_is_read_before_it_is_imported(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail("imported"))
    for name in ["keras.layers.Dense", "tensorflow.scan", "tensorflow.linalg.expm"]:
        assert nb_outside.exists_outside(name)


def test_a_library_that_must_be_imported_is():
    assert nb_outside.exists_outside("numpy.ndarray.sum")
    assert not nb_outside.exists_outside("numpy.ndarray.smu")
    assert not nb_outside.exists_outside("no_such_library.name")


def cell(code):
    return f"```{{code-cell}} ipython3\n{code}\n```\n\n"


def test_running_stores_outputs_but_nothing_of_the_start_up(tmp_path, capsys):
    code = cell('import os\nos.write(2, b"start-up")\nprint(1)\nprint("a", end="\\r")')
    code += cell("1 + 1") + cell("import os; os.path.basename(os.getcwd())")
    put(tmp_path, "book/01_x.md", HEADER + code)
    assert nb.build(tmp_path, targets(tmp_path)) == []
    assert capsys.readouterr().out.startswith("book/01_x.ipynb  ")
    cells = nbformat.read(tmp_path / "book/01_x.ipynb", 4).cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert [output.output_type for output in cells[0].outputs] == ["stream"]
    assert cells[1].outputs[0].data["text/plain"] == "2"
    assert cells[2].outputs[0].data["text/plain"] == "'book'"
    assert nb.check(tmp_path) == []
    assert nb.build(tmp_path, targets(tmp_path)) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "code, message",
    [
        ("import sys\nprint('careful', file=sys.stderr)", "an output holds stderr: careful"),
        ("import warnings\nwarnings.warn('old')", "an output holds stderr"),
        ("object()", "an output holds a memory address"),
        ("x = 1\nx / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_cell_that_fails_leaves_the_old_notebook_alone(tmp_path, code, message):
    put(tmp_path, "book/01_x.md", HEADER + cell("1") + cell(code))
    put(tmp_path, "book/01_x.ipynb", nbformat.writes(nbformat.v4.new_notebook()))
    before = (tmp_path / "book/01_x.ipynb").read_bytes()
    [failure] = nb.build(tmp_path, targets(tmp_path))
    assert failure.startswith("book/01_x.ipynb: code cell 2:\n")
    assert code.split("\n")[-1] in failure
    assert message in failure
    assert [path.name for path in sorted((tmp_path / "book").iterdir())] == [
        "01_x.ipynb",
        "01_x.md",
    ]
    assert (tmp_path / "book/01_x.ipynb").read_bytes() == before
