"""Names for arrays and trees that cross files."""

from typing import Any, TypeAlias

from jaxtyping import Array, Bool, Float, Int, PyTree

Scalar: TypeAlias = Float[Array, ""]
Vector: TypeAlias = Float[Array, " n"]
Count: TypeAlias = Int[Array, ""]
Flag: TypeAlias = Bool[Array, ""]
State: TypeAlias = PyTree[Float[Array, "..."]]
Model: TypeAlias = PyTree[Any]
Args: TypeAlias = Any
