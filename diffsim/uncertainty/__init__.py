"""How well parameters are known: posteriors, profile likelihoods, sensitivities."""

from .covariance import laplace_posterior as laplace_posterior
from .posterior import CredibleBand as CredibleBand
from .posterior import Posterior as Posterior
from .profile_likelihood import ProfileLikelihood as ProfileLikelihood
from .sensitivity import SobolIndices as SobolIndices
from .sensitivity import sensitivities as sensitivities
from .sensitivity import sobol_indices as sobol_indices
