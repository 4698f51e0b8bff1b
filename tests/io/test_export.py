"""Exported functions: run by processes that cannot import diffsim, with the values and gradients they have here."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, Float

import diffsim as ds
from diffsim import image
from diffsim.image import pretrained
from diffsim.io import onnx_model
from diffsim.io.exported import load_exported, measured
from diffsim.systems.cartpole import CartPole, State, step
from diffsim.systems.trebuchet import Trebuchet, throw

KEY = jr.key(0)
# As in docs/how-to.md, after a line by which diffsim cannot be imported.
LOADER = """
import sys
sys.modules["diffsim"] = sys.modules["equinox"] = sys.modules["diffrax"] = None
import jax
import jax.export
import numpy as np

program = jax.export.deserialize(bytearray(np.fromfile("function.bin", np.uint8)))
jax.config.update("jax_enable_x64", program.in_avals[0].dtype == "float64")
inputs = np.load("inputs.npz")
values = [program.call(inputs[name]) for name in inputs]
gradients = [program.vjp().call(inputs[name], np.ones_like(y))[0] for name, y in zip(inputs, values)]
np.savez("results.npz", *values, *gradients)
"""


def without_diffsim(folder, function, *shapes, inputs):
    """Values and gradients of the sum of an exported function, from a process that cannot import diffsim."""
    ds.export(function, *shapes, path=folder / "function.bin")
    np.savez(folder / "inputs.npz", *inputs)
    done = subprocess.run([sys.executable, "-I", "-c", LOADER], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(folder / "results.npz") as results:
        arrays = [results[name] for name in results]
    return arrays[: len(inputs)], arrays[len(inputs) :]


def agrees(folder, function, *shapes, inputs, rtol):
    """Values and gradients are those of this process, to a part `rtol` of the largest."""
    values, gradients = without_diffsim(folder, function, *shapes, inputs=inputs)
    for x, value, gradient in zip(inputs, values, gradients, strict=True):
        expected, pullback = jax.vjp(jax.jit(function), jnp.asarray(x))
        close(value, expected, rtol)
        close(gradient, pullback(jnp.ones_like(expected))[0], rtol)


def close(value, expected, rtol, scale=None):
    """The same shape, dtype and values, to a part of the scale, which is by default the largest value."""
    assert (value.shape, value.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(value, expected, rtol=0, atol=rtol * (scale or np.max(np.abs(expected))))


def single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, tree)


@pytest.fixture(scope="module")
def policy():
    return ds.BoundedMLP(4, -10.0, 10.0, width=24, key=KEY)


def states(dtype, sizes=(1, 3, 1000)):
    draw = np.random.default_rng(0)
    return [draw.normal(size=(size, 4)).astype(dtype) for size in sizes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_policy_runs_over_any_batch_without_diffsim(dtype, policy, tmp_path):
    batch = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 4"), dtype)
    one = single(policy) if dtype == np.float32 else policy
    # The same operations, which XLA may order in another way.
    agrees(tmp_path, jax.vmap(one), batch, inputs=states(dtype), rtol=16 * np.finfo(dtype).eps)


@pytest.mark.slow
def test_a_fitted_model_is_solved_without_diffsim(tmp_path):
    model = ds.BoundedMLP(2, -1.0, 1.0, outputs=2, key=KEY)
    solve = lambda y0: ds.integrate(lambda t, y, m: m(y) - y, y0, jnp.linspace(0.0, 1.0, 5), model)
    inputs = [x[:, :2] for x in states(np.float64, (1, 3))]
    agrees(tmp_path, jax.vmap(solve), "batch, 2", inputs=inputs, rtol=1e-12)


@pytest.mark.slow
def test_a_chain_runs_without_diffsim(tmp_path):
    chain, mosaic = pretrained.trained("noisy"), np.random.default_rng(0).uniform(size=(32, 48)).astype(np.float32)
    with jax.enable_x64(False):
        agrees(tmp_path, lambda x: chain(x), mosaic, inputs=[mosaic], rtol=1e-6)


@pytest.mark.slow
def test_an_aimed_trebuchet_throws_without_diffsim(tmp_path):
    """The network that aims, three phases and their events; the range (m) as a function of target and wind."""
    aim = ds.BoundedMLP(2, [0.4, 3.4], [0.8, 4.4], width=12, scale=[60.0, 5.0], key=KEY)

    def distance(target):
        angle, log_mass = aim(target)
        setting = {"angle": angle, "m_weight": jnp.exp(log_mass), "wind": target[1]}
        return throw(ds.replace(Trebuchet(), setting), check=False).range

    inputs = [np.array([60.0, 2.0]), np.array([40.0, -3.0])]
    agrees(tmp_path, distance, "2", inputs=inputs, rtol=1e-9)


class Point(NamedTuple):
    y: Float[Array, ""]
    x: Float[Array, " 2"]


class Machine(eqx.Module):
    point: Point
    others: list[Array]


def test_trees_of_any_classes_become_dictionaries(tmp_path):
    machine = Machine(Point(jnp.array(2.0), jnp.array([3.0, 4.0])), [jnp.array(5.0)])
    path = ds.export(lambda m: Point(m.point.x[0] - m.point.y, 2 * m.others[0]), machine, path=tmp_path / "f")
    plain = {"point": {"x": machine.point.x, "y": machine.point.y}, "others": machine.others}
    assert load_exported(path)(plain) == {"y": 1.0, "x": 10.0}


def test_a_solution_has_its_fields_by_name(tmp_path):
    path = ds.export(lambda y0: ds.solve(lambda t, y, a: -y, y0, jnp.array([0.0, 1.0])), "", path=tmp_path / "f")
    solution = load_exported(path)(jnp.array(1.0))
    np.testing.assert_allclose(solution["ys"], np.exp([0.0, -1.0]), rtol=1e-5)  # of a tolerance of 1e-6
    assert ds.Status(int(solution["status"])) is ds.Status.FINISHED


def test_platforms_and_derivatives_are_those_asked_for(policy, tmp_path):
    path = ds.export(policy, "4", path=tmp_path / "f", platforms=["cpu", "cuda", "tpu"], derivatives=0)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert not program.has_vjp()
    twice = jax.export.deserialize(bytearray(ds.export(policy, "4", path=path, derivatives=2).read_bytes()))
    assert twice.vjp().has_vjp()


def test_sizes_with_one_name_are_one_size(tmp_path):
    program = load_exported(ds.export(lambda a, b: a @ b, "n, m", "m", path=tmp_path / "f"))
    assert program(jnp.ones((3, 2)), jnp.ones(2)).shape == (3,)
    with pytest.raises(ValueError, match="shape"):
        program(jnp.ones((3, 2)), jnp.ones(3))


def test_a_file_is_described_by_size_and_time(policy, tmp_path):
    result = measured(ds.export(policy, "4", path=tmp_path / "f"), np.zeros(4))
    assert (result["file"], result["bytes"]) == (str(tmp_path / "f"), (tmp_path / "f").stat().st_size)
    assert 0 < result["microseconds_per_call"] < 1e6


def linear(x):
    return jnp.eye(4) @ x


BAD = {
    "folder": ((linear, "4"), {"path": "none/f"}, "the folder .*none does not exist; make it first"),
    "shape": ((linear, "3"), {}, r"shapes float64\[3\]: .*; give the shapes that the function takes"),
    "syntax": ((linear, "4 4"), {}, "shape='4 4': give sizes and names, as 'batch, 4'"),
    "no shape": ((linear, len), {}, "shape=<built-in function len>: give an array"),
    "size": ((lambda x: jnp.ones(x.shape[0] // 1 if x.shape[0] > 3 else 1), "n"), {}, "needs a size.*give its number"),
    "float": ((float, ""), {}, "function needs the values of its arguments.*write it with jax.numpy"),
    "numpy": ((lambda x: np.sin(x), "3"), {}, "function needs the values of its arguments"),
    "result": ((lambda x: print, "3"), {}, "let it return arrays"),
    "platform": ((linear, "4"), {"platforms": ("cpu", "gpu")}, "platforms='gpu': give some of cpu, cuda, rocm, tpu"),
    "no platform": ((linear, "4"), {"platforms": ()}, "give at least one of cpu"),
    "derivatives": ((linear, "4"), {"derivatives": -1}, "derivatives=-1: give 0 or a larger whole number"),
    "onnx derivatives": ((linear, "4"), {"path": "f.onnx", "derivatives": 1}, r"export jax.grad\(function\) as well"),
    "onnx platforms": ((linear, "4"), {"path": "f.onnx", "platforms": ["cpu"]}, "leave it out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_its_remedy(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, options, message = BAD[case]
    Path("f").write_text("old")
    with pytest.raises(ds.InputError, match=message):
        ds.export(*args, **({"path": "f"} | options))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "old")]


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ds.InputError, match=r"jax2onnx is not installed: pip install 'diffsim\[onnx\]'"):
        ds.export(linear, "4", path=tmp_path / "f.onnx")


@pytest.fixture(scope="module")
def onnx():
    """Packages of the extra, whose first conversion takes some ten seconds."""
    pytest.importorskip("jax2onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")


needs_onnx = [pytest.mark.slow, pytest.mark.usefixtures("onnx")]


class TestOnnx:
    pytestmark = needs_onnx

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_policy_and_its_gradient_have_the_values_of_jax(self, dtype, policy, tmp_path):
        one = single(policy) if dtype == np.float32 else policy
        batch = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 4"), dtype)
        for function in (jax.vmap(one), jax.vmap(jax.grad(one))):
            model = load_exported(ds.export(function, batch, path=tmp_path / "f.onnx"))
            for x in states(dtype):
                # Of the limit, 10 N, to which the network's output is added, whose rounding is 1e-7 in float32.
                close(model(x)[0], jax.jit(function)(x), 1e-6 if dtype == np.float32 else 1e-14, scale=10.0)

    def test_a_chain_has_the_values_of_jax(self, tmp_path):
        chain, scene = pretrained.trained("noisy"), np.linspace(0.05, 0.9, 48, dtype=np.float32)
        mosaic = np.outer(scene[:32], scene)
        with jax.enable_x64(False):
            model = load_exported(ds.export(lambda x: chain(x), mosaic, path=tmp_path / "f.onnx"))
            close(model(mosaic)[0], jax.jit(lambda x: chain(x))(mosaic), 1e-6)

    def test_inputs_and_outputs_are_named_by_their_fields(self, tmp_path):
        path = ds.export(lambda p, z: Point(p.y + 1, p.x[None] * z), Point("", "2"), "n, 1", path=tmp_path / "f.onnx")
        model = onnx_model.session(path.read_bytes())
        assert [given.name for given in model.get_inputs()] == ["input_0.x", "input_0.y", "input_1"]
        assert [result.name for result in model.get_outputs()] == ["output.x", "output.y"]

    def test_what_onnx_lacks_is_refused(self, tmp_path):
        fall = lambda y0: ds.integrate(lambda t, y, a: -y, y0, jnp.array([0.0, 1.0]))
        with pytest.raises(ds.InputError, match=r"give a path that does not end in \.onnx"):
            ds.export(fall, "2", path=tmp_path / "f.onnx")
        with pytest.raises(ds.InputError, match="compute in float32"):
            ds.export(image.bilinear, "8, 8", path=tmp_path / "f.onnx")
        assert not (tmp_path / "f.onnx").exists()

    def test_other_values_than_those_of_jax_are_an_error(self, tmp_path, monkeypatch):
        session = onnx_model.session

        class Off:
            def __init__(self, data):
                self.session = session(data)

            def run(self, *args):
                return [1.001 * x for x in self.session.run(*args)]

        monkeypatch.setattr(onnx_model, "session", Off)
        with pytest.raises(ds.RunError, match=r"its values differ from JAX's by .*: a fault of jax2onnx"):
            ds.export(jnp.sin, "3", path=tmp_path / "f.onnx")
        assert not (tmp_path / "f.onnx").exists()

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_process_without_jax_balances_the_pole_as_jax_does(self, dtype, module_of, tmp_path):
        trained = module_of("cartpole").learn(0)[0]
        one = single(trained) if dtype == np.float32 else trained
        batch = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 4"), dtype)
        ds.export(jax.vmap(one), batch, path=tmp_path / "policy.onnx")
        np.save(tmp_path / "start.npy", [0.3, 0.1, 0.1, -0.1])
        program = str(Path(__file__).parent / "run_cartpole.py")
        words = [sys.executable, "-I", program, "policy.onnx", "start.npy", "out.npz"]
        subprocess.run(words, cwd=tmp_path, check=True, timeout=120)
        with np.load(tmp_path / "out.npz") as out:
            reached, forces = out["states"], out["forces"]
        force = lambda x: one(x.astype(dtype))
        # The same states: the digits that the format allows.
        close(forces, jax.jit(jax.vmap(force))(jnp.asarray(reached[:-1])), 1e-6 if dtype == np.float32 else 1e-14, 10.0)
        move = lambda s, _: step(CartPole(), s, force(jnp.stack(s)).astype(float))
        _, own = ds.rollout(move, State(*map(jnp.asarray, reached[0])), length=1000)
        # In a closed loop: the policy returns to the middle, so that errors do not grow.
        bound = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(reached[1:], np.stack(own, axis=1), rtol=0, atol=bound)
        assert np.abs(reached[:, 2]).max() < 0.21  # upright throughout
