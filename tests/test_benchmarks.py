"""Benchmarks that others use run without errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.exhaustive
def test_the_accelerators_benchmark_measures_every_row_on_a_cpu(tmp_path):
    out = tmp_path / "cpu.json"
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--short", "--out", str(out)]
    subprocess.run(command, check=True, timeout=900)
    results = json.loads(out.read_text())
    assert len(results["rows"]) == 14
    assert not results["left_out"]
    for row in results["rows"]:
        assert 0 < row["min_ms"] <= row["median_ms"], row
    assert all(0 < error < 0.1 for error in list(results["float32"][0].values())[1:])


@pytest.mark.slow
def test_programs_of_a_script_are_counted(tmp_path):
    words = [str(BENCHMARKS / "bench_compile.py"), str(BENCHMARKS / "first_calls.py"), "cart"]
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True, cwd=tmp_path)
    table = done.stdout.splitlines()
    last = next(line for line in table if line.startswith("sum"))
    count = int(last.split()[-2])
    assert count == sum(line.lstrip()[:1].isdigit() and "jit(" in line for line in table)
    assert np.all(np.array(last.split()[1:4], float) >= 0)
    assert any("run_steps" in line and "first_calls.py" in line for line in table)
