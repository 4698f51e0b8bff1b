"""Trust: the evidence that a derivative is right."""
