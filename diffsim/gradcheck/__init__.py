"""The certificate: evidence that the derivatives of a function are right."""

from .report import GradientCheck as GradientCheck
