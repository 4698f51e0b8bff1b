"""The certificate: evidence that the derivatives of a function are right."""

from .check import GradientCheck as GradientCheck
