"""Problems of the benchmark of solvers, and the ways of computing their gradients."""

import ctypes
import subprocess
import tempfile
from pathlib import Path

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import diffsim as ds

P, Y0, T1 = np.array([1.5, 1.0, 3.0, 1.0]), np.array([1.0, 1.0]), 10.0
RATES = np.array([0.04, 3e7, 1e4])  # of Robertson's reactions


class RK4(dfx.AbstractERK):
    """The classical Runge-Kutta method, which diffrax does not have."""

    tableau = dfx.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls = dfx.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 4


def lotka_volterra(t, y, p):
    return jnp.stack([p[0] * y[0] - p[1] * y[0] * y[1], -p[2] * y[1] + p[3] * y[0] * y[1]])


def double_pendulum(t, y, p):
    """Angles and rates of two rods with point masses; p: two masses, two lengths, gravity."""
    m1, m2, l1, l2, g = p
    a, b, wa, wb = y
    c, s = jnp.cos(a - b), jnp.sin(a - b)
    below = 2 * m1 + m2 - m2 * (2 * c**2 - 1)
    da = -g * (2 * m1 + m2) * jnp.sin(a) - m2 * g * jnp.sin(a - 2 * b) - 2 * s * m2 * (wb**2 * l2 + wa**2 * l1 * c)
    db = 2 * s * (wa**2 * l1 * (m1 + m2) + g * (m1 + m2) * jnp.cos(a) + wb**2 * l2 * m2 * c)
    return jnp.stack([wa, wb, da / (l1 * below), db / (l2 * below)])


def rk4_step(field, y, p, h):
    k1 = field(0.0, y, p)
    k2 = field(0.0, y + 0.5 * h * k1, p)
    k3 = field(0.0, y + 0.5 * h * k2, p)
    k4 = field(0.0, y + h * k3, p)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def by_scan(field, y0, n):
    """A checkpointed scan over steps of RK4, written by hand and compiled whole."""

    def loss(p):
        step = jax.checkpoint(lambda y, _: (rk4_step(field, y, p, T1 / n), None))
        return jnp.sum(lax.scan(step, y0, None, length=n)[0] ** 2)

    return ds.compilation.compile_whole(jax.value_and_grad(loss))


def by_diffrax(field, y0, solver, **options):
    def loss(p):
        return jnp.sum(dfx.diffeqsolve(dfx.ODETerm(field), solver, 0.0, T1, y0=y0, args=p, **options).ys[-1] ** 2)

    return jax.value_and_grad(loss)


def by_diffsim(field, y0, solver, stepsize_controller, **options):
    def loss(p):
        ts = jnp.array([0.0, T1])
        return jnp.sum(
            ds.integrate(field, y0, ts, p, solver=solver, stepsize_controller=stepsize_controller, **options)[-1] ** 2
        )

    return jax.value_and_grad(loss)


def robertson(t, y, k):
    """Three reactions of very different speed."""
    slow, fast, back = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
    return jnp.stack([back - slow, slow - back - fast, fast])


def burgers(t, u, _):
    """Burgers' equation on a ring of 256 cells and of length 1, viscosity 0.002, by central differences."""
    left, right = jnp.roll(u, 1), jnp.roll(u, -1)
    return -128 * u * (right - left) + 131.072 * (left - 2 * u + right)


def gray_scott(t, y, _):
    """Two reacting and diffusing substances on a torus of 128 x 128 cells."""
    u, v = y
    spread = lambda x: sum(jnp.roll(x, s, axis) for s in (1, -1) for axis in (0, 1)) - 4 * x
    react = u * v**2
    return jnp.stack([0.16 * spread(u) - react + 0.035 * (1 - u), 0.08 * spread(v) + react - 0.095 * v])


def euler_by_scan(field, y0, steps, h):
    """A plain scan over explicit Euler steps, written by hand; the gradient with respect to the initial field."""

    def loss(y0):
        y, _ = lax.scan(lambda y, _: (y + h * field(0.0, y, None), None), y0, None, length=steps)
        return jnp.sum(y**2)

    return jax.value_and_grad(loss)


def _compile(name: str, *more: str) -> ctypes.CDLL:
    out = Path(tempfile.mkdtemp()) / "library.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", *more]
    subprocess.run(["cc", *flags, str(Path(__file__).with_name(name)), "-o", str(out), "-lm"], check=True)
    return ctypes.CDLL(str(out))


def c_library(*more: str) -> ctypes.CDLL:
    """lotka_volterra.c, compiled, with more flags."""
    library = _compile("lotka_volterra.c", *more)
    if not more:
        library.rk4.restype = library.tsit5.restype = ctypes.c_double
    return library


def _pointer(array, number=ctypes.c_double):
    return array.ctypes.data_as(ctypes.POINTER(number))


def c_field(field, y0, steps: int, h: float):
    """Euler's method for one of the fields, and the gradient with respect to the initial field, in C."""
    function = getattr(_compile("fields.c"), field.__name__)
    function.restype = ctypes.c_float
    start, n = np.ascontiguousarray(y0, np.float32), y0.shape[-1]
    cells = int(np.prod(y0.shape[:-2])) * (n + 2) ** min(y0.ndim, 2)
    rows, cotangents = np.zeros((steps + 1, cells), np.float32), np.zeros((2, cells), np.float32)
    gradient, first = start.copy(), _pointer(start, ctypes.c_float)
    buffers = [_pointer(x, ctypes.c_float) for x in (rows, cotangents, gradient)]
    return lambda: (function(first, n, steps, ctypes.c_float(h), *buffers), gradient)


def c_rk4(library, n: int):
    rows, gradient = np.empty(2 * n + 2), np.empty(4)

    def run():
        value = library.rk4(_pointer(P), _pointer(Y0), ctypes.c_double(T1 / n), n, _pointer(rows), _pointer(gradient))
        return value, gradient

    return run


def c_tsit5(library, rtol: float):
    most = 20_000
    sizes, rows, gradient, accepted = np.empty(most), np.empty(2 * most + 2), np.empty(4), ctypes.c_int()
    numbers = [ctypes.c_double(x) for x in (T1, 0.01, rtol, 1e-3 * rtol)]
    buffers = most, _pointer(sizes), _pointer(rows), _pointer(gradient), ctypes.byref(accepted)
    return lambda: (library.tsit5(_pointer(P), _pointer(Y0), *numbers, *buffers), gradient)


def c_batch(library, starts: np.ndarray, n: int):
    """The mean value over starts, and its gradient, by C that takes eight trajectories at a time."""
    starts, gradient = np.ascontiguousarray(starts), np.empty(4)
    library.rk4_batch.restype = ctypes.c_double

    def run():
        numbers = ctypes.c_double(T1 / n), n, len(starts)
        return library.rk4_batch(_pointer(P), _pointer(starts), *numbers, _pointer(gradient)), gradient

    return run


def torch_case(n: int | None, rtol: float | None):
    """The same by torchdiffeq, or None where it is not installed."""
    try:
        import torch
        from torchdiffeq import odeint
    except ImportError:
        return None
    y0, ts = torch.tensor(Y0), torch.tensor([0.0, T1], dtype=torch.float64)
    options = (
        {"method": "rk4", "options": {"step_size": T1 / n}}
        if n
        else {"method": "dopri5", "rtol": rtol, "atol": 1e-3 * rtol}
    )

    def run():
        p = torch.tensor(P, requires_grad=True)
        value = (odeint(_torch_field(p), y0, ts, **options)[-1] ** 2).sum()
        value.backward()
        return value.item(), p.grad.numpy()

    return run


def torchdiffeq_batch(starts: np.ndarray, n: int):
    """The mean over starts by torchdiffeq, all in one solve of RK4, or None where it is not installed."""
    try:
        import torch
        from torchdiffeq import odeint
    except ImportError:
        return None
    y0, ts = torch.tensor(starts), torch.tensor([0.0, T1], dtype=torch.float64)

    def run():
        p = torch.tensor(P, requires_grad=True)
        value = (odeint(_torch_field(p), y0, ts, method="rk4", options={"step_size": T1 / n})[-1] ** 2).sum(-1).mean()
        value.backward()
        return value.item(), p.grad.numpy()

    return run


def torchode_batch(starts: np.ndarray, rtol: float):
    """The same by torchode's Tsit5, each trajectory with steps of its own, or None where it is not installed."""
    try:
        import torch
        import torchode
    except ImportError:
        return None
    y0, ts = torch.tensor(starts), torch.tensor([[0.0, T1]], dtype=torch.float64).repeat(len(starts), 1)

    def run():
        p = torch.tensor(P, requires_grad=True)
        term = torchode.ODETerm(_torch_field(p))
        controller = torchode.IntegralController(1e-3 * rtol, rtol, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), controller)
        value = (solver.solve(torchode.InitialValueProblem(y0=y0, t_eval=ts)).ys[:, -1] ** 2).sum(-1).mean()
        value.backward()
        return value.item(), p.grad.numpy()

    return run


def _torch_field(p):
    import torch

    def field(t, y):
        a, b = y[..., 0], y[..., 1]
        return torch.stack([p[0] * a - p[1] * a * b, -p[2] * b + p[3] * a * b], -1)

    return field


def casadi_case(n: int | None, rtol: float | None):
    """The same by CasADi's map-accumulate or CVODES, in its virtual machine, or None where it is not installed."""
    try:
        import casadi as ca
    except ImportError:
        return None
    y, p = ca.SX.sym("y", 2), ca.SX.sym("p", 4)
    slope = ca.vertcat(p[0] * y[0] - p[1] * y[0] * y[1], -p[2] * y[1] + p[3] * y[0] * y[1])
    field, q = ca.Function("field", [y, p], [slope]), ca.MX.sym("p", 4)
    if n:
        step = ca.Function("step", [y, p], [rk4_step(lambda t, y, p: field(y, p), y, p, T1 / n)])
        end = step.mapaccum(n)(ca.DM(Y0), ca.repmat(q, 1, n))[:, -1]
    else:
        tolerances = {"reltol": rtol, "abstol": 1e-3 * rtol}
        solve = ca.integrator("solve", "cvodes", {"x": y, "p": p, "ode": slope}, 0.0, T1, tolerances)
        end = solve(x0=ca.DM(Y0), p=q)["xf"]
    value = ca.sumsqr(end)
    program = ca.Function("program", [q], [value, ca.gradient(value, q)])
    return lambda: tuple(np.asarray(x).ravel() for x in program(P))
