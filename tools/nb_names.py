"""Which names exist in a chapter's code, in the package and in Python."""

import ast
import builtins
import keyword
from pathlib import Path

from nb_outside import attributes_exist
from nb_package import (
    DEFINITIONS,
    PACKAGE,
    all_modules,
    bound_names,
    module_file,
    parse_file,
)

# Known everywhere, so that a page without code may name them too.
COMMON_MODULES = {
    "keras": "keras",
    "matplotlib": "matplotlib",
    "np": "numpy",
    "numpy": "numpy",
    "plt": "matplotlib.pyplot",
    "scipy": "scipy",
    "tensorflow": "tensorflow",
    "tf": "tensorflow",
    PACKAGE: PACKAGE,
}


class CodeNames:
    """The names in some code cells, and what the imported ones stand for."""

    def __init__(self, trees: list[ast.Module]):
        """Collect every name that the code binds, passes or uses."""
        self.names = set()
        self.imports = dict(COMMON_MODULES)
        for tree in trees:
            for node in ast.walk(tree):
                self._add(node)
        self.names |= set(self.imports)

    def _add(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            self.names.add(node.id)
        elif isinstance(node, DEFINITIONS):
            self.names.add(node.name)
        elif isinstance(node, ast.arg | ast.keyword):
            self.names.add(node.arg)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                self.imports[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                self.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"


class PackageNames:
    """The public names of the package, and the members of what has members.

    The members of a class with a base from elsewhere are not all known:
    such a class has the value None.
    """

    def __init__(self, root: Path):
        """Read every module of the package."""
        self.names = set()
        self.members = {}
        self._classes = {}
        for module, path in all_modules(root).items():
            tree = parse_file(path)
            own = {name for name in bound_names(tree) if not name.startswith("_")}
            self.members[module] = own | _submodules(root, module)
            self.names |= own | {module.split(".")[-1]}
            self._add_definitions(tree)
        for name in self._classes:
            self.members[name] = self._class_members(name)
            self.names |= self.members[name] or self._classes[name][0]

    def _add_definitions(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                self.names.add(node.arg)
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).split(".")[-1] for base in node.bases]
                self._classes[node.name] = (_own_members(node), bases)

    def _class_members(self, name: str) -> set[str] | None:
        own, bases = self._classes[name]
        members = set(own)
        for base in bases:
            inherited = self._class_members(base) if base in self._classes else None
            if inherited is None and base != "object":
                return None
            members |= inherited or set()
        return members

    def has(self, parts: list[str]) -> bool:
        """Whether a dotted name below the package exists."""
        if parts[0] == PACKAGE:
            module = PACKAGE
            parts = parts[1:]
            while parts and f"{module}.{parts[0]}" in self.members:
                module = f"{module}.{parts[0]}"
                parts = parts[1:]
            if not parts:
                return True
            if parts[0] not in self.members[module]:
                return False
        name, *rest = parts
        members = self.members.get(name)
        return not rest or members is None or rest[0] in members


def _submodules(root: Path, module: str) -> set[str]:
    path = module_file(root, module)
    if path.name != "__init__.py":
        return set()
    inside = [each for each in path.parent.iterdir() if not each.name.startswith("_")]
    return {each.stem for each in inside}


def _own_members(node: ast.ClassDef) -> set[str]:
    """The methods, class attributes and `self.` attributes of a class."""
    members = set(bound_names(node))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            if isinstance(inner.value, ast.Name) and inner.value.id == "self":
                members.add(inner.attr)
    return {name for name in members if not name.startswith("_")}


def is_builtin(parts: list[str]) -> bool:
    """Whether a name belongs to Python itself."""
    name, *rest = parts
    if keyword.iskeyword(name) and not rest:
        return True
    return hasattr(builtins, name) and attributes_exist(getattr(builtins, name), rest)
