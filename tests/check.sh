#!/usr/bin/env bash
# Everything that must hold before a change lands: style, types, tests, scenarios in short form, notebooks.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
pyright
python -m pytest -q -n 2 --dist loadfile
