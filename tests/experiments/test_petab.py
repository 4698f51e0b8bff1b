"""Problems in PEtab's tables: experiments, noise, bounds, and what cannot be read."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import diffsim as ds

pytest.importorskip("petab")
from diffsim.experiments import read_petab

TABLES = {
    "problem.yaml": """format_version: 1
parameter_file: parameters.tsv
problems:
- measurement_files: [measurements.tsv]
  condition_files: [conditions.tsv]
  observable_files: [observables.tsv]
  sbml_files: [model.xml]
""",
    "parameters.tsv": """parameterId\tparameterScale\tlowerBound\tupperBound\tnominalValue\testimate
rate\tlog10\t0.01\t10\t1.0\t1
scale\tlin\t0\t5\t1.0\t0
sigma\tlin\t0\t5\t0.2\t0
""",
    "conditions.tsv": "conditionId\tconditionName\tA0\nlow\tlow dose\t1.0\nhigh\thigh dose\t4.0\n",
    "observables.tsv": """observableId\tobservableFormula\tnoiseFormula
amount\tA\tnoiseParameter1_amount
product\tscale * (A0 - A)\tsigma
""",
    "measurements.tsv": """observableId\tsimulationConditionId\ttime\tmeasurement\tnoiseParameters
""",
}
RATE = 0.7


def write(folder: Path, **changed: str) -> Path:
    rows = ""
    for condition, start, times in (("low", 1.0, (0.5, 1.0, 2.0)), ("high", 4.0, (1.0, 3.0))):
        for t in times:
            amount = start * np.exp(-RATE * t)
            rows += f"amount\t{condition}\t{t}\t{amount:.12g}\t0.1\n"
            rows += f"product\t{condition}\t{t}\t{start - amount:.12g}\t\n" if t != 1.0 else ""
    tables = TABLES | {"measurements.tsv": TABLES["measurements.tsv"] + rows}
    for name, text in tables.items():
        old, new = changed.get(name.split(".")[0], "=").split("=", 1) if name.split(".")[0] in changed else ("", "")
        (folder / name).write_text(text.replace(old, new) if old else text)
    return folder / "problem.yaml"


def simulate(model, experiment):
    start = experiment.inputs["A0"]
    amount = ds.integrate(lambda t, y, k: -k * y, start, experiment.ts, model.rate, rtol=1e-10, atol=1e-12)
    return jnp.stack([amount, model.scale * (start - amount)], axis=1)


def test_a_problem_is_read_and_fitted(tmp_path):
    problem = read_petab(write(tmp_path))
    low, high = problem.experiments
    assert [low.name, high.name] == ["low", "high"]
    assert low.columns == ("amount", "product")
    assert problem.estimated == ["rate"]
    assert problem.observables["product"] == "scale * (A0 - A)"
    np.testing.assert_array_equal(low.ts, [0.0, 0.5, 1.0, 2.0])
    np.testing.assert_array_equal(low.measured.sum(axis=0), [3, 2])
    np.testing.assert_allclose(low.weights[1], [100.0, 25.0])
    assert ds.parameters(problem.model)["rate"].bounds == (0.01, 10.0)
    fit = ds.FitProblem(simulate, problem.experiments)
    chosen = ds.trainable(problem.model, *problem.estimated)
    fitted, history = ds.fit_least_squares(fit.residuals, problem.model, filter_spec=chosen, progress=False)
    assert history.status == "converged"
    np.testing.assert_allclose(fitted.rate, RATE, rtol=1e-7)


def test_a_parameter_without_a_nominal_value_starts_between_its_bounds(tmp_path):
    problem = read_petab(write(tmp_path, parameters="\t1.0\t1\n=\t\t1\n"))
    np.testing.assert_allclose(problem.model.rate, np.sqrt(0.1))
    assert dataclasses.is_dataclass(problem.model)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"measurements": "\t0.5\t=\tinf\t"}, "steady state"),
        ({"conditions": "4.0=rate"}, r"A0='rate' in the condition 'high': only numbers"),
        ({"parameters": "0.2\t0=0.2\t1"}, r"noiseFormula='sigma' of product, which is no number"),
        ({"problem": "condition_files=other_files"}, "not a PEtab problem"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, changed, words):
    with pytest.raises(ds.InputError, match=words):
        read_petab(write(tmp_path, **changed))
