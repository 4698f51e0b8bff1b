"""Derivatives through other simulators: closed forms, and what docs/other_simulators.md says of contacts."""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds

pytestmark = pytest.mark.usefixtures("implicit_ranks")
BENCHMARK = Path(__file__).parent / "benchmarks" / "bench_simulators.py"
BALL = """
<mujoco>
  <option timestep="0.0025"/>
  <default> <geom condim="1" solref="-2000 -2"/> </default>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    <body pos="0 0 1"> <joint type="slide" axis="0 0 1"/> <geom type="sphere" size=".1" mass="1"/> </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def implicit_ranks():
    """Lets arrays of unequal ranks be combined, as these simulators do."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_the_diffusivity_of_a_decaying_wave():
    """exp(-a k^2 t) in closed form, through exponax."""
    exponax = pytest.importorskip("exponax")
    wave = jnp.sin(2 * exponax.make_grid(1, 2 * np.pi, 16))

    def amplitude(diffusivity):
        step = exponax.stepper.Diffusion(1, 2 * np.pi, 16, 0.1, diffusivity=diffusivity[None])
        return 2 * jnp.mean(exponax.repeat(step, 5)(wave) * wave)

    check = ds.check_gradients(amplitude, (jnp.array(0.3),))
    assert check.ok
    assert check.rows[0].reverse == pytest.approx(-4 * 0.5 * np.exp(-4 * 0.3 * 0.5), rel=1e-10)


@pytest.mark.slow
def test_the_benchmark_records_fits_and_certificates(tmp_path):
    pytest.importorskip("exponax")
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "exponax"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = ast.literal_eval(done.stdout.splitlines()[-1].removeprefix("viscosity "))
    assert result["verdict"] == "agrees"
    assert result["derivative"] == pytest.approx(result["slope"], rel=0.01)
    assert result["last_loss"] < 0.1 * result["first_loss"]


@pytest.mark.slow
def test_a_contact_whose_force_begins_with_a_jump_has_a_derivative_of_the_wrong_sign():
    """If this fails, MJX has changed, and docs/other_simulators.md with it."""
    mujoco = pytest.importorskip("mujoco")
    mjx = pytest.importorskip("mujoco.mjx")
    model = mjx.put_model(mujoco.MjModel.from_xml_string(BALL))
    above = mjx.make_data(model)

    def height(speed, impedance):
        own = model.replace(geom_solimp=jnp.tile(impedance, (2, 1)))
        step = lambda data, _: (mjx.step(own, data), None)
        return jax.lax.scan(step, above.replace(qvel=speed[None]), None, length=500)[0].qpos[0]

    tangent = lambda speed, impedance: jax.jvp(lambda v: height(v, impedance), (speed,), (jnp.array(1.0),))
    impedances = jnp.array([[0.9, 0.95, 0.001, 0.5, 2.0], [0.0, 0.95, 0.1, 0.5, 2.0]])
    speeds = jnp.linspace(0.8, 1.2, 41)
    over_speeds = jax.vmap(tangent, in_axes=(0, None))
    heights, slopes = jax.jit(jax.vmap(over_speeds, in_axes=(None, 0)))(speeds, impedances)
    trend = (heights[:, -1] - heights[:, 0]) / (speeds[-1] - speeds[0])
    assert np.all(trend > 0.3)
    assert np.mean(slopes[0]) < 0
    assert np.mean(slopes[1]) == pytest.approx(float(trend[1]), rel=0.1)
