"""Programs for accelerators, without an accelerator: exported for CUDA and TPU they have no operation of CPUs only."""

import importlib.util
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import optax
import pytest

import diffsim as ds
from diffsim import Event, Phase, integrate, integrate_hybrid
from diffsim.image import pretrained
from diffsim.image.training import train_chain
from diffsim.optimize.iterations import run_iterations

KEY = jr.key(0)
SCENARIOS = Path(__file__).parent.parent / "scenarios"
# Libraries and random numbers of a GPU; operations of a TPU; uninitialised memory, and annotations for the compiler.
KNOWN = {
    "cuda": r"cu(solver|blas|_)\w*|AllocateBuffer|Sharding",
    "tpu": r"Qr|Cholesky|LuDecomposition|AllocateBuffer|Sharding",
}


def in_its_format(name):
    """A scenario as a new module, with numbers in the current format."""
    spec = importlib.util.spec_from_file_location(name, SCENARIOS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def decay(dtype):
    ts = jnp.linspace(0.0, 1.0, 5, dtype=dtype)
    end = lambda k: integrate(lambda t, y, k: -k * y, jnp.ones(2, dtype), ts, k)[-1].sum()
    return jax.value_and_grad(end), jnp.asarray(0.5, dtype)


def bounce(dtype, mode="auto"):
    def height(v):
        ground = Event(lambda t, y, g: y[0], "falling", lambda t, y, g: (0 * y[0], -v[1] * y[1]), to=0)
        fall = Phase(lambda t, y, g: (y[1], -g), ground)
        start = v[2], v[3]
        return integrate_hybrid(fall, start, v[0], t1=1.0, max_events=4, mode=mode).y[0]

    return jax.value_and_grad(height), jnp.array([9.81, 0.9, 1.0, 0.0], dtype)


def bounces(dtype, mode="auto"):
    one, x = bounce(dtype, mode)
    return jax.vmap(one), jnp.stack([x, x])


def replayed_bounces(dtype):
    """So many numbers that they are differentiated in reverse mode."""
    return bounces(dtype, "replay")


def controller(dtype):
    s = in_its_format("cartpole")
    policy = s.network(KEY)
    chosen, rest = eqx.partition(policy, ds.trainable(policy, "layers"))
    state = s.OPTIMIZER.init(chosen)

    def step(chosen, state, starts):
        loss = lambda chosen: s.loss_over(3)(eqx.combine(chosen, rest), starts)
        value, gradient = jax.value_and_grad(loss)(chosen)
        updates, state = s.OPTIMIZER.update(gradient, state, chosen)
        return value, optax.apply_updates(chosen, updates)

    return eqx.filter_jit(step), (chosen, state, jnp.zeros((4, 4), dtype))


def trebuchet(dtype):
    s = in_its_format("trebuchet")
    model = s.network(KEY)
    trained, fixed = eqx.partition(model, ds.trainable(model, "layers"))
    targets = jnp.array([[60.0, 2.0], [50.0, -3.0]], dtype)
    step = lambda trained, targets: run_iterations(s.misses, s.OPTIMIZER, trained, fixed, targets, 1, jnp.array(True))
    return step, (trained, targets)


def noisy_chain(dtype):
    chain = cast(pretrained.untrained("noisy", (4, 4), key=KEY), dtype)
    patches = (jnp.zeros((2, 3, 48, 48)) + 100).astype(jnp.uint8)
    arrays, rest = eqx.partition(chain, eqx.is_inexact_array)
    loss = lambda arrays, keys: train_chain.noisy_loss((eqx.combine(arrays, rest), patches), keys)
    return jax.value_and_grad(loss), (arrays, jr.split(KEY, 2))


CASES = [decay, bounce, bounces, replayed_bounces, controller, trebuchet, noisy_chain]
slow = pytest.mark.slow
WHERE = [
    pytest.param("cuda", jnp.float32, id="cuda float32"),
    pytest.param("cuda", jnp.float64, id="cuda float64", marks=slow),
    pytest.param("tpu", jnp.float32, id="tpu float32", marks=slow),
]


@pytest.mark.parametrize(("platform", "dtype"), WHERE)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_exported_program_has_no_operation_of_a_cpu(case, platform, dtype):
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(dtype == jnp.float64):
        function, args = case(dtype)
        args = args if isinstance(args, tuple) else (args,)
        arrays, rest = eqx.partition(args, eqx.is_array)
        compiled = jax.jit(lambda arrays: eqx.filter(function(*eqx.combine(arrays, rest)), eqx.is_array))
        text = jax.export.export(compiled, platforms=[platform])(arrays).mlir_module()
    targets = set(re.findall(r"custom_call @([\w.]+)", text))
    assert not {target for target in targets if not re.fullmatch(KNOWN[platform], target)}
    if dtype == jnp.float32:
        assert "f64" not in text.replace("dense<", "")
