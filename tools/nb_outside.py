"""Whether a name of another library exists, importing as little as possible."""

import ast
import contextlib
import functools
import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from nb_package import absolute_module, bound_names, module_file, parse_file


@functools.cache
def exists_outside(dotted: str) -> bool:
    """Whether a dotted name of another library exists.

    Its files are read first, since importing TensorFlow takes seconds; what
    reading cannot decide is imported.
    """
    return _found_by_reading(dotted) or _found_by_importing(dotted)


def _found_by_reading(dotted: str) -> bool:
    top, *rest = dotted.split(".")
    found = importlib.util.find_spec(top)
    if found is None or not found.submodule_search_locations:
        return False
    folder = Path(found.submodule_search_locations[0]).parent
    module = top
    for count, name in enumerate(rest, start=1):
        if module_file(folder, f"{module}.{name}"):
            module = f"{module}.{name}"
            continue
        path = module_file(folder, module)
        node = _names_of_file(path).get(name)
        if count == len(rest):
            return node is not None
        if not isinstance(node, ast.ImportFrom):
            return False
        original = next(a.name for a in node.names if name == (a.asname or a.name))
        base = absolute_module(node, module, path.name == "__init__.py")
        module = f"{base}.{original}"
        if not module_file(folder, module):
            return False
    return True


@functools.cache
def _names_of_file(path: Path) -> dict[str, ast.AST]:
    return bound_names(parse_file(path))


def _found_by_importing(dotted: str) -> bool:
    module, *rest = dotted.split(".")
    with _start_up_lines_dropped():
        try:
            found = importlib.import_module(module)
        except ImportError:
            return False
        while rest and not hasattr(found, rest[0]):
            try:
                found = importlib.import_module(f"{found.__name__}.{rest[0]}")
            except (ImportError, AttributeError):
                return False
            rest = rest[1:]
        return attributes_exist(found, rest)


def attributes_exist(found: object, names: list[str]) -> bool:
    """Whether an object has an attribute that has an attribute, and so on."""
    for name in names:
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


@contextlib.contextmanager
def _start_up_lines_dropped() -> Iterator[None]:
    """Point file descriptor 2 away while TensorFlow greets on it."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
