"""Parameters that fit: least squares, minimization, bounds, multistart, evolution, multiple shooting."""
