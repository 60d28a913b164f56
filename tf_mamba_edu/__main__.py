"""Runs the command line: `python -m tf_mamba_edu`."""

import sys

from tf_mamba_edu.cli import main

if __name__ == "__main__":
    # What a terminal cannot show, such as a check mark, becomes a question mark there.
    sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
