"""Outputs that are the same on every run, and the faults they may have."""

import base64
import io
import re
import sys
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from nb_source import tags_of

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{8,}\b")
COLORS = 128  # in a figure's palette: enough for lines, too few for heat maps


def normalize(cell: NotebookNode, count: int) -> None:
    """Bring the outputs of an executed code cell into their stored form."""
    cell.execution_count = count
    cell.outputs = _merge_streams(cell.outputs)
    for output in cell.outputs:
        if "execution_count" in output:
            output.execution_count = count
        if output.output_type == "stream":
            output.text = as_terminal(output.text)
        if output.output_type == "error":
            output.traceback = [ANSI.sub("", line) for line in output.traceback]
        if "image/png" in output.get("data", {}):
            png = output.data["image/png"]
            output.data["image/png"] = small_png(png, "full-color" in tags_of(cell))


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join what one stream wrote in several pieces.

    Where the pieces end depends on timing, not on the program.
    """
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and "stream" == output.output_type == last.output_type:
            if output.name == last.name:
                last.text += output.text
                continue
        merged.append(output)
    return merged


def as_terminal(text: str) -> str:
    r"""The text that a terminal would show in the end.

    A progress bar goes back with `\r` or `\b` and writes over itself: only
    its last state stays. Colors are dropped.
    """
    lines = ANSI.sub("", text).split("\n")
    return "\n".join(_overwritten(line) for line in lines)


def _overwritten(line: str) -> str:
    if "\r" not in line and "\b" not in line:
        return line
    shown, column = [], 0
    for char in line:
        if char == "\r":
            column = 0
        elif char == "\b":
            column = max(column - 1, 0)
        else:
            shown[column : column + 1] = [char]
            column += 1
    return "".join(shown).rstrip()


def small_png(encoded: str, full_color: bool) -> str:
    """A figure with a palette: a fourth of the size, the same picture.

    A picture that has a palette already, or that one can look through,
    keeps its colors. The plotting library's version is not stored.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode == "RGB" and not full_color:
        image = image.quantize(COLORS)
    image.info.clear()
    stored = io.BytesIO()
    image.save(stored, "png", optimize=True)
    return base64.b64encode(stored.getvalue()).decode() + "\n"


def faults(cell: NotebookNode, root: Path) -> list[str]:
    """What must not stand in a committed output, one line each."""
    found = []
    for output in cell.outputs:
        if output.get("name") == "stderr":
            found.append(f"an output holds stderr: {_first_line(output.text)}")
            continue
        text = _text_of(output)
        address = ADDRESS.search(text)
        if address:
            found.append(f"an output holds a memory address: {address[0]}")
        for path in _machine_paths(root):
            if path in text:
                found.append(f"an output names a path of this machine: {path}")
    return found


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0] if lines else ""


def _text_of(output: NotebookNode) -> str:
    data = output.get("data", {})
    texts = [value for kind, value in data.items() if kind.startswith("text/")]
    texts += [output.get("text", ""), output.get("evalue", "")]
    return "\n".join([*texts, *output.get("traceback", [])])


def _machine_paths(root: Path) -> list[str]:
    paths = [root, sys.prefix, Path.home(), tempfile.gettempdir()]
    return [f"{path}/" for path in dict.fromkeys(map(str, paths))]
