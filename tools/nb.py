"""Notebooks from text: MyST sources -> executed, normalized .ipynb files.

    python tools/nb.py            rebuild what is out of date (executes)
    python tools/nb.py PATH...    the same for some sources, notebooks, folders
    python tools/nb.py --all      rebuild even what is up to date
    python tools/nb.py --prose    new text around the same code: keep its outputs
    python tools/nb.py --check    say what is wrong, execute nothing

A notebook is out of date when its text changed, or the code of the package
that it imports.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat

from nb_check import all_prose_problems, pages, problems, same_package, same_source
from nb_package import SourceError
from nb_run import CellFailed, run
from nb_source import Target, code_cells, expected, tags_of, targets

ROOT = Path(__file__).resolve().parent.parent


def is_current(wanted: nbformat.NotebookNode, notebook: Path) -> bool:
    """Whether the stored notebook is what its source and the package ask for."""
    if not notebook.exists():
        return False
    stored = nbformat.read(notebook, 4)
    return same_source(wanted, stored) and same_package(wanted, stored)


def build(root: Path, chosen: list[Target], everything: bool = False) -> list[str]:
    """Rebuild what is out of date; return what failed, one text each.

    A notebook whose run fails stays as it was.
    """
    failures = []
    for target in chosen:
        where = target.notebook.relative_to(root)
        start = time.monotonic()
        try:
            wanted = expected(root, target)
            if not everything and is_current(wanted, target.notebook):
                continue
            target.notebook.parent.mkdir(exist_ok=True)
            run(wanted, target.notebook.parent, root)
        except (SourceError, CellFailed) as error:
            failures.append(f"{where}: {error}")
            continue
        write(wanted, target.notebook)
        print(f"{where}  {time.monotonic() - start:.1f} s", flush=True)
    return failures


def keep_outputs(root: Path, chosen: list[Target]) -> list[str]:
    """Rewrite what is out of date in its text alone; return what is not, one text each.

    Outputs stay, and so does the note which code of the package they were made with.
    """
    failures = []
    for target in chosen:
        wanted = expected(root, target)
        if not target.notebook.exists():
            failures.append(f"{target.notebook.relative_to(root)}: was never run")
            continue
        stored = nbformat.read(target.notebook, 4)
        if same_source(wanted, stored):
            continue
        new, old = code_cells(wanted), code_cells(stored)
        if [(c.source, tags_of(c)) for c in new] != [(c.source, tags_of(c)) for c in old]:
            failures.append(f"{target.notebook.relative_to(root)}: its code changed, too")
            continue
        for cell, run_before in zip(new, old, strict=True):
            cell.outputs = run_before.outputs
            cell.execution_count = run_before.execution_count
        wanted.metadata["tf_mamba_edu"] = stored.metadata.get("tf_mamba_edu")
        write(wanted, target.notebook)
        print(target.notebook.relative_to(root), flush=True)
    return failures


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    nbformat.validate(notebook)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    nbformat.write(notebook, unfinished)
    os.replace(unfinished, path)


def check(root: Path, paths: Sequence[Path] = ()) -> list[str]:
    """All problems of the chosen notebooks and pages, one line each."""
    chosen = choose(root, paths)
    sources = {target.source for target in chosen}
    prose = [page for page in pages(root) if page in sources or is_chosen(paths, page)]
    return problems(root, chosen) + all_prose_problems(root, prose)


def choose(root: Path, paths: Sequence[Path] = ()) -> list[Target]:
    """The notebooks that some paths name; all of them without paths."""
    return [t for t in targets(root) if is_chosen(paths, t.source, t.notebook)]


def is_chosen(paths: Sequence[Path], *files: Path) -> bool:
    """Whether one of the files is, or lies below, one of the paths."""
    folders = [path.resolve() for path in paths]
    return not paths or any(f.is_relative_to(p) for f in files for p in folders)


def older_package(root: Path, chosen: list[Target]) -> list[str]:
    """The notebooks that were run with other code of the package.

    This is no fault by itself: nbval tests that they still come out the
    same. Figures it does not compare, so they deserve a new run.
    """
    found = []
    for target in chosen:
        try:
            wanted = expected(root, target)
        except SourceError:
            continue
        if target.notebook.exists():
            stored = nbformat.read(target.notebook, 4)
            if same_source(wanted, stored) and not same_package(wanted, stored):
                found.append(str(target.notebook.relative_to(root)))
    return found


def main() -> None:
    """Run the command line; exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    parser.add_argument("--all", action="store_true", dest="everything")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--prose", action="store_true")
    options = parser.parse_args()

    chosen = choose(ROOT, options.paths)
    if options.paths and not chosen and not options.check:
        parser.error("no notebook is made from or below these paths")
    if options.check:
        found = check(ROOT, options.paths)
        for notebook in older_package(ROOT, chosen):
            print(f"note: {notebook} was run with older package code (make nb)")
        closing = "the notebooks and pages are in order"
    elif options.prose:
        found = keep_outputs(ROOT, chosen)
        closing = f"the text of {len(chosen)} notebooks is up to date"
    else:
        found = build(ROOT, chosen, options.everything)
        closing = f"{len(chosen)} notebooks are up to date"
    print("\n".join(found) if found else closing)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
