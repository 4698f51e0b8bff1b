"""Certificates of other simulators' gradients: `python tests/benchmarks/bench_simulators.py [SECTION] [--write]`.

Runs the examples of docs/other_simulators.md, or those of one section, and records their fits and certificates. Each
derivative is also compared with the slope between two points that are 5% of the parameters to either side, or 0.05 if
all of them are zero.
"""

import importlib.metadata
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import diffsim as ds
from timing import WORDS, keep

PAGE = Path(__file__).parents[2] / "docs" / "other_simulators.md"
CASES = {
    "exponax": ["viscosity"],
    "MuJoCo MJX": ["crane"],
    "MuJoCo MJX with a contact": ["ball_default", "ball_gradual"],
    "Brax": ["friction"],
}
"""The certificates of each section in their order."""

SHARE = 0.05


def main() -> None:
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    for title in [title for title in CASES if not WORDS or title in WORDS]:
        code = "\n".join(re.findall(r"^```python\n(.*?)^```", sections[title], re.DOTALL | re.MULTILINE))
        fits, checks = run(code)
        for name, fit, check in zip(CASES[title], fits, checks, strict=True):
            result = {**fit, **check}
            print(name, result, flush=True)
            keep("simulators", "bench_simulators.py --write", cases={name: result})
    installed = {name for names in importlib.metadata.packages_distributions().values() for name in names}
    packages = [name for name in ("exponax", "mujoco-mjx", "mujoco", "brax") if name in installed]
    versions = {name: importlib.metadata.version(name) for name in packages}
    keep("simulators", "bench_simulators.py --write", versions=versions)


def run(code: str) -> tuple[list[dict], list[dict]]:
    """Results of the fits and of the certificates that the code makes."""
    fits, checks, fit, check_gradients = [], [], ds.fit, ds.check_gradients

    def recorded_fit(*args, **options):
        began = time.perf_counter()
        model, history = fit(*args, **options)
        losses = {"first_loss": float(history.loss[0]), "last_loss": float(history.loss[-1])}
        fits.append({**losses, "fit_seconds": time.perf_counter() - began})
        return model, history

    def recorded_check(f, args):
        began = time.perf_counter()
        check = check_gradients(f, args)
        seconds = time.perf_counter() - began
        checks.append({**verdict(check), **slopes(f, *args), "check_seconds": seconds})
        return check

    ds.fit, ds.check_gradients = recorded_fit, recorded_check
    try:
        exec(compile(code, "example", "exec"), {})
    finally:
        ds.fit, ds.check_gradients = fit, check_gradients
    return fits, checks


def verdict(check: ds.gradcheck.GradientCheck) -> dict:
    """The verdict on the parameter with the worst one."""
    row = next(row for row in check.rows if row.name == check.worst.path)
    causes = [text.partition(". ")[0] for text in (*row.notes, *row.suspects)]
    return {"verdict": row.verdict, "differences": row.disagreement, "cause": "; ".join(causes)}


def slopes(f, model) -> dict:
    """The derivative along the direction of equal entries, and the slope between points to either side."""
    flat, restored = ravel_pytree(model)
    direction = jnp.ones_like(flat) / jnp.sqrt(flat.size)
    step = SHARE * (jnp.linalg.norm(flat) or 1.0)
    along = jax.jit(lambda s: f(restored(flat + s * direction)))
    derivative = jax.jit(jax.jacfwd(along))(0.0)
    return {"derivative": float(derivative), "slope": float((along(step) - along(-step)) / (2 * step))}


if __name__ == "__main__":
    main()
