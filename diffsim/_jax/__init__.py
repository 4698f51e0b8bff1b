"""What exists because of how JAX and XLA work: primitives and their rules."""
