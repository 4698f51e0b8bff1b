"""Taylor series in many digits: the flow of a vector field that is written against an array namespace."""

from collections.abc import Callable
from typing import Any

import mpmath as mp


class Series:
    """A power series whose coefficients are computed when they are asked for, by `rule(k)`, and kept."""

    def __init__(self, rule: Callable[[int], Any]):
        self.rule = rule
        self.known: list = []

    def __getitem__(self, k: int):
        while len(self.known) <= k:
            self.known.append(self.rule(len(self.known)))
        return self.known[k]

    def __add__(self, other):
        other = lift(other)
        return Series(lambda k: self[k] + other[k])

    def __neg__(self):
        return Series(lambda k: -self[k])

    def __sub__(self, other):
        return self + -lift(other)

    def __rsub__(self, other):
        return lift(other) - self

    def __mul__(self, other):
        if not isinstance(other, Series):
            return Series(lambda k: self[k] * other)
        return Series(lambda k: mp.fsum(self[j] * other[k - j] for j in range(k + 1)))

    def __truediv__(self, other):
        if not isinstance(other, Series):
            return Series(lambda k: self[k] / other)
        quotient = Series(lambda k: (self[k] - mp.fsum(quotient[j] * other[k - j] for j in range(k))) / other[0])
        return quotient

    __radd__, __rmul__ = __add__, __mul__


def lift(number: Any) -> Series:
    """Returns a number as a series; a series as it is."""
    return number if isinstance(number, Series) else Series(lambda k: mp.mpf(number) if k == 0 else mp.mpf(0))


def _turn(angle: Series) -> tuple[Series, Series]:
    """Sine and cosine, whose coefficients follow from each other's."""
    slope = lambda other, k: mp.fsum(j * angle[j] * other[k - j] for j in range(1, k + 1)) / k
    sine = Series(lambda k: slope(cosine, k) if k else mp.sin(angle[0]))
    cosine = Series(lambda k: -slope(sine, k) if k else mp.cos(angle[0]))
    return sine, cosine


class namespace:
    """The functions that vector fields use, of numbers or series."""

    @staticmethod
    def sin(x):
        """The sine."""
        return _turn(x)[0] if isinstance(x, Series) else mp.sin(x)

    @staticmethod
    def cos(x):
        """The cosine."""
        return _turn(x)[1] if isinstance(x, Series) else mp.cos(x)


class Flow:
    """The solution of dy/dt = field(xp, t, y) from (t, y), computed as far as it is asked for."""

    def __init__(self, field: Callable, t: Any, y: list):
        self.field = field
        self.order = max(12, int(1.2 * mp.mp.dps))
        self.end, self.y = t, list(y)
        self.slope: list = []
        self.pieces: list = []

    def __call__(self, t: Any) -> list:
        """Returns the state at a time, which is not before the start."""
        while t > self.end:
            self._step()
        if t == self.end:
            return list(self.y)
        begin, rows = next(piece for piece in reversed(self.pieces) if piece[0] <= t)
        return [mp.polyval(row, t - begin) for row in rows]

    def _step(self):
        """Adds the piece after the last one; its length is that at which the last coefficients are negligible."""
        state = [Series(lambda k, i=i: self.slope[i][k - 1] / k if k else self.y[i]) for i in range(len(self.y))]
        time = Series(lambda k: self.end if k == 0 else mp.mpf(k == 1))
        self.slope = [lift(part) for part in self.field(namespace, time, state)]
        rows = [[component[k] for k in range(self.order + 1)] for component in state]
        size = max([1, *(abs(row[0]) for row in rows)])
        last = max(max(abs(row[k]) ** (mp.mpf(1) / k) for row in rows) for k in (self.order - 1, self.order))
        tolerance = (size * mp.eps) ** (mp.mpf(1) / self.order)
        length = tolerance / last if last > 0 else mp.mpf(1000)
        rows = [row[::-1] for row in rows]
        self.pieces.append((self.end, rows))
        self.y = [mp.polyval(row, length) for row in rows]
        self.end += length
