"""The equation map: paper -> chapter -> function -> test, one page.

    python tools/equation_map.py            write book/equation_map.md
    python tools/equation_map.py --check    say what is wrong, write nothing

The page is made from tools/equation_map.yaml. The check holds that table
against package, chapters and tests, in both directions: what an entry names
must exist, and what a docstring or a chapter cites must be in an entry.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from equation_map_read import (
    PAPER,
    all_tests,
    api_name,
    api_names,
    chapters,
    citations,
    docstrings,
    labels,
    places,
)

ROOT = Path(__file__).resolve().parent.parent
DATA, PAGE = "tools/equation_map.yaml", "book/equation_map.md"
LISTS = "chapter", "cited_by", "also", "tests"  # what an entry may leave out
NUMBERED = "equation", "theorem", "algorithm"  # what no chapter names without an entry
FEW = 3  # papers with fewer entries share a table

HEAD = f"""\
% Written by tools/equation_map.py from {DATA}: edit there.

(equation-map)=
# Equation map

Where an equation, a section or an algorithm of a paper is explained, computed and tested.
A function in **bold** names the place in its own docstring. The tests are in `tests/`.

`make check` holds this page against the book. What it names must exist. What it leaves out is
found as well: a place that a docstring names, or a numbered equation, theorem or algorithm of
a paper that a chapter names, must stand here.
"""
TABLE = [
    "```{table}",
    ":class: equation-map",
    "",
    "| in the paper | chapter | function | test |",
    "|---|---|---|---|",
]


def entries(root: Path) -> list[dict]:
    """The table, an entry a row: each with its paper and all its lists."""
    return [
        {"name": p["name"], "key": p["key"], "paper": p.get("paper", p["key"])}
        | {key: [] for key in LISTS}
        | entry
        for p in yaml.safe_load((root / DATA).read_text("utf-8"))
        for entry in p["entries"]
    ]


def covers(entry: dict, paper: str, kind: str, number: str) -> bool:
    """Whether an entry is about a place; "equation 2" is both 2a and 2b."""
    own = {n for _, k, n in places(entry["place"]) if k == kind}
    whole = {n.rstrip("ab") for n in own}
    return entry["paper"] == paper and (number in own | whole or number.rstrip("ab") in own)


def problems(root: Path) -> list[str]:
    """One line for each thing in the table that is wrong, and for each gap."""
    table = entries(root)
    found, page = [*wrong_entries(root, table), *gaps(root, table)], root / PAGE
    if not found and not (page.exists() and page.read_text("utf-8") == rendered(root)):
        found.append(f"{PAGE} is not what {DATA} says: python tools/equation_map.py")
    return found


def wrong_entries(root: Path, table: list[dict]) -> Iterator[str]:
    """What entries name and is not there, or does not say what they claim."""
    papers = {e["key"]: e["paper"] for e in table}
    known, described, there, tests = (
        docstrings(root),
        api_names(root),
        labels(root),
        all_tests(root),
    )
    for e in table:
        where = f"{DATA}: {e['name']}, {e['place']}:"
        unknown = set(e) - {"name", "key", "paper", "place", "says", *LISTS}
        yield from (f"{where} {key} is no key of an entry" for key in sorted(unknown))
        yield from (f"{where} no chapter has the label {n}" for n in e["chapter"] if n not in there)
        yield from (f"{where} there is no test {n}" for n in e["tests"] if n not in tests)
        for name in e["cited_by"] + e["also"]:
            if name not in known:
                yield f"{where} the package has no {name}"
            elif api_name(name, described) is None:
                yield f"{where} {name} is not on the API page"
        for name in e["cited_by"]:
            if not any(covers(e, *place) for place in citations(known.get(name, ""), papers)):
                yield f"{where} the docstring of {name} does not name it"


def gaps(root: Path, table: list[dict]) -> Iterator[str]:
    """What docstrings and chapters cite and no entry has."""
    papers, there = {e["key"]: e["paper"] for e in table}, labels(root)
    for name, text in docstrings(root).items():
        for paper in sorted({m[1] for m in re.finditer(PAPER, text)} - {None, *papers.values()}):
            yield f"GAP: {name} cites arXiv {paper}, which has no entry"
        for place in sorted(citations(text, papers)):
            if not any(covers(e, *place) and name in e["cited_by"] for e in table):
                yield f"GAP: {name} cites {_told(*place)}, and no entry says so"
    for page in chapters(root):
        text = page.read_text("utf-8").partition("\n## Further reading")[0]
        for place in sorted(citations(text, papers)):
            leads = [n for e in table if covers(e, *place) for n in e["chapter"] if n in there]
            if place[1] in NUMBERED and page.stem not in [there[n][1] for n in leads]:
                yield f"GAP: {page.name} names {_told(*place)}, and no entry leads there"


def _told(paper: str, kind: str, number: str) -> str:
    return f"{kind} {number} of {paper}"


def rendered(root: Path) -> str:
    """The text of the page: a table a paper, and one for those with few entries."""
    table, lines = entries(root), [HEAD]
    groups = {}
    for e in table:
        many = sum(other["paper"] == e["paper"] for other in table) >= FEW
        groups.setdefault(e["paper"] if many else "", []).append(e)
    for paper in sorted(groups, key=lambda paper: not paper):  # the others last
        first = groups[paper][0]
        source = f"{{cite:t}}`{first['key']}`, [arXiv {paper}](https://arxiv.org/abs/{paper})"
        lines += [f"## {first['name']}", "", source, ""] if paper else ["## Other papers", ""]
        lines += [*TABLE, *_rows(root, groups[paper], cite=not paper), "```", ""]
    return "\n".join(lines)


def _rows(root: Path, table: list[dict], cite: bool) -> Iterator[str]:
    there, described = labels(root), api_names(root)
    numbers = {page: label for label, (_, page) in there.items() if label.startswith("ch:")}
    for e in table:
        pages = {}
        for label in e["chapter"]:
            kind, page = there[label]
            role = "prf:ref" if kind == "prf" else kind
            pages.setdefault(page, []).append(f"{{{role}}}`{label}`")
        where = [f"{{ref}}`{p[:2]} <{numbers[p]}>`: {', '.join(own)}" for p, own in pages.items()]
        code = [f"**{_link(name, described)}**" for name in e["cited_by"]]
        code += [_link(name, described) for name in e["also"]]
        tests = [_breakable(test) for test in e["tests"]]
        place = f"{{cite:t}}`{e['key']}`, " * cite + f"*{e['place']}*: {e['says']}"
        lists = map("<br>".join, (where or ["not in this book"], code, tests))
        yield f"| {' | '.join([place, *lists])} |"


def _link(name: str, described: set[str]) -> str:
    short = re.search(r"(?:[A-Z]\w*\.)?\w+$", name)[0]  # a method with its class
    return f"{{py:obj}}`{short} <{api_name(name, described)}>`"


def _breakable(test: str) -> str:
    """A test as code that may go on in the next line behind each of its words."""
    file, _, name = test.partition("::")
    return f"`{file}`<br><code>{name.replace('_', '_<wbr>')}</code>"


def main() -> None:
    """Run the command line; exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    found = list(wrong_entries(ROOT, entries(ROOT)))
    if not parser.parse_args().check and not found:
        (ROOT / PAGE).write_text(rendered(ROOT), "utf-8")
    found = problems(ROOT)
    print("\n".join(found) if found else "the equation map is in order")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
