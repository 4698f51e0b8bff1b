"""A yardstick for gradients of hybrid ODE systems: problems with known answers, and libraries that are asked them."""
