"""What stages are made of: correlations, windows, padding, and evaluation block by block."""
