"""Systems: parameters, vector fields and energies, one module for each system."""
