"""The graph of a function: the textbook's table, merged expressions, folded calls, and the gradients of JAX."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from diffsim._errors import InputError
from diffsim.graph.computational_graph import computational_graph
from diffsim.graph.stage_graph import stage_graph
from diffsim.viz import plot, report
from diffsim.viz.graph_layout import layout

POINT = (jnp.array(1.5), jnp.array(0.5))


def textbook(x1, x2):
    return (jnp.sin(x1 / x2) + x1 / x2 - jnp.exp(x2)) * (x1 / x2 - jnp.exp(x2))


# Worked by hand: expression -> value, tangent for dx1 = 1, tangent for dx2 = 1, adjoint.
ROWS = {
    "x1 / x2": (3.0, 2.0, -6.0, 1.5059),
    "sin(v1)": (0.1411, -1.9800, 5.9400, 1.3513),
    "v2 + v1": (3.1411, 0.0200, -0.0600, 1.3513),
    "exp(x2)": (1.6487, 0.0, 1.6487, -2.8437),
    "v3 - v4": (1.4924, 0.0200, -1.7088, 1.3513),
    "v1 - v4": (1.3513, 2.0, -7.6487, 1.4924),
    "v5 * v6": (2.0166, 3.0118, -13.7240, 1.0),
}


def test_textbook_example_row_by_row():
    first = computational_graph(textbook, *POINT)
    second = computational_graph(textbook, *POINT, direction=(0.0, 1.0))
    assert [node.operation for node in first.nodes] == ["input", "input", *ROWS]
    for a, b in zip(first.nodes[2:], second.nodes[2:], strict=True):
        np.testing.assert_allclose([a.value, a.tangent, b.tangent, a.adjoint], ROWS[a.operation], atol=1e-4)
    np.testing.assert_allclose([first["x1"].adjoint, first["x2"].adjoint], [3.0118, -13.7240], atol=1e-4)
    np.testing.assert_allclose(first.result.value, 2.0167, atol=1e-4)
    assert [node.operation for node in first.nodes].count("x1 / x2") == 1


def test_tables_and_json_repeat_the_numbers():
    graph = computational_graph(textbook, *POINT)
    text = str(graph)
    assert "v1    x1 / x2    3.0000  2.0000" in text
    assert "x1    3.0118    3.0118 [v1]" in text
    nodes = json.loads(json.dumps(graph.to_dict()))["nodes"]
    assert nodes[-1]["name"] == "y"
    assert nodes[0]["adjoint"] == pytest.approx(3.0118, abs=1e-4)


def network(weights, x):
    return jnp.sum(eqx.nn.MLP(3, 2, 4, 1, key=jr.key(0))(x) ** 2) + jnp.sum(jax.nn.relu(weights @ x)) ** 2


def rollout(gain):
    step = lambda x, _: (x - 0.1 * gain * jnp.sin(x), x)
    return jax.lax.scan(step, jnp.array(1.0), None, length=5)[1].sum() + jnp.where(gain > 0, gain, 0.0)


@pytest.mark.parametrize("fold", [False, True], ids=["opened", "folded"])
@pytest.mark.parametrize(
    ("f", "args"),
    [(network, (jr.normal(jr.key(1), (5, 3)), jnp.arange(1.0, 4.0))), (rollout, (jnp.array(0.7),))],
    ids=["network", "rollout"],
)
def test_adjoints_and_tangents_are_those_of_jax(f, args, fold):
    graph = computational_graph(f, *args, fold=fold)
    for node, expected in zip(graph.nodes, jax.grad(f, tuple(range(len(args))))(*args), strict=False):
        np.testing.assert_allclose(node.adjoint, expected, rtol=1e-12)
    direction = tuple(jnp.full_like(arg, float(k == 0)) for k, arg in enumerate(args))
    np.testing.assert_allclose(graph.result.tangent, jax.jvp(f, args, direction)[1], rtol=1e-12)
    for node in graph.nodes[:-1]:
        if node.adjoint is not None:  # every adjoint is the sum of its shares
            np.testing.assert_allclose(sum(share for _, share in node.shares), node.adjoint, atol=1e-12)


def test_calls_are_folded_by_name():
    @jax.jit
    def square(x):
        return x * x * jnp.cos(x)

    f = lambda x: square(x) + jnp.clip(x, 0.0, 9.0)
    opened, folded = computational_graph(f, POINT[0]), computational_graph(f, POINT[0], fold=("square",))
    assert "square(x)" not in {node.operation for node in opened.nodes}
    assert {"square(x)", "max(0, x)"} <= {node.operation for node in folded.nodes}
    assert opened.nodes[1].source.startswith("test_graph.py:")
    assert opened.nodes[1].scope == "square"


def test_an_input_handed_on_and_a_constant():
    assert computational_graph(lambda x, y: x, *POINT).result.parents == ("x",)
    assert computational_graph(lambda x: jnp.array(2.0), POINT[0])["x"].adjoint == 0


def test_where_jax_has_no_rule_the_derivative_is_unknown():
    loop = lambda x: jax.lax.while_loop(lambda v: v < 10, lambda v: v * v, x)
    graph = computational_graph(loop, POINT[0])
    assert graph["x"].adjoint is None
    assert graph.result.tangent == pytest.approx(jax.jvp(loop, POINT[:1], (jnp.array(1.0),))[1])


def test_layout_keeps_layers_and_distances():
    parents = {"a": (), "b": (), "c": ("a", "b"), "d": ("c",), "e": ("a", "d"), "f": ("c",), "g": ("e", "f")}
    where, edges = layout(parents)
    assert all(where[parent][1] < where[node][1] for node, above in parents.items() for parent in above)
    assert len(edges["a", "e"]) == 4  # two bends on its way past two layers
    rows: dict[int, list[float]] = {}
    for x, layer in [*where.values(), *(p for path in edges.values() for p in path[1:-1])]:
        rows.setdefault(layer, []).append(x)
    assert all(np.min(np.diff(sorted(row)), initial=9.0) > 0.999 for row in rows.values())


def test_drawing_svg_and_page(tmp_path):
    graph = computational_graph(textbook, *POINT)
    drawing = plot.graph(graph)
    drawing.savefig(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text().count("patch_") >= len(graph.nodes)
    page = report.Report("A graph")
    page.graph(graph, drawing)
    assert "data:image/svg+xml;base64," in page.html()
    assert "<td>x1 / x2</td>" in page.html()


def test_bad_requests():
    with pytest.raises(InputError, match="shape"):
        computational_graph(lambda x: jnp.stack([x, x]), POINT[0])
    with pytest.raises(InputError, match="floating-point"):
        computational_graph(lambda x: x * 2, jnp.array(3))
    with pytest.raises(InputError, match="direction has arrays of shapes"):
        computational_graph(textbook, *POINT, direction=(1.0, jnp.ones(2)))
    with pytest.raises(InputError, match="no node 'z'"):
        computational_graph(textbook, *POINT)["z"]

    def long(x, count):
        for number in range(count):
            x = jnp.sin(x) * (1 + 1e-3 * number)
        return x

    with pytest.raises(InputError, match="fold=True"):
        computational_graph(lambda x: long(x, 1001), POINT[0])
    with pytest.raises(InputError, match=r"203 nodes, more than 150: .*fold=True"):
        plot.graph(computational_graph(lambda x: long(x, 101), POINT[0]))


def test_stage_graph_has_the_chain_rule():
    matrix = jr.normal(jr.key(0), (12, 10))
    stages = {
        "mix": lambda x: {"image": jnp.outer(x, x), "count": jnp.arange(3)},
        "blur": lambda d: matrix @ d["image"] @ matrix.T + d["count"][0],
        "loss": lambda y: jnp.mean(jnp.sin(y) ** 2),
    }
    x = jnp.linspace(-1.0, 1.0, 10)
    graph = stage_graph(stages, x)
    pipeline = lambda x: stages["loss"](stages["blur"](stages["mix"](x)))
    assert [s.name for s in graph.stages] == ["input", "mix", "blur", "loss"]
    assert graph.stages[0].adjoint == pytest.approx(float(jnp.linalg.norm(jax.grad(pipeline)(x))), rel=1e-12)
    assert graph.stages[3].adjoint == 1.0
    assert (graph.stages[1].bytes, graph.stages[2].picture.shape) == (10 * 10 * 8 + 3 * 8, (12, 12))
    assert all(stage.seconds > 0 for stage in graph.stages[1:])
    assert len(plot.stages(graph).axes[0].child_axes) == 4
    assert "12x12 float64" in str(graph)
    with pytest.raises(InputError, match="'blur' returns 12x12 float64: let the last stage return one number"):
        stage_graph({name: stages[name] for name in ("mix", "blur")}, x)


def test_an_input_may_have_the_name_of_a_result():
    """The result then has another name, so that every name belongs to one node."""
    graph = computational_graph(lambda y, v1: jnp.sin(y) * v1, 0.3, 2.0)
    assert [node.name for node in graph.nodes] == ["y", "v1", "v2", "result"]
    assert float(graph["y"].adjoint) == pytest.approx(2.0 * np.cos(0.3))
    assert [node.name for node in computational_graph(lambda y: y, 1.0).nodes] == ["y", "result"]
