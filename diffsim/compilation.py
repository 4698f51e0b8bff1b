"""Compile times: programs cached on disk, programs counted, and small programs as one native function on a CPU."""

from ._jax.compilation import cache_compilation as cache_compilation
from ._jax.compilation import count_compilations as count_compilations
from ._jax.compile_whole import compile_whole as compile_whole
