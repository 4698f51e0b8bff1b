"""Names for arrays and trees that cross files."""

from typing import Any, TypeAlias

from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

Scalar: TypeAlias = Float[Array, ""]
"""The type of a parameter, a time or a loss: an array of shape () of real numbers."""
ScalarLike: TypeAlias = Float[ArrayLike, ""]
Vector: TypeAlias = Float[Array, " n"]
Count: TypeAlias = Int[Array, ""]
Flag: TypeAlias = Bool[Array, ""]
State: TypeAlias = PyTree[Float[Array, "..."]]
StateLike: TypeAlias = PyTree[Float[ArrayLike, "..."]]
Model: TypeAlias = PyTree[Any]
Args: TypeAlias = Any
