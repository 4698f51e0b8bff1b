"""Figures, animations and report pages."""
