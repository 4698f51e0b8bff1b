"""Training: the loop over optimizer steps and what it needs."""
