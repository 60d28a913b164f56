"""Long computations of the book: each stores what it measured, and chapters load it."""
