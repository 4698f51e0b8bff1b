"""The layout of a layered graph: every edge points down, and few edges cross."""

from collections.abc import Mapping, Sequence

SWEEPS = 12
Bend = tuple[str, str, int]


def layers(parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Returns the layer of every node: one below its lowest parent, an input just above its first child.

    Args:
        parents: The parents of every node, in an order in which parents precede their children.
    """
    level: dict[str, int] = {}
    for node, above in parents.items():
        level[node] = 1 + max((level[parent] for parent in above), default=-1)
    first: dict[str, int] = {}
    for node, above in parents.items():
        for parent in above:
            first[parent] = min(first.get(parent, level[node]), level[node])
    return {node: first[node] - 1 if not above and node in first else level[node] for node, above in parents.items()}


def layout(parents: Mapping[str, Sequence[str]]) -> tuple[dict[str, tuple[float, int]], dict[tuple[str, str], list]]:
    """Returns the position of every node and the course of every edge.

    Edges over several layers get a bend in each. The nodes of a layer are ordered by the mean position of their
    neighbours above and below in turn, after Sugiyama, Tagawa and Toda, IEEE Trans. SMC 11 (1981).

    Args:
        parents: The parents of every node, in an order in which parents precede their children.

    Returns:
        For every node (position in its layer, layer), and for every edge (parent, node) the points it passes.
    """
    level = layers(parents)
    links: list[tuple[object, object]] = []
    chains: dict[tuple[str, str], list] = {}
    rows: list[list] = [[] for _ in range(1 + max(level.values()))]
    for node in parents:
        rows[level[node]].append(node)
    for node, above in parents.items():
        for parent in dict.fromkeys(above):
            bends = [(parent, node, k) for k in range(level[parent] + 1, level[node])]
            for bend in bends:
                rows[bend[2]].append(bend)
            chains[parent, node] = [parent, *bends, node]
            links += zip(chains[parent, node][:-1], chains[parent, node][1:], strict=True)
    place = _order(rows, links)
    where = {node: (place[node], level[node]) for node in parents}
    return where, {
        edge: [(place[p], p[2] if isinstance(p, tuple) else level[p]) for p in chains[edge]] for edge in chains
    }


def _order(rows: list[list], links: Sequence[tuple[object, object]]) -> dict:
    """A position for every node and bend: rows are sorted by their neighbours, then nodes are moved towards them."""
    above: dict = {node: [] for row in rows for node in row}
    below: dict = {node: [] for row in rows for node in row}
    for top, bottom in links:
        above[bottom].append(top)
        below[top].append(bottom)
    place = {node: float(k) for row in rows for k, node in enumerate(row)}
    mean = lambda node, near: sum(place[n] for n in near[node]) / len(near[node]) if near[node] else place[node]
    for sweep in range(SWEEPS):
        near = below if sweep % 2 else above
        for row in rows[::-1] if sweep % 2 else rows:
            row.sort(key=lambda node: mean(node, near))
            _spread(row, [mean(node, near) for node in row], place)
    for row in rows:
        _spread(row, [mean(node, {node: above[node] + below[node]}) for node in row], place)
    left = min(place.values())
    return {node: value - left for node, value in place.items()}


def _spread(row: list, targets: list[float], place: dict) -> None:
    """Puts a row's nodes near their targets, at a distance of at least 1: the mean of sweeps from left and right."""
    left, right = list(targets), list(targets)
    for k in range(1, len(row)):
        left[k] = max(left[k], left[k - 1] + 1)
    for k in range(len(row) - 2, -1, -1):
        right[k] = min(right[k], right[k + 1] - 1)
    for node, a, b in zip(row, left, right, strict=True):
        place[node] = (a + b) / 2
