"""Systems in discrete time: rollouts, and vector fields under a digital controller."""
