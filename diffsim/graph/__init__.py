"""The computational graph: its values and adjoints, its stages, and where it first stops being finite."""

from .stage_graph import StageGraph as StageGraph
