"""Time: trajectories, events, and the modes of differentiating them."""
