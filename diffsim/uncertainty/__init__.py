"""How well parameters are known: posteriors, profile likelihoods, sensitivities."""
