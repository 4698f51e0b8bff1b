"""Learning: fits of any model, and networks that respect limits."""
