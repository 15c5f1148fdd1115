"""A measurement with its operator and noise, and what can be said of these three alone."""

from invdiff.problem.problem import Case, Problem

__all__ = ["Case", "Problem"]
