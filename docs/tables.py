"""Tables of the documents that are made from results files: `TABLES` has a function for each, by its name."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from conformance import runner as conformance_runner
from conformance import table as conformance_table
from conformance.table import markdown

SOLVERS = {
    "lotka_volterra_rk4_1000_steps": "Lotka-Volterra, RK4, 1,000 steps",
    "lotka_volterra_rk4_10000_steps": "Lotka-Volterra, RK4, 10,000 steps",
    "lotka_volterra_tsit5_rtol_1e_06": "Lotka-Volterra, Tsit5, rtol 1e-6",
    "lotka_volterra_tsit5_rtol_1e_09": "Lotka-Volterra, Tsit5, rtol 1e-9",
    "double_pendulum_rk4_1000_steps": "double pendulum, RK4, 1,000 steps",
    "robertson_kvaerno5_rtol_1e_6": "Robertson (stiff), Kvaerno5, rtol 1e-6",
    "burgers_256_cells_500_euler_steps": "Burgers, 256 cells, 500 Euler steps",
    "gray_scott_128_x_128_cells_500_euler_steps": "Gray-Scott, 128 x 128 cells, 500 Euler steps",
}
BATCHES = {
    "4096_trajectories_rk4_1000_steps": "4,096 trajectories, RK4, 1,000 steps",
    "4096_trajectories_tsit5_rtol_1e_6": "4,096 trajectories, Tsit5, rtol 1e-6",
}
COMPILED = {
    "tsit5_diffsim": "Tsit5, diffsim",
    "tsit5_diffrax": "Tsit5, diffrax",
    "kvaerno5_diffsim": "Kvaerno5, diffsim",
    "value_alone": "... its value alone",
    "kvaerno5_diffrax": "Kvaerno5, diffrax",
}
TREBUCHET = {
    "throw_value": "one throw, value",
    "throw_value_3_derivatives": "one throw, value and 3 derivatives",
    "throws_value_3_derivatives_batch_512": "512 throws, value and 3 derivatives, each",
    "aim_one_target_to_1e_7": "aim at one target to 1e-7",
    "network_batch_1000": "network, batch of 1,000, each",
    "scipy_value_central_differences": "SciPy: one throw, value and central differences",
}
STAGES = {
    "stencil_5x5_1_3": "stencil 5 x 5, one plane to three",
    "balance": "white balance",
    "malvar": "demosaicking by Malvar's filters",
    "guided_filter_r4_one_plane": "guided filter, one plane",
    "guided_filter_r4": "guided filter, three colours",
    "bilateral_grid_16_px_8_deep": "bilateral grid, 16 px, 8 deep",
    "local_laplacian": "local Laplacian",
    "colour_matrix": "colour matrix",
    "gamma": "gamma",
    "tone_curve": "tone curve",
    "saturation": "saturation",
    "sharpen": "unsharp mask",
    "demosaic_small": "demosaicking network, 11,981 parameters",
    "whole_noisy_chain": "whole chain from raw to picture",
}
DEVICES = {
    "large_controller": "cart-pole's policy, 1,024 starts",
    "large_trebuchet": "trebuchet's network, 512 targets",
    "trebuchet": "trebuchet's network, 64 targets",
    "controller": "cart-pole's policy, 64 starts",
}
SIMULATORS = {
    "viscosity": ("exponax", "Burgers' equation", "viscosity"),
    "crane": ("MJX", "crane, no contact", "100 forces"),
    "ball_default": ("MJX", "bouncing ball, default contact", "speed"),
    "ball_gradual": ("MJX", "bouncing ball, force from zero", "speed"),
    "friction": ("Brax", "double pendulum", "friction of 2 joints"),
}
COUNTS = {"1_device": "1 device", "8_virtual_devices": "8 virtual devices", "2_processes": "2 processes"}


def seconds(value: float) -> str:
    """A time in s with two significant digits, in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size or unit == "us":
            return f"{ratio(value / size)} {unit}"
    raise AssertionError


def ratio(value: float) -> str:
    """A number with two significant digits."""
    return f"{float(f'{value:.2g}'):,.{1 if value < 9.95 else 0}f}"


def _solvers(read: Callable[[str], Any]) -> str:
    rows = []
    for key, label in SOLVERS.items():
        cases = {name: 1e-6 * case["min_us"] for name, case in read(f"solvers/tables/{key}").items()}
        c = cases.get("c_adjoint_by_hand")
        own, other = cases["diffsim"], cases["diffrax"]
        rows.append([label, seconds(c) if c else "", seconds(own), seconds(other), ratio(other / own)])
    return markdown(["value and gradient", "C", "diffsim", "diffrax", "diffrax / diffsim"], rows)


def _batches(read) -> str:
    rows = []
    for key, label in BATCHES.items():
        cases = {name: 1e-6 * case["min_us"] for name, case in read(f"solvers/tables/{key}").items()}
        own, two, other = cases["diffsim_one_device"], cases["diffsim_2_devices"], cases["diffrax_vmap"]
        rows.append([label, seconds(own), seconds(two), seconds(other), ratio(other / own)])
    return markdown(
        ["value and gradient", "diffsim, 1 device", "diffsim, 2 devices", "diffrax", "diffrax / diffsim"], rows
    )


def _compiled(read) -> str:
    names = ["tracing_seconds", "lowering_seconds", "compiling_seconds", "sum_seconds"]
    rows = [
        [label, *(f"{read(f'parts/compile/{key}/{name}'):.2f} s" for name in names)] for key, label in COMPILED.items()
    ]
    return markdown(["CPU time of a first call", "tracing", "lowering", "compiling", "together"], rows)


def _trebuchet(read) -> str:
    rows = []
    for key, label in TREBUCHET.items():
        row = read(f"trebuchet_times/rows/{key}")
        rows.append([label, seconds(1e-6 * row["min_us"]), seconds(1e-6 * row["median_us"])])
    return markdown(["work", "minimum", "median"], rows)


def _images(read) -> str:
    rows = []
    for key, label in STAGES.items():
        row = read(f"images/stages/{key}")
        times = [seconds(1e-3 * row["forward_ms"]), seconds(1e-3 * row["gradient_ms"]), ratio(row["ratio"])]
        rows.append([label, *times, f"{row['mb_grad']:.0f} MB"])
    return markdown(["stage", "forward", "with gradient", "ratio", "memory with gradient"], rows)


def _devices(read) -> str:
    rows = []
    for key, label in DEVICES.items():
        times = [read(f"devices/cases/{key}/{count}/step_ms") for count in COUNTS]
        rows.append([label, *(f"{seconds(1e-3 * t)} ({ratio(t / times[0])})" for t in times)])
    return markdown(["one step of Adam (ratio to 1 device)", *COUNTS.values()], rows)


def _float32(read) -> str:
    rows = list(read("float32/rows").values())
    return markdown(list(rows[0]), [[f"{value:.0e}" for value in row.values()] for row in rows])


def _simulators(read) -> str:
    rows = []
    for key, words in SIMULATORS.items():
        case = read(f"simulators/cases/{key}")
        numbers = [f"{case['differences']:.0e}", f"{case['derivative']:.3g}", f"{case['slope']:.3g}"]
        rows.append([*words, case["verdict"], *numbers, case["cause"] or "none"])
    heads = ["simulator", "example", "parameters", "verdict", "off by", "derivative", "slope over 5%", "cause, remark"]
    return markdown(heads, rows)


def _conformance(table: Callable, *options) -> Callable:
    """A table of the results in conformance/results, which need not be read by their places."""
    return lambda read: table(conformance_runner.read(), *options)


TABLES: dict[str, Callable] = {
    "solvers": _solvers,
    "batches": _batches,
    "compile": _compiled,
    "trebuchet": _trebuchet,
    "images": _images,
    "devices": _devices,
    "float32": _float32,
    "simulators": _simulators,
    "conformance": _conformance(conformance_table.summary),
    "conformance_second_order": _conformance(conformance_table.summary, "hvp"),
    "conformance_levels": _conformance(conformance_table.by_level),
    "conformance_problems": _conformance(conformance_table.by_problem),
}
"""The tables by name: functions that are given `results_files.entry` and return Markdown."""
