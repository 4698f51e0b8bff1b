"""Ways of differentiating a function."""
