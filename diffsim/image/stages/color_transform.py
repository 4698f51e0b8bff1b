"""Any 3 x 3 matrix on the colours of every pixel."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ...parameters import param
from ..ops.pointwise import by_strips


class ColorTransform(eqx.Module):
    """The colours of every pixel multiplied by any matrix; a `ColorMatrix` keeps grey, this one need not.

    Examples:
        >>> swap = ds.image.ColorTransform(matrix=jnp.eye(3)[::-1])
        >>> print(swap(jnp.array([0.1, 0.2, 0.3])[:, None, None])[:, 0, 0])
        [0.3 0.2 0.1]
    """

    matrix: Float[Array, "3 3"] = param(np.eye(3))

    def __call__(self, picture: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
        """Returns the picture in other colours."""
        return _transformed(self.matrix.ravel(), picture)


@by_strips
def _transformed(numbers, planes):
    red, green, blue = planes
    rows = numbers[0:3], numbers[3:6], numbers[6:9]
    return [a * red + b * green + c * blue for a, b, c in rows]
