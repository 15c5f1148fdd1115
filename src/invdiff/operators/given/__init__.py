"""Operators that are given: functions, matrices, those of other libraries."""
