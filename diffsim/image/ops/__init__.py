"""Operators that stages share: correlations, windows, padding, curves, and evaluation block by block."""
