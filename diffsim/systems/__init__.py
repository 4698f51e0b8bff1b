"""Systems: parameters, physics and energies, one module each."""
