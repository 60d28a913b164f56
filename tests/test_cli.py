"""The command line: hand-ins of every kind, in one folder, and what is said about them.

Most notebooks here import the light checks only, which spares them TensorFlow. Many are run at
once by a fixture, and the tests ask what came out.
"""

import copy
import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import tf_mamba_edu
from tf_mamba_edu import cli
from tf_mamba_edu.checks import NotYet, core
from tf_mamba_edu.checks.core import EMPTY, FIRST_HINT
from tf_mamba_edu.checks.discretization import check_largest_step, check_zoh
from tf_mamba_edu.checks.hand_ins import copies, notebooks, progress, report, runner, sheets, worker

ROOT = Path(__file__).resolve().parent.parent
BLANK = ROOT / "exercises" / "03_discretization.ipynb"
SOLUTION = ROOT / "solutions" / "03_discretization.ipynb"
# By these seconds the processes are known that notebooks of this run of the tests leave behind.
SLEEP = f"98765.{os.getpid()}"
MODULE = "tf_mamba_edu.checks.discretization"
IMPORTS = f"import numpy as np\nfrom {MODULE} import check_largest_step, check_zoh"
STEP, RIGHT_STEP = "## 1. A step", "check_largest_step(0.5)"
HOLD = "## 2. A hold"
ZOH = "def my_zoh(A, B, d):\n    return np.exp(d * A), np.expm1(d * A) / A * B"
RIGHT_HOLD = f"{ZOH}\ncheck_zoh(my_zoh)"
ENDLESS = "while True: pass"
WAITING = "import time\ntime.sleep(10_000)"
HOARD = "hoard = []\nwhile True: hoard.append(np.ones(10**6))"
ROW = ["hand-in", "sheet", "exercise number", "exercise title", "check", "passed", "message"]


def notebook(path, *cells):
    """Writes a notebook: a heading is markdown, a pair is a code cell with a tag."""
    made = []
    for cell in cells:
        source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
        new = new_markdown_cell if source.startswith("##") else new_code_cell
        made.append(new(source, metadata={"tags": tags}))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=made), path)
    return path


def changed_solution(path, old, new):
    """The solution of sheet 03 with a change in one cell."""
    solution = copy.deepcopy(nbformat.read(SOLUTION, 4))
    [cell] = [c for c in solution.cells if c.cell_type == "code" and old in c.source]
    cell.source = cell.source.replace(old, new)
    nbformat.write(solution, path)


def run(*arguments):
    """Exit code of a command, however it ends."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check(*arguments):
    """Runs `check` with a CSV file: what it returned, printed and wrote."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(out), redirect_stderr(err):
        table = Path(folder, "marks.csv")
        code = run("check", *arguments, "--csv", table)
        rows = read_csv(table) if table.exists() else []
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), rows=rows)


def passed(rows, name=None):
    """Which checks have passed, of one hand-in or all."""
    return {
        row["check"]: row["passed"] == "yes"
        for row in rows
        if name is None or Path(row["hand-in"]).stem == name
    }


def message(rows, name, check):
    [row] = [r for r in rows if Path(r["hand-in"]).stem == name and r["check"] == check]
    assert (row["passed"] == "no") == bool(row["message"])
    assert "\n" not in row["message"]
    return row["message"]


def tree(folder):
    """All that a folder holds, with bytes and times."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = content, path.lstat().st_mtime_ns, path.lstat().st_mode
    return found


def left_behind(temporary):
    """Processes of notebooks that ran in a temporary folder, wherever these processes hang now."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or ())
        ended = process.info["status"] == psutil.STATUS_ZOMBIE
        if not ended and (f"sleep {SLEEP}" in command or str(temporary) in command):
            found.append(process)
    return found


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """An empty temporary folder, which must be empty again at the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


# The six of the issue


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """All right, blank, wrong, endless, hoarding, and no notebook."""
    folder = tmp_path_factory.mktemp("six")
    (folder / "right.ipynb").write_bytes(SOLUTION.read_bytes())
    (folder / "blank.ipynb").write_bytes(BLANK.read_bytes())
    changed_solution(folder / "wrong.ipynb", "(A_bar - 1) / A * B", "delta * B")
    changed_solution(folder / "endless.ipynb", "def my_bilinear", f"{ENDLESS}\ndef my_bilinear")
    changed_solution(folder / "hoard.ipynb", "def my_bilinear", f"{HOARD}\ndef my_bilinear")
    (folder / "essay.pdf").write_bytes(b"%PDF-1.4\n%\xe2\xe3")
    command = [sys.executable, "-m", "tf_mamba_edu", "check", str(folder), "--timeout", "8"]
    command += ["--memory", "0.3", "--csv", str(folder / "marks.csv")]
    start = time.monotonic()
    # Without the COLUMNS that readline, which pytest imports, hands down to children.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=120
    )
    return SimpleNamespace(
        code=done.returncode,
        out=done.stdout,
        err=done.stderr,
        rows=read_csv(folder / "marks.csv"),
        seconds=time.monotonic() - start,
        folder=folder,
        command=command,
    )


def test_six_hand_ins_take_less_than_two_minutes_and_each_gets_its_due(six):
    assert six.seconds < 120
    assert six.code == 2  # the PDF
    assert len(six.rows) == 30
    counts = {path.stem: 0 for path in six.folder.glob("*.ipynb")}
    for row in six.rows:
        counts[Path(row["hand-in"]).stem] += row["passed"] == "yes"
    assert counts == {"right": 6, "blank": 0, "wrong": 5, "endless": 2, "hoard": 2}
    assert {row["sheet"] for row in six.rows} == {"03 discretization"}


def test_six_hand_ins_their_messages(six):
    assert message(six.rows, "blank", "check_run") == f"run: {EMPTY} Hint: {FIRST_HINT}"
    wrong = message(six.rows, "wrong", "check_zoh")
    assert wrong.startswith("my_zoh: A_bar is right, but B_bar = Delta B is Mamba's shortcut.")
    assert wrong.endswith(f" Hint: {check_zoh.hint}")
    where = 'in a cell under "3. The bilinear rule"'
    for check in ("check_bilinear", "check_run", "check_observed_order", "check_first_order_hold"):
        late = message(six.rows, "endless", check)
        assert late == f"not reached: stopped after 8 s, the time limit, {where}"
        large = message(six.rows, "hoard", check)
        assert large == f"not reached: stopped: it used more than 0.3 GB of memory, {where}"


def test_six_hand_ins_as_a_table(six):
    lines = six.out.splitlines()
    [head] = [line for line in lines if line.startswith("hand-in ")]
    assert head.split() == ["hand-in", "sheet", "exercise", "hint"]
    assert sum("✓ passed" in line for line in lines) == 15
    assert sum("✗ not yet" in line for line in lines) == 15
    assert sum("3. The bilinear rule  " in line for line in lines) == 5
    assert all(len(line) <= 120 for line in lines if "passed" in line or "not yet" in line)
    assert lines[-1] == "1 of 5 notebooks complete, 15 of 30 exercises passed"
    stopped = [line for line in lines if line.startswith(str(six.folder)) and "stopped" in line]
    assert [Path(line.split(":")[0]).stem for line in stopped] == ["endless", "hoard"]


def test_six_hand_ins_report_each_that_has_ended_in_a_line(six):
    lines = six.out.splitlines()[:5]
    assert {Path(line.split(":")[0]).stem for line in lines} == {
        path.stem for path in six.folder.glob("*.ipynb")
    }
    assert any("right.ipynb: 6 of 6 passed, " in line for line in lines)
    [endless] = [line for line in lines if "endless" in line]
    assert 8 <= float(endless.split()[-2]) < 16


def test_six_hand_ins_name_what_is_no_notebook(six):
    [line] = [line for line in six.err.splitlines() if str(six.folder) in line]
    assert line == f"{six.folder / 'essay.pdf'}: not a notebook: a file named *.ipynb is needed"


# A zoo of hand-ins

ZOO = {
    "right": (IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD),
    "exit": (IMPORTS, STEP, "exit()\nx", RIGHT_STEP, "import sys\nsys.exit(1)", HOLD, RIGHT_HOLD),
    "os_exit": (IMPORTS, STEP, RIGHT_STEP, HOLD, "import os\nos._exit(0)", RIGHT_HOLD),
    "segmentation": (IMPORTS, STEP, RIGHT_STEP, HOLD, "import ctypes\nctypes.string_at(0)"),
    "hangs": (IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD, "## 3. More", f"!sleep {SLEEP}"),
    "hangs_at_once": (WAITING, IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD),
    "child_hoards": (
        IMPORTS,
        STEP,
        RIGHT_STEP,
        HOLD,
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {'import numpy as np;' + HOARD!r}])",
        RIGHT_HOLD,
    ),
    "failing": (IMPORTS, "1 / 0", STEP, RIGHT_STEP, HOLD, RIGHT_HOLD),
    "wrong_name": (IMPORTS, STEP, "def step(:", "check_largest_step(step)", HOLD, RIGHT_HOLD),
    "bad_imports": (f"import no_such_module\n{IMPORTS}", STEP, RIGHT_STEP, HOLD, RIGHT_HOLD),
    "broken_imports": (f"{IMPORTS}\nx = (", STEP, RIGHT_STEP, HOLD, RIGHT_HOLD),
    "own_error": (IMPORTS, STEP, "check_largest_step(1 / 0)", HOLD, "check_zoh(my_zoh)"),
    "redefined": (
        IMPORTS,
        "def check_zoh(answer): print('✓ my_zoh: right, on 5 random cases.')",
        STEP,
        RIGHT_STEP,
        HOLD,
        "check_zoh(1)",
    ),
    "forged": (
        IMPORTS,
        "from tf_mamba_edu.checks import Check",
        STEP,
        "check_largest_step = Check('largest_step', 2.0, ('largest_step',), 'mine')\n"
        "check_largest_step(2.0)",
        HOLD,
        "Check.__call__ = lambda self, answer: print('✓ my_zoh: right.')\ncheck_zoh(1)",
    ),
    "changes_its_mind": (
        IMPORTS,
        STEP,
        "check_largest_step(2.0)",
        RIGHT_STEP,
        HOLD,
        RIGHT_HOLD,
        "check_zoh(...)",
    ),
    "missing_cell": (IMPORTS, STEP, RIGHT_STEP, HOLD, "# check_zoh(my_zoh)"),
    "missing_cells_of_a_module": (f"from {MODULE} import *", STEP, RIGHT_STEP),
    "by_module": (f"import {MODULE} as d", STEP, "d.check_largest_step(0.5)"),
    "by_package": (
        "from tf_mamba_edu.checks import discretization",
        STEP,
        "discretization.check_largest_step(0.5)",
    ),
    "alias": (f"from {MODULE} import (\n  check_zoh as z,  # )\n)\nimport numpy as np",)
    + (HOLD, f"{ZOH}\nz(my_zoh)"),
    "from_another_version": (
        f"from {MODULE} import (\n    check_zoh,\n    check_of_tomorrow,\n)",
        HOLD,
        "check_zoh(1)",
        "## 3. Tomorrow",
        "check_of_tomorrow(1)",
    ),
    "twice": (
        IMPORTS,
        "check_zoh(1)",
        STEP,
        (RIGHT_STEP, "check"),
        HOLD,
        (RIGHT_HOLD, "check"),
    ),
    "magics": (
        f"%matplotlib inline\n%load_ext no_such_extension\n{IMPORTS}",
        f"%matplotlib widget\n%pip install no-such-package\n!exit 3\nlisted = !echo hi\n{IMPORTS}",
        "assert listed == ['hi']",
        STEP,
        f"%%time\n{RIGHT_STEP}",
        HOLD,
        "import asyncio\nawait asyncio.sleep(0)\n" + RIGHT_HOLD,
    ),
    "asks": (
        IMPORTS,
        STEP,
        "step = float(input())",
        "check_largest_step(step)",
        HOLD,
        "check_zoh(0)",
    ),
    "talks": (
        IMPORTS,
        STEP,
        RIGHT_STEP,
        HOLD,
        "for _ in range(300): print('x' * 10**6)\n" + RIGHT_HOLD,
    ),
    "installs": (("import pip\nraise SystemExit", "remove-cell"), IMPORTS, STEP, RIGHT_STEP)
    + (HOLD, f"assert In[1].startswith('import numpy')\n{RIGHT_HOLD}"),
    "two_in_a_cell": (IMPORTS, STEP, "check_largest_step(2.0)\ncheck_zoh(1)"),
    "not_called": (IMPORTS, STEP, "check_largest_step(2.0)", "if False: check_zoh(1)"),
    "leaves_children": (
        f"{IMPORTS}\nimport subprocess",
        STEP,
        f"!sleep {SLEEP} &\nsubprocess.Popen(['sleep', '{SLEEP}'])\n{RIGHT_STEP}",
        HOLD,
        f"subprocess.Popen(['sleep', '{SLEEP}'], start_new_session=True)\n{RIGHT_HOLD}",
    ),
    "thread": (
        f"{IMPORTS}\nimport threading, time",
        STEP,
        f"threading.Thread(target=time.sleep, args=({SLEEP},)).start()\n{RIGHT_STEP}",
        HOLD,
        RIGHT_HOLD,
    ),
    "writes": (
        IMPORTS,
        STEP,
        "open('data/numbers.txt', 'a').write('7')\nopen('new.txt', 'w').close()\n" + RIGHT_STEP,
        HOLD,
        "import helper, os\nos.remove('helper.py')\n" + RIGHT_HOLD,
    ),
    "reads": (
        IMPORTS,
        STEP,
        "check_largest_step(float(open('data/numbers.txt').read()))",
        HOLD,
        "import os\nfound = sorted(os.listdir())\n"
        "assert found == ['data', 'helper.py', 'reads.ipynb'], found\n" + RIGHT_HOLD,
    ),
    "brackets": (IMPORTS, STEP, "raise ValueError('[bold]a\\x1b[31m\\nb[/bold]')")
    + ("check_largest_step(no)", HOLD, RIGHT_HOLD),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """The zoo, run once."""
    base = tmp_path_factory.mktemp("zoo")
    folder, temporary = base / "hand_ins", base / "temporary"
    for name, cells in ZOO.items():
        notebook(folder / f"{name}.ipynb", *cells)
    files = {"data/numbers.txt": "0.5", "helper.py": "", ".git/x": "", ".hidden": ""}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    temporary.mkdir()
    before = tree(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        done = check(*sorted(folder.glob("*.ipynb")), "--timeout", 12, "--memory", 0.4, "--jobs", 4)
    done.left, done.temporary = left_behind(temporary), list(temporary.iterdir())
    done.before, done.after = before, tree(folder)
    return done


ALL_RIGHT = {
    "right",
    "exit",
    "hangs",
    "failing",
    "twice",
    "magics",
    "talks",
    "installs",
    "leaves_children",
    "thread",
    "writes",
    "reads",
}


def test_the_zoo_is_complete(zoo):
    assert {Path(row["hand-in"]).stem for row in zoo.rows} == set(ZOO)
    assert (zoo.code, zoo.err) == (1, "")
    right = {name for name in ZOO if all(passed(zoo.rows, name).values())}
    assert right == ALL_RIGHT | {"alias"}


@pytest.mark.parametrize("name", sorted(ALL_RIGHT))
def test_what_surrounds_right_answers_does_no_harm(zoo, name):
    assert passed(zoo.rows, name) == {"check_largest_step": True, "check_zoh": True}


def test_nothing_is_left_of_a_run(zoo):
    assert zoo.left == []
    assert zoo.temporary == []
    assert psutil.Process().children(recursive=True) == []


def test_the_folder_of_the_hand_ins_stays_as_it_was(zoo):
    assert zoo.after == zoo.before and len(zoo.before) > len(ZOO)


STOPPED = {
    "os_exit": 'its process ended itself (exit code 0), in a cell under "2. A hold"',
    "segmentation": 'its process crashed (SIGSEGV), in a cell under "2. A hold"',
    "child_hoards": 'stopped: it used more than 0.4 GB of memory, in a cell under "2. A hold"',
    "hangs_at_once": "stopped after 12 s, the time limit, in a cell at its start",
    "hangs": 'stopped after 12 s, the time limit, in a cell under "3. More"',
}


@pytest.mark.parametrize("name", sorted(STOPPED))
def test_a_notebook_that_breaks_off_is_reported_in_a_line(zoo, name):
    [line] = [line for line in zoo.out.splitlines() if f"/{name}.ipynb: " in line][1:]
    assert line.endswith(f"/{name}.ipynb: {STOPPED[name]}")


@pytest.mark.parametrize("name", ["os_exit", "segmentation", "child_hoards"])
def test_what_had_passed_before_a_break_stays_passed(zoo, name):
    assert passed(zoo.rows, name)["check_largest_step"]
    if name == "segmentation":
        assert message(zoo.rows, name, "check_zoh") == "its check cell is missing: check_zoh(...)"
    else:
        assert message(zoo.rows, name, "check_zoh") == f"not reached: {STOPPED[name]}"


def test_a_notebook_that_hangs_at_once_has_nothing_passed(zoo):
    assert not any(passed(zoo.rows, "hangs_at_once").values())


REASONS = {
    ("wrong_name", "check_largest_step"): "a cell above failed with SyntaxError: invalid syntax "
    "(line 1 of its cell)",
    ("bad_imports", "check_zoh"): "a cell above failed with ModuleNotFoundError: No module named "
    "'no_such_module'",
    ("broken_imports", "check_largest_step"): "a cell above failed with SyntaxError: ",
    ("own_error", "check_largest_step"): "its check cell failed with ZeroDivisionError: division "
    "by zero",
    ("own_error", "check_zoh"): "its check cell failed with NameError: name 'my_zoh' is not "
    "defined",
    ("two_in_a_cell", "check_zoh"): "its check cell failed with NotYet: largest_step: 2 is the",
    ("not_called", "check_zoh"): "its cell did not call the check_zoh of tf_mamba_edu.checks",
    ("asks", "check_largest_step"): "a cell above failed with EOFError: EOF when reading a line",
    ("brackets", "check_largest_step"): "a cell above failed with ValueError: [bold]a[31m b[/bold]",
    ("from_another_version", "check_of_tomorrow"): "a cell above failed with ImportError: cannot "
    f"import name 'check_of_tomorrow' from '{MODULE}'",
}


@pytest.mark.parametrize(("name", "check"), sorted(REASONS))
def test_a_check_that_is_not_reached_names_the_error(zoo, name, check):
    text = message(zoo.rows, name, check)
    assert text.startswith(f"not reached: {REASONS[name, check]}")


def test_a_message_is_shown_as_it_is(zoo):
    assert "[bold]a[31m b[/bold]" in " ".join(zoo.out.split())
    assert "\x1b" not in zoo.out


@pytest.mark.parametrize(
    ("name", "check"),
    [("redefined", "check_zoh"), ("forged", "check_largest_step"), ("forged", "check_zoh")],
)
def test_a_check_made_by_hand_gets_nothing(zoo, name, check):
    text = message(zoo.rows, name, check)
    assert text.startswith(f"not reached: its cell did not call the {check} of tf_mamba_edu")


def test_the_last_word_of_a_check_counts(zoo):
    assert passed(zoo.rows, "changes_its_mind") == {"check_largest_step": True, "check_zoh": False}
    text = message(zoo.rows, "changes_its_mind", "check_zoh")
    assert text == f"my_zoh: {EMPTY} Hint: {FIRST_HINT}"


def test_a_deleted_check_cell_is_missed(zoo):
    missing = "its check cell is missing: check_zoh(...)"
    assert message(zoo.rows, "missing_cell", "check_zoh") == missing
    whole = passed(zoo.rows, "missing_cells_of_a_module")
    assert whole["check_largest_step"] and sum(whole.values()) == 1 and len(whole) == 6
    for name in ("by_module", "by_package"):
        assert passed(zoo.rows, name) == whole


def test_a_check_with_another_name_counts(zoo):
    assert passed(zoo.rows, "alias") == {"check_zoh": True}


def test_an_exercise_has_the_number_and_title_above_its_check(zoo):
    for row in zoo.rows:
        name, given = Path(row["hand-in"]).stem, (row["exercise number"], row["exercise title"])
        if row["message"].startswith("its check cell is missing"):
            assert given == ("", "")
        elif row["check"] == "check_largest_step":
            assert given == ("1", "A step"), name
        elif row["check"] == "check_zoh" and HOLD in ZOO[name]:
            assert given == ("2", "A hold"), name


# Limits, copies and processes


def test_notebooks_run_at_the_same_time(tmp_path, scratch):
    meet = "import pathlib, time\nme, other = (pathlib.Path(p) for p in {})\nme.touch()\n"
    meet += "end = time.monotonic() + {}\n"
    meet += "while not other.exists() and time.monotonic() < end: time.sleep(0.01)\n"
    meet += "check_largest_step(0.5 if other.exists() else 2.0)"
    for jobs, seconds in ((2, 20), (1, 1)):
        places = [str(tmp_path / f"{jobs}{who}") for who in "ab"]
        folder = tmp_path / f"jobs{jobs}"
        for name, both in (("a", places), ("b", places[::-1])):
            notebook(folder / f"{name}.ipynb", IMPORTS, STEP, meet.format(both, seconds))
        rows = check(folder, "--jobs", jobs).rows
        first = [row["passed"] for row in rows if row["check"] == "check_largest_step"]
        assert first == (["yes", "yes"] if jobs == 2 else ["no", "yes"])


FACTS = """
import json, os, sys, tempfile
facts = {
    "folder": os.getcwd(), "temporary": tempfile.gettempdir(), "path": sys.path[0],
    "arguments": sys.argv[1:], "name": __name__, "backend": os.environ["MPLBACKEND"],
    "tensorflow": "tensorflow" in sys.modules, "encoding": sys.stdout.encoding,
    "pip": os.environ["PIP_NO_INDEX"] + os.environ["PIP_DRY_RUN"],
    "ipython": get_ipython().ipython_dir, "history": get_ipython().history_manager.enabled,
}
json.dump(facts, open(%r, "w"))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """What a notebook finds where it runs; then it uses the package itself."""
    folder = tmp_path_factory.mktemp("facts")
    cells = FACTS % str(folder / "facts.json"), "import tf_mamba_edu as mamba"
    uses = "assert abs(mamba.zoh([-1.0], [1.0], 1.0)[0][0] - np.exp(-1)) < 1e-6\n"
    uses += (
        "from tf_mamba_edu import *\nContinuousSSM\nassert mamba.block.MambaBlock is MambaBlock\n"
    )
    uses += f"assert mamba.__file__ == {tf_mamba_edu.__file__!r}\n"
    notebook(folder / "one.ipynb", IMPORTS, *cells, STEP, uses + RIGHT_STEP)
    done = check(folder / "one.ipynb", "--timeout", 60)
    done.facts = json.loads((folder / "facts.json").read_text())
    done.folder = folder
    return done


def test_a_notebook_runs_in_a_place_of_its_own(facts):
    found = facts.facts
    assert Path(found["folder"]).parent == Path(found["temporary"]).parent
    assert Path(found["folder"]).parent == Path(found["ipython"]).parent
    assert not Path(found["folder"]).exists()
    assert (found["path"], found["arguments"], found["name"]) == ("", [], "__main__")
    assert (found["backend"], found["encoding"], found["pip"]) == ("Agg", "utf-8", "11")
    assert found["history"] is False


def test_tensorflow_is_imported_only_by_notebooks_that_use_the_package(facts):
    assert facts.facts["tensorflow"] is False
    assert passed(facts.rows)["check_largest_step"]


def test_a_copy_leaves_out_what_is_not_the_learners(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    mine = notebook(source / "mine.ipynb", "1")
    for other in ("other.ipynb", "Other.IPYNB", ".hidden/x", ".hidden.txt", "__pycache__/x.pyc"):
        (source / other).parent.mkdir(exist_ok=True, parents=True)
        (source / other).write_text("x")
    for kept in ("data/deep/x.csv", "venv/pyvenv.cfg", "venv/lib/x.py", "y.txt"):
        (source / kept).parent.mkdir(exist_ok=True, parents=True)
        (source / kept).write_text("x")
    os.mkfifo(source / "pipe")
    (source / "nowhere").symlink_to(source / "nothing")
    (source / "data" / "back").symlink_to(source)
    (source / "link.txt").symlink_to(source / "y.txt")
    copies.copy_folder(mine, target)
    copied = {str(p.relative_to(target)) for p in target.rglob("*") if not p.is_dir()}
    assert copied == {"mine.ipynb", "data/deep/x.csv", "y.txt", "link.txt"}
    assert not (target / "link.txt").is_symlink()


def test_a_folder_that_is_too_large_is_not_copied(tmp_path, monkeypatch):
    mine = notebook(tmp_path / "source" / "mine.ipynb", "1")
    (tmp_path / "source" / "data").mkdir()
    (tmp_path / "source" / "data" / "large").write_bytes(b"x" * 3000)
    copies.copy_folder(mine, tmp_path / "one")
    monkeypatch.setattr(copies, "COPY_LIMIT", 2000)
    with pytest.raises(copies.TooLarge, match="its folder holds more than 2e-06 GB"):
        copies.copy_folder(mine, tmp_path / "two")


def test_a_folder_that_is_too_large_is_reported(tmp_path, scratch):
    path = notebook(tmp_path / "hand_ins" / "mine.ipynb", IMPORTS, STEP, RIGHT_STEP)
    with open(tmp_path / "hand_ins" / "large", "wb") as file:
        file.truncate(int(copies.COPY_LIMIT) + 1)  # a hole, which takes no room on the disk
    done = check(path)
    assert done.code == 1
    assert "its folder holds more than 2 GB" in message(done.rows, "mine", "check_largest_step")


def test_a_notebook_in_the_temporary_folder_itself_is_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = "import os\nassert os.listdir() == ['mine.ipynb'], os.listdir()\n"
    mine = notebook(tmp_path / "mine.ipynb", IMPORTS, STEP, seen + RIGHT_STEP, HOLD, RIGHT_HOLD)
    assert run("check", mine) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_everything(tmp_path, number):
    folder, temporary, started = (tmp_path / n for n in ("hand_ins", "temporary", "started"))
    for made in (temporary, started):
        made.mkdir()
    hang = f"!sleep {SLEEP} &\nopen({str(started)!r} + '/{{}}', 'w').close()\n{WAITING}"
    for name in "ab":
        notebook(folder / f"{name}.ipynb", IMPORTS, STEP, RIGHT_STEP, hang.format(name))
    table = tmp_path / "marks.csv"
    table.write_text("old")
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_mamba_edu", "check", folder, "--jobs", "2", "--csv", table],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background, perhaps these tests, ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert within(120, lambda: len(list(started.iterdir())) == 2)
        assert len(left_behind(temporary)) >= 4
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        # Whoever is killed cannot tidy up: the notebooks then notice by themselves.
        assert within(60 if number == signal.SIGKILL else 0, lambda: not left_behind(temporary))
    finally:
        process.kill()
        for left in left_behind(temporary):
            left.kill()
    assert "Traceback" not in err
    assert table.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["marks.csv"]
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert list(temporary.iterdir()) == []


def within(seconds, done):
    """Whether something comes true in some seconds."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def test_memory_is_looked_at_about_20_times_a_second():
    assert 0 < runner.POLL <= 0.05


def test_signals_are_as_before_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, mine := lambda *_: None)
        run("check", notebook(tmp_path / "mine.ipynb", IMPORTS, STEP, RIGHT_STEP))
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kill = f"import os, time\nos.kill({os.getpid()}, {signal.SIGHUP})\ntime.sleep(0.2)\n"
    try:
        mine = notebook(tmp_path / "mine.ipynb", IMPORTS, STEP, kill + RIGHT_STEP, RIGHT_HOLD)
        assert run("check", mine) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


# What was handed in

NO_NOTEBOOKS = {
    "empty": (b"", "not a notebook: the file is empty"),
    "blank": (b" \n", "not a notebook: the file is empty"),
    "text": (b"print('hello')", "not a notebook: its text is not in the notebook format"),
    "list": (b"[1, 2]", "not a notebook: its text is not in the notebook format"),
    "number": (b"7", "not a notebook: its text is not in the notebook format"),
    "json": (b'{"cells": []}', "not a notebook: its text is not in the notebook format"),
    "future": (b'{"nbformat": 9, "cells": []}', "not a notebook: its text is not in"),
    "no cells": (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "not a notebook: "),
    "bad cells": (b'{"nbformat": 4, "nbformat_minor": 5, "cells": [1]}', "not a notebook: "),
    "bad source": (
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": '
        b'[{"cell_type": "code", "source": {"a": 1}, "metadata": {"tags": 3}}]}',
        "not a notebook: ",
    ),
    "utf-16": ('{"nbformat": 4}'.encode("utf-16"), "not a notebook: its text is not encoded in"),
    "latin-1": ('{"ä": 1}'.encode("latin-1"), "not a notebook: its text is not encoded in UTF-8"),
    "deep": (b"[" * 200_000, "not a notebook: its text is not in the notebook format"),
    "no checks": (
        nbformat.writes(new_notebook(cells=[new_code_cell("check_zoh(1)")])).encode(),
        "a notebook without checks: it imports none from tf_mamba_edu.checks",
    ),
}


def test_what_cannot_be_read_gets_a_line_and_the_others_run(tmp_path, scratch):
    for name, (content, _) in NO_NOTEBOOKS.items():
        (tmp_path / f"{name}.ipynb").write_bytes(content)
    paths = [tmp_path / f"{name}.ipynb" for name in NO_NOTEBOOKS]
    right = notebook(tmp_path / "right.ipynb", IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD)
    (tmp_path / "a folder.ipynb").mkdir()
    done = check(
        *paths, tmp_path / "gone.ipynb", tmp_path / "gone", tmp_path / "a folder.ipynb", right
    )
    assert done.code == 2
    assert passed(done.rows) == {"check_largest_step": True, "check_zoh": True}
    lines = dict(line.split(": ", 1) for line in done.err.splitlines())
    for path in paths:
        assert lines.pop(str(path)).startswith(NO_NOTEBOOKS[path.stem][1])
    assert lines == {
        str(tmp_path / "gone.ipynb"): "no such file or folder",
        str(tmp_path / "gone"): "no such file or folder",
        str(tmp_path / "a folder.ipynb"): "a folder without notebooks",
    }


def test_only_unreadable_files_give_lines_and_no_table(tmp_path):
    (tmp_path / "mine.py").write_text("x = 1")
    (tmp_path / "pipe.ipynb").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "pipe.ipynb")
    done = check(tmp_path / "mine.py", tmp_path / "pipe.ipynb")
    assert (done.code, done.out, done.rows) == (2, "", [])
    assert done.err.splitlines() == [
        f"{tmp_path / name}: not a notebook: a file named *.ipynb is needed"
        for name in ("mine.py", "pipe.ipynb")
    ]


def test_small_faults_of_editors_are_forgiven(tmp_path):
    made = nbformat.read(notebook(tmp_path / "x.ipynb", IMPORTS, STEP, RIGHT_STEP), 4)
    for cell in made.cells:
        cell.pop("id")
        cell.pop("outputs", None)
        cell["strange"] = 1
    path = tmp_path / "mine.ipynb"
    path.write_text("\ufeff" + json.dumps(made), "utf-8")
    assert [e.cell for e in notebooks.read(path).exercises] == [2, None]


def found_in(*paths, besides=None):
    found, problems = notebooks.find([str(path) for path in paths], besides)
    return [path.name for path in found], problems


def test_a_folder_is_searched_but_not_its_hidden_parts(tmp_path):
    names = ["z.ipynb", "a/b/deep.ipynb", "a/loud.IPYNB", ".hidden/x.ipynb", ".x.ipynb"]
    names += ["a/.ipynb_checkpoints/deep-checkpoint.ipynb", "venv/pyvenv.cfg", "venv/lib/v.ipynb"]
    names += ["a/notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert found_in(tmp_path) == (["z.ipynb", "loud.IPYNB", "deep.ipynb"], [])


def test_only_files_directly_in_a_folder_are_named(tmp_path):
    for name in ("a/x.ipynb", "a/notes.txt", "report.pdf", ".hidden", "marks.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "gone").symlink_to("nowhere")
    pdf = f"{tmp_path / 'report.pdf'}: not a notebook: a file named *.ipynb is needed"
    assert found_in(tmp_path, besides=tmp_path / "marks.csv") == (["x.ipynb"], [pdf])
    assert len(found_in(tmp_path)[1]) == 2


def test_a_file_that_is_named_twice_runs_once(tmp_path, monkeypatch):
    path = notebook(tmp_path / "a" / "x.ipynb", "1")
    (tmp_path / "link.ipynb").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    again = (path, "a/x.ipynb", "a", tmp_path, tmp_path / "a" / ".." / "a", "link.ipynb")
    assert found_in(*again) == (["x.ipynb"], [])
    assert len(found_in("gone", "gone")[1]) == 1


def test_a_file_name_that_is_no_text_is_shown(tmp_path):
    path = os.fsencode(tmp_path) + b"/m\xfcller\x1b.ipynb"
    notebook(Path(os.fsdecode(path)), IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD)
    done = check(Path(os.fsdecode(path)))
    assert done.code == 0
    done.out.encode("utf-8")
    assert done.rows[0]["hand-in"] == f"{tmp_path}/mller.ipynb"


# Exercises of a sheet


@pytest.mark.parametrize("path", [BLANK, SOLUTION], ids=lambda path: path.parent.name)
def test_the_books_sheet_has_its_exercises(path):
    found = notebooks.read(path).exercises
    assert [e.label for e in found] == [
        "1. Zero-order hold",
        "2. How far can Euler go?",
        "3. The bilinear rule",
        "4. Find two bugs",
        "5. Measure an order",
        "6. Exact for straight lines",
    ]
    assert found[2].key == "discretization.check_bilinear"


def test_a_sheet_that_lost_its_tags_has_the_same_exercises():
    cells = notebooks.read(BLANK).cells
    bare = [sheets.Cell(c.index, c.source, frozenset(), c.heading) for c in cells]
    assert sheets.exercises(bare) == sheets.exercises(cells)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (f"from {MODULE} import check_zoh; check_zoh(1)", ["check_zoh"]),
        (f"from {MODULE} import check_zoh, \\\n    check_run", ["check_zoh", "check_run"]),
        (f"from {MODULE} import (check_zoh,  # check_run\n)", ["check_zoh"]),
        (f"from {MODULE} import (check_zoh", ["check_zoh"]),
        (f"# from {MODULE} import check_zoh", []),
        (f"from {MODULE} import np, Check, Mistake", []),
        (f"from {MODULE} import check_new, helper_new", ["check_new"]),
        ("from tf_mamba_edu.checks import Check, NotYet", []),
        ("from tf_mamba_edu.checks.no_such_module import check_new", ["check_new"]),
        ("import tf_mamba_edu.checks.no_such_module", []),
        ("import tf_mamba_edu.checks.core", []),
        ("from tf_mamba_edu import checks", []),
    ],
)
def test_checks_are_found_where_they_are_imported(source, found):
    exercises = sheets.exercises([sheets.Cell(0, source)])
    assert sorted(e.check for e in exercises) == sorted(found)


def test_a_definition_is_no_call():
    cells = [sheets.Cell(0, f"from {MODULE} import check_zoh")]
    cells += [sheets.Cell(1, "def check_zoh(x):\n    pass\nprecheck_zoh(1)")]
    assert [e.cell for e in sheets.exercises(cells)] == [None]


# Reports


def test_the_exit_code_is_0_only_if_all_has_passed(tmp_path, scratch):
    right = notebook(tmp_path / "right.ipynb", IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD)
    wrong = notebook(
        tmp_path / "wrong.ipynb", IMPORTS, STEP, "check_largest_step(1)", HOLD, RIGHT_HOLD
    )
    assert check(right).code == 0
    assert check(right, wrong).code == 1


def test_a_terminal_gets_a_bar_in_place_of_lines(tmp_path, monkeypatch):
    path = notebook(tmp_path / "mine.ipynb", IMPORTS, STEP, RIGHT_STEP)
    assert check(path).out.startswith(f"{path}: 1 of 2 passed, ")
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = check(path).out
    assert "1 of 2 passed" not in out.split("hand-in")[0]
    assert "notebooks" in out and "1/1" in out and "\x1b[" in out


def marked(path, **changes):
    values = {"module": "discretization", "check": "check_zoh", "number": "1", "title": "T"}
    exercise = sheets.Exercise(**(values | changes))
    return [(notebooks.HandIn(Path(path), "", ()), [report.Mark(exercise, False, "-1 is wrong")])]


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_cell_of_the_csv_file_is_a_formula(tmp_path, start):
    table = tmp_path / "marks.csv"
    report.write_csv(table, marked(f"{start}x.ipynb", title=f"{start}cmd()", number="7"))
    [row] = read_csv(table)
    assert list(row) == ROW
    assert row["hand-in"] == f"'{start}x.ipynb" and row["exercise title"] == f"'{start}cmd()"
    assert row["message"] == "'-1 is wrong" and row["exercise number"] == "7"
    assert row["passed"] == "no"


def test_the_csv_file_is_utf_8_and_quotes_what_it_must(tmp_path):
    table = tmp_path / "marks.csv"
    report.write_csv(table, marked('ä,"b".ipynb', title="Δ\nt"))
    assert table.read_bytes().decode("utf-8").count("\n") == 2
    [row] = read_csv(table)
    assert (row["hand-in"], row["exercise title"]) == ('ä,"b".ipynb', "Δ t")


def test_a_csv_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    folder, table = tmp_path / "hand_ins", tmp_path / "marks.csv"
    notebook(folder / "right.ipynb", IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD)
    table.write_text("old")

    def replace(source, target):
        assert Path(source).parent == tmp_path and Path(source).read_text().count("\n") == 3
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        assert run("check", folder, "--csv", table) == 2
    out, err = capsys.readouterr()
    assert "2 of 2 exercises passed" in out
    assert err == f"--csv {table}: it cannot be written: No space left on device\n"
    assert table.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hand_ins", "marks.csv"]
    assert run("check", folder, "--csv", table) == 0
    assert len(read_csv(table)) == 2


def test_a_csv_file_among_the_hand_ins_is_none(tmp_path):
    notebook(tmp_path / "right.ipynb", IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD)
    for _ in range(2):
        assert run("check", tmp_path, "--csv", tmp_path / "marks.csv") == 0


def test_a_csv_file_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, capsys):
    path = notebook(tmp_path / "mine.ipynb", IMPORTS, STEP, RIGHT_STEP)
    before = path.read_bytes()
    for target in (tmp_path, tmp_path / "gone" / "marks.csv", path, "/dev/null"):
        assert run("check", path, "--csv", target) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"--csv {target}: a file in a folder that exists is")
    assert path.read_bytes() == before
    assert Path("/dev/null").is_char_device()


# Progress


@pytest.fixture
def sheet_folder(tmp_path, monkeypatch):
    """A working copy with two sheets, whose runs are counted in a file."""
    folder = tmp_path / "work" / "exercises"
    count = tmp_path / "count"
    counted = f"open({str(count)!r}, 'a').write({{!r}})"
    notebook(
        folder / "03_discretization.ipynb",
        (counted.format("3"), "x"),
        IMPORTS,
        STEP,
        RIGHT_STEP,
        HOLD,
        "check_zoh(...)",
    )
    cells = counted.format("4"), IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD
    notebook(folder / "04_another_name.ipynb", *cells)
    notebook(folder / "scratch.ipynb", counted.format("s"), IMPORTS)
    monkeypatch.chdir(tmp_path / "work")
    count.touch()

    def runs():
        found = "".join(sorted(count.read_text()))
        count.write_text("")
        return found

    return SimpleNamespace(folder=folder, runs=runs, cache=folder / ".progress.json")


OVERVIEW = """\
03 discretization  ●○  1 of 2
    open: 2. A hold
04 another name    ●●  2 of 2
total: 3 of 4 exercises
"""


def test_progress_shows_what_is_solved(sheet_folder, capsys, scratch):
    before = tree(sheet_folder.folder)
    assert run("progress") == 0
    assert capsys.readouterr() == (OVERVIEW, "")
    assert sheet_folder.runs() == "34"
    after = tree(sheet_folder.folder)
    assert after.pop(str(sheet_folder.cache.absolute()))
    assert after == before


def test_progress_runs_only_what_has_changed(sheet_folder, capsys, monkeypatch, tmp_path):
    first = sheet_folder.folder / "03_discretization.ipynb"
    assert run("progress") == 0 and sheet_folder.runs() == "34"
    assert run("progress", sheet_folder.folder) == 0 and sheet_folder.runs() == ""
    monkeypatch.chdir(sheet_folder.folder)
    assert run("progress") == 0 and sheet_folder.runs() == ""
    assert capsys.readouterr().out == 3 * OVERVIEW
    first.write_text(first.read_text("utf-8").replace("check_zoh(...)", "check_zoh(1)"), "utf-8")
    assert run("progress") == 0 and sheet_folder.runs() == "3"
    assert run("progress") == 0 and sheet_folder.runs() == ""
    with monkeypatch.context() as patch:
        patch.setattr(tf_mamba_edu, "__version__", "0.0.0")
        assert run("progress") == 0 and sheet_folder.runs() == "34"
    other = tmp_path / "other.py"
    other.write_text("# changed")
    for module in (core, sheets.checks_module("discretization")):
        run("progress")
        sheet_folder.runs()
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(other))
            assert run("progress") == 0 and sheet_folder.runs() == "34"


DAMAGED = ["", "{", "[]", "7", '{"KEY": 3}', '{"KEY": [1, 1]}', '{"KEY": [true]}', '{"KEY": null}']


def test_progress_ignores_a_damaged_file(sheet_folder, capsys):
    run("progress")
    key = next(iter(json.loads(sheet_folder.cache.read_text())))
    for text in (*DAMAGED, "\udcff", "[" * 100_000):
        sheet_folder.runs()
        content = text.replace("KEY", key).encode("utf-8", "surrogateescape")
        sheet_folder.cache.write_bytes(content)
        if text == DAMAGED[0]:
            assert run("progress") == 0 and sheet_folder.runs() == "34"
        else:
            found = progress.load(sheet_folder.folder)
            assert found == ({key: [True]} if text == '{"KEY": [true]}' else {}), text
    sheet_folder.cache.write_text(json.dumps({key: [True]}))  # too few
    capsys.readouterr()
    assert run("progress") == 0 and sheet_folder.runs() == "34"
    assert capsys.readouterr().out == OVERVIEW


def test_progress_writes_its_file_whole_or_not_at_all(sheet_folder, monkeypatch):
    progress.save(sheet_folder.folder, {"old": [True]})

    def replace(source, target):
        assert json.loads(Path(source).read_text()) == {"new": [False]}
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        progress.save(sheet_folder.folder, {"new": [False]})
    assert progress.load(sheet_folder.folder) == {"old": [True]}
    assert not list(sheet_folder.folder.glob(".progress.json?*"))


def test_progress_tries_again_what_was_stopped(sheet_folder, capsys):
    notebook(
        sheet_folder.folder / "04_another_name.ipynb", IMPORTS, STEP, RIGHT_STEP, WAITING, HOLD
    )
    (sheet_folder.folder / "05_broken.ipynb").write_text("")
    assert run("progress", "--timeout", 4) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "04 another name    ●○  1 of 2" and lines[3] == "    open: check_zoh"
    assert lines[-2] == "exercises/05_broken.ipynb: not a notebook: the file is empty"
    assert lines[-1].startswith("exercises/04_another_name.ipynb: stopped after 4 s, the time")
    assert len(json.loads(sheet_folder.cache.read_text())) == 1


def test_progress_needs_sheets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    notebook(tmp_path / "other.ipynb", IMPORTS)
    for given in ((), (tmp_path / "gone",), (tmp_path,)):
        assert run("progress", *given) == 2
        out, err = capsys.readouterr()
        folder = given[0] if given else "."
        assert (out, err) == ("", f"{folder}: a folder with sheets (NN_name.ipynb) is needed\n")


# The command line itself


def test_without_a_command_there_is_help(capsys):
    assert run() == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m tf_mamba_edu") and "check" in out and "progress" in out
    assert "experiments" in out


def test_the_help_says_that_there_is_no_sandbox(capsys):
    assert run("check", "--help") == 0
    help_text = capsys.readouterr().out
    assert "NO sandbox" in help_text and "container" in help_text and "throwaway" in help_text
    assert "exit code: 0" in help_text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check",), "PATH"),
        (("nonsense",), "nonsense"),
        (("check", "x", "--jobs", "0"), "'0' came, a whole number above 0 is needed"),
        (("check", "x", "--jobs", "1.5"), "'1.5' came, a whole number above 0 is needed"),
        (("check", "x", "--timeout", "-1"), "'-1' came, a number above 0 is needed"),
        (("check", "x", "--memory", "nan"), "'nan' came, a number above 0 is needed"),
        (("progress", "--memory", "much"), "'much' came, a number above 0 is needed"),
    ],
)
def test_bad_options_are_refused(capsys, arguments, said):
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err


def test_the_limits_have_their_defaults():
    options = cli._parser().parse_args(["check", "x"])
    assert (options.timeout, options.memory) == (300, 4)
    assert options.jobs == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("library", ["IPython", "nbformat", "psutil", "rich"])
def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch, capsys, library):
    monkeypatch.setitem(sys.modules, library, None)
    for command in ("check", "progress"):
        assert run(command, tmp_path) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert library in line and line.endswith("pip install 'tf-mamba-edu[check]'")


FRESH = """
import sys
import tensorflow, keras  # these may import what they like
for name in ("IPython", "nbformat", "psutil", "rich"):
    sys.modules[name] = None  # whoever imports it now fails
import tf_mamba_edu
mine = ("tf_mamba_edu.checks", "tf_mamba_edu.cli")
print([name for name in sys.modules if name.startswith(mine)])
import tf_mamba_edu.cli
print(tf_mamba_edu.cli.main([]))
import tf_mamba_edu.checks.discretization
print(tf_mamba_edu.checks.core.observers)
"""


def test_importing_the_package_imports_nothing_of_this():
    done = subprocess.run(
        [sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules, *_, code, observers = done.stdout.splitlines()
    assert (modules, code, observers) == ("[]", "0", "[]")


def test_the_version_is_the_packages(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"tf_mamba_edu {tf_mamba_edu.__version__}\n"


def test_signs_that_stdout_cannot_show_become_question_marks(tmp_path):
    path = notebook(tmp_path / "mine.ipynb", IMPORTS, STEP, RIGHT_STEP, HOLD, RIGHT_HOLD)
    done = subprocess.run(
        [sys.executable, "-m", "tf_mamba_edu", "check", path],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.count("? passed") == 2


# What the checks tell


def test_a_check_tells_its_observers_and_does_what_it_did(monkeypatch, capsys):
    heard = []
    monkeypatch.setattr(core, "observers", [lambda *verdict: heard.append(verdict)])
    check_largest_step(0.5)
    for wrong in (2.0, ...):
        with pytest.raises(NotYet):
            check_largest_step(wrong)
    assert capsys.readouterr().out == "✓ largest_step: right, well done.\n"
    assert all(check is check_largest_step for check, _, _ in heard)
    assert [problem for _, problem, _ in heard] == [
        None,
        check_largest_step.mistakes[1].message,
        EMPTY,
    ]
    assert [hint for _, _, hint in heard][1:] == [check_largest_step.hint, FIRST_HINT]


def test_an_error_is_described_in_one_line():
    class Unprintable(Exception):
        def __str__(self):
            raise SystemExit

    assert worker.describe(ValueError("a\n b")) == "ValueError: a b"
    assert worker.describe(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert worker.describe(Unprintable()).startswith("Unprintable: an error that cannot")
    assert len(worker.describe(ValueError("x" * 10**6))) == 300
