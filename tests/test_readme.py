"""The example of the README runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_example_trains_and_writes():
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    run = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-2000:]
    losses = [float(loss) for loss in re.findall(r"loss: ([0-9.]+)", run.stdout)]
    assert losses[-1] < 6.0 < losses[0]  # log 2000 = 7.6 is knowing nothing
    written = run.stdout.strip().split("\n")[-1]
    assert written.startswith("in the beginning god created")
    assert len(written.split()) > 20


def test_every_file_that_it_links_to_exists():
    text = (ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (ROOT / target).exists(), target
