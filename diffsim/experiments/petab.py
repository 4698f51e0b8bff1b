"""Measurements, noise and parameters of a PEtab problem, for a simulation that is given in Python."""

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from .._errors import InputError
from .._extras import extra
from .._types import Model, Scalar
from ..parameters import param
from .experiment import Experiment
from .table import experiments_from_table

_STEADY = "a measurement at steady state (time inf)"


class PetabProblem(NamedTuple):
    """What a PEtab problem says besides its model.

    Attributes:
        experiments: One for each simulation condition, with a column for each observable; `inputs` are the numbers of
            its row in the table of conditions, by the name of their column.
        model: The parameters, with nominal values and bounds, as a module whose fields have their names.
        estimated: The names of those that are to be fitted, for `ds.trainable(model, *estimated)`.
        observables: The formula of each observable, as text: the simulation has to compute them in this order.
    """

    experiments: list[Experiment]
    model: Model
    estimated: list[str]
    observables: dict[str, str]


def read_petab(path: Path | str) -> PetabProblem:
    """The experiments and parameters of a PEtab problem (version 1), read by the package petab.

    The model file, SBML or another, is not read: the vector field is a Python function. Observables are compared as
    they are, with normal noise whose standard deviation is a number: in the formula of the noise, in the parameters of
    the noise of each measurement, or the nominal value of a parameter that is not estimated. Bounds are those of the
    file; a parameter between two bounds is trained on a logistic scale, whatever scale the file names.

    Args:
        path: The YAML file of the problem.

    Raises:
        InputError: Without petab, and for what is beyond this: pre-equilibration, steady states, transformed
            observables, other noise, conditions that contain parameters.

    Source: L. Schmiester et al., PLoS Computational Biology 17, e1008646 (2021).
    """
    v1, tables, pandas = (extra(name, "petab") for name in ("petab.v1", "petab.v1.yaml", "pandas"))
    folder = Path(path).parent
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of petab's use of pandas
            listed = tables.load_yaml(str(path))
            (problem,) = listed["problems"]
            together = lambda key, read: pandas.concat([read(str(folder / name)) for name in problem[key]])
            measurements = together("measurement_files", v1.get_measurement_df)
            conditions = together("condition_files", v1.get_condition_df)
            observables = together("observable_files", v1.get_observable_df)
            parameters = v1.get_parameter_df(str(folder / listed["parameter_file"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a PEtab problem of one model: {error}") from None
    values, estimated = _values(parameters), parameters["estimate"].astype(float) == 1
    _check(path, measurements, observables)
    stds = [
        _std(path, row, observables.loc[row["observableId"]], values, estimated) for _, row in measurements.iterrows()
    ]
    table = {
        "experiment": measurements["simulationConditionId"],
        "time": measurements["time"],
        "observable": measurements["observableId"],
        "value": measurements["measurement"],
        "noise": stds,
    }
    experiments = experiments_from_table(table, noise="noise", observables=list(observables.index))
    experiments = [_with_inputs(path, experiment, conditions.loc[experiment.name]) for experiment in experiments]
    formulas = observables["observableFormula"].astype(str).to_dict()
    return PetabProblem(experiments, _model(parameters, values), list(parameters.index[estimated]), formulas)


def _values(parameters: Any) -> dict[str, float]:
    """The nominal values by name; where there is none, the middle of the bounds on the file's scale."""
    values = {}
    for name, row in parameters.iterrows():
        value = float(row["nominalValue"]) if "nominalValue" in row else math.nan
        if not math.isfinite(value):
            low, high = float(row["lowerBound"]), float(row["upperBound"])
            value = 0.5 * (low + high) if row["parameterScale"] == "lin" else math.sqrt(low * high)
        values[str(name)] = value
    return values


def _model(parameters: Any, values: dict[str, float]) -> Model:
    """A module with a field for each parameter."""
    fields = {}
    for name, row in parameters.iterrows():
        bounds = tuple(float(row[x]) if x in row else math.nan for x in ("lowerBound", "upperBound"))
        known = (-np.inf if math.isnan(bounds[0]) else bounds[0], np.inf if math.isnan(bounds[1]) else bounds[1])
        fields[str(name)] = param(values[str(name)], bounds=known)
    return type("PetabParameters", (eqx.Module,), {"__annotations__": dict.fromkeys(fields, Scalar), **fields})()


def _check(path: Path | str, measurements: Any, observables: Any) -> None:
    """Raises InputError for what this reader cannot express."""
    refused = {
        "pre-equilibration": _column(measurements, "preequilibrationConditionId").notna().any(),
        _STEADY: np.isinf(measurements["time"].astype(float)).any(),
        "an observable with parameters of its own": _column(measurements, "observableParameters").notna().any(),
        "a transformed observable": (~_column(observables, "observableTransformation").isin([None, "lin"])).any(),
        "noise that is not normal": (~_column(observables, "noiseDistribution").isin([None, "normal"])).any(),
    }
    for what, is_there in refused.items():
        if is_there:
            raise InputError(f"{path} has {what}: read_petab cannot express it; build the experiments in Python")


def _column(table: Any, name: str) -> Any:
    """A column, with None in the place of missing cells; all None if the table has no such column."""
    column = table[name].astype(object) if name in table else table.index.to_series().map(lambda _: None)
    return column.where(column.notna(), None)


def _std(path: Path | str, row: Any, observable: Any, values: dict[str, float], estimated: Any) -> float:
    """The standard deviation of a measurement."""
    name, formula = str(row["observableId"]), str(observable["noiseFormula"]).strip()
    if formula == f"noiseParameter1_{name}":
        formula = str(row["noiseParameters"]).strip() if "noiseParameters" in row else ""
    if formula in values and not estimated[formula]:
        return values[formula]
    try:
        return float(formula)
    except ValueError:
        cure = "give numbers, or use a noise model of ds.experiments"
        raise InputError(f"{path} has noiseFormula={formula!r} of {name}, which is no number: {cure}") from None


def _with_inputs(path: Path | str, experiment: Experiment, condition: Any) -> Experiment:
    """The experiment with the numbers of its condition."""
    inputs = {}
    for name, value in condition.items():
        if name == "conditionName":
            continue
        try:
            inputs[str(name)] = float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{path} has {name}={value!r} in the condition {experiment.name!r}: only numbers can be read"
            ) from None
    return dataclasses.replace(experiment, inputs=inputs, t0=min(0.0, float(experiment.ts[0])))
