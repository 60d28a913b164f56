"""What equation_map.py reads: places in papers, the package, the book, the tests.

Nothing is imported and nothing runs: texts and syntax trees only.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nb_package import DEFINITIONS, PACKAGE, all_modules, parse_file

SUBJECT = "2312.00752"  # the paper that is meant where none is named

# "equations 2a and 2b", "appendix E.2"; and who wrote it
NUMBER = r"\d+(?:\.\d+)*[a-z]?\b"
PLACE = (
    r"\b(?:(?i:equations?|eq\.|sections?|algorithms?|theorems?|figures?|tables?)"
    rf"\s{NUMBER}(?:(?:,| and|, and| to) {NUMBER})*|(?i:appendix)\s[A-Z](?:\.\d+)*)"
)
PAPER = r"(?:arXiv[: ](\d{4}\.\d{5})|\{cite(?::\w+)?\}`(\w+))"
OF_A_PAPER = rf"(?:(?:,| and|, and) {PLACE})* of (?:[a-z ]* for )?(?={PAPER})"
LABEL = re.compile(
    r"^ *(?:\((?P<ref>[\w:-]+)\)=|\$\$ \((?P<eq>[\w-]+)\)|name: (?P<numref>fig-[\w-]+)"
    r"|:label: (?P<prf>[\w-]+))$",
    re.MULTILINE,
)
API = re.compile(r"^\.\. auto\w+:: (\S+)\n(?:   :members: (.+))?", re.MULTILINE)


def places(text: str) -> list[tuple[int, str, str]]:
    """Where in papers a text points to: position, kind and number of each."""
    found = []
    for match in re.finditer(PLACE, text):
        kind, _, numbers = match[0].partition(" ")
        kind = kind.lower().rstrip("s.")
        kind = "equation" if kind == "eq" else kind
        found += [(match.start(), kind, n) for n in re.findall(r"\b[A-Z\d][\w.]*", numbers)]
    return found


def citations(text: str, papers: dict[str, str]) -> set[tuple[str, str, str]]:
    """The places that a text names: (paper, kind, number).

    The paper is the one behind "of", else the last one before in the same
    paragraph, else Mamba's. `papers` says which paper has which BibTeX key.
    """
    found = set()
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        named = [(m.start(), m[1] or papers.get(m[2], m[2])) for m in re.finditer(PAPER, words)]
        for start, kind, number in places(words):
            behind = re.compile(PLACE + OF_A_PAPER).match(words, start)
            last = behind.end() if behind else start
            paper = [SUBJECT, *(paper for at, paper in named if at <= last)][-1]
            found.add((paper, kind, number))
    return found


def docstrings(root: Path) -> dict[str, str]:
    """The docstrings of all public modules, classes, functions and methods."""
    found = {}
    for module, path in all_modules(root).items():
        name, tree = module.removeprefix(f"{PACKAGE}."), parse_file(path)
        for inner, node in [(name, tree), *_definitions(name, tree)]:
            if not any(part.startswith("_") for part in inner.split(".")):
                found[inner] = ast.get_docstring(node) or ""
    return found


def _definitions(name: str, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for child in node.body:
        if isinstance(child, DEFINITIONS):
            yield f"{name}.{child.name}", child
        if isinstance(child, ast.ClassDef):
            yield from _definitions(f"{name}.{child.name}", child)


def api_names(root: Path) -> set[str]:
    """The full names of what the API page describes."""
    found = set()
    for whole, members in API.findall((root / "book/api.md").read_text("utf-8")):
        found |= {whole, *(f"{whole}.{member}" for member in members.split(", "))}
    return found


def api_name(name: str, described: set[str]) -> str | None:
    """The one that means a dotted name of the package: it may leave out modules."""
    parts = name.split(".")
    full = [".".join([PACKAGE, *parts[start:]]) for start in range(len(parts))]
    return next((each for each in full if each in described), None)


def chapters(root: Path) -> list[Path]:
    """The texts of the chapters."""
    return sorted((root / "book").glob("[0-9][0-9]_*.md"))


def labels(root: Path) -> dict[str, tuple[str, str]]:
    """The labels in the chapters: the kind of each, and its chapter."""
    return {
        match[match.lastgroup]: (match.lastgroup, page.stem)
        for page in chapters(root)
        for match in LABEL.finditer(page.read_text("utf-8"))
    }


def all_tests(root: Path) -> set[str]:
    """All tests, as file::name."""
    return {
        f"{path.name}::{node.name}"
        for path in (root / "tests").glob("test_*.py")
        for node in parse_file(path).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
