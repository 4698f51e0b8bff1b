"""Ordinary differential equations with events: integration, and the derivatives of what it computes."""
