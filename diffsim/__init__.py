"""diffsim: differentiable simulation on JAX."""
