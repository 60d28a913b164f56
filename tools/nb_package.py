"""The package's modules, read with `ast` and never imported.

A check then takes milliseconds, and works on code that is being edited.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "tf_mamba_edu"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class SourceError(Exception):
    """A source text asks for something that cannot be done."""


def module_file(root: Path, module: str) -> Path | None:
    """The file of a dotted module name below `root`, or None."""
    base = root.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.parent / f"{base.name}.py"):
        if path.is_file():
            return path
    return None


def all_modules(root: Path) -> dict[str, Path]:
    """Every module of the package: dotted name -> file."""
    modules = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        modules[".".join(parts)] = path
    return modules


def parse_file(path: Path) -> ast.Module:
    """The syntax tree of a file; a syntax error names the file."""
    try:
        return _parse(path.read_text("utf-8"))
    except SyntaxError as error:
        raise SourceError(f"{path.name}:{error.lineno}: {error.msg}") from error


@functools.cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module or class that run when it is defined.

    Goes into `if`, `try` and `with`, not into functions and classes.
    """
    for child in ast.iter_child_nodes(tree):
        yield child
        if not isinstance(child, (*DEFINITIONS, ast.Lambda)):
            yield from top_level(child)


def bound_names(tree: ast.AST) -> dict[str, ast.AST]:
    """The names that a module or class body binds, with their nodes."""
    names = {}
    for node in top_level(tree):
        if isinstance(node, DEFINITIONS):
            names[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = node
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, node)
    return names


def absolute_module(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The absolute name of the module that a `from ... import` names."""
    if not node.level:
        return node.module
    parts = module.split(".")
    parts = parts[: len(parts) - (node.level - is_package)]
    return ".".join(parts + ([node.module] if node.module else []))


def code_digest(root: Path, trees: list[ast.Module]) -> str:
    """A sha256 of the package's modules that code imports, directly or not."""
    modules = all_modules(root)
    digest = hashlib.sha256()
    for module in sorted(dependencies(root, trees)):
        digest.update(f"{module}\n{modules[module].read_text('utf-8')}\n".encode())
    return digest.hexdigest()


def dependencies(root: Path, trees: list[ast.Module]) -> set[str]:
    """The package's modules that code imports, directly or not."""
    modules = all_modules(root)
    waiting = set()
    for tree in trees:
        waiting |= _imported(modules, tree, within="")
    found = set()
    while waiting:
        module = waiting.pop()
        found.add(module)
        tree = parse_file(modules[module])
        waiting |= _imported(modules, tree, within=module) - found
    return found


def _imported(modules: dict, tree: ast.Module, within: str) -> set[str]:
    """The package's modules that one syntax tree imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & set(modules)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_module(node, within, _is_package(modules, within))
            for alias in node.names:
                found |= _home(modules, base, alias.name)
    return found


def _is_package(modules: dict, module: str) -> bool:
    return module in modules and modules[module].name == "__init__.py"


def _home(modules: dict, base: str, name: str) -> set[str]:
    """The module in which `from base import name` finds the name.

    An `__init__` that only passes a name on is no dependency: otherwise
    every notebook would be out of date after every edit.
    """
    if f"{base}.{name}" in modules:
        return {f"{base}.{name}"}
    if base not in modules:
        return set()
    if not _is_package(modules, base):
        return {base}
    node = bound_names(parse_file(modules[base])).get(name)
    if isinstance(node, ast.ImportFrom):
        original = [a.name for a in node.names if name == (a.asname or a.name)]
        return _home(modules, absolute_module(node, base, True), original[0])
    if node is not None:
        return {base}
    # Passed on in a way that reading does not show: depend on everything.
    return set(modules)
