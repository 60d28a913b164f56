"""Long computations of the book: each stores what it measured, and chapters load it."""

EXPERIMENTS = {  # name -> module, function, what it is
    "block_parts": (
        "block_parts",
        "main",
        "chapter 09: the block with one part missing, on two tests (90 runs of half a minute)",
    ),
    "delay": (
        "delay",
        "main",
        "chapter 05: a memory of 500 steps (15 runs of half a minute)",
    ),
    "induction": (
        "induction",
        "main",
        "chapter 06: induction with S6 and S4D (9 runs of a minute)",
    ),
    "letters": (
        "letters",
        "main",
        "chapter 06: a model of letters to look at (one run of ten minutes)",
    ),
    "selective_copying": (
        "selectivity",
        "main",
        "chapter 06: S6 and S4D at length 256 (13 runs of ten minutes)",
    ),
    "selection_ablation": (
        "selectivity",
        "ablation",
        "chapter 06: B, C, Delta one at a time (27 runs of five minutes)",
    ),
}
