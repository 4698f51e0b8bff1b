"""The references of all problems, read from references.json, which `make_references.py` writes."""

import json
from pathlib import Path

PATH = Path(__file__).parent / "references.json"


def read() -> dict[str, list[list[dict]]]:
    """Returns the committed references by the names of their problems, with numbers for text."""
    convert = lambda x: [float(v) for v in x] if isinstance(x, list) else x if x is None else float(x)
    return {
        name: [[{key: convert(x) for key, x in one.items()} for one in accepted] for accepted in rows]
        for name, rows in json.loads(PATH.read_text()).items()
    }
