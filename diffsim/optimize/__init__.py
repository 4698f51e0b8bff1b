"""Parameters that fit: least squares, minimization, bounds, several starts, evolution, multiple shooting."""
