"""Workarounds for JAX and XLA: primitives and their rules."""
