"""Checks of the book's exercises, one module a chapter."""

from tf_mamba_edu.checks.core import Check, Mistake, NotYet

__all__ = ["Check", "Mistake", "NotYet"]
