"""Systems that move in steps: rollouts, and machines under a digital controller."""
