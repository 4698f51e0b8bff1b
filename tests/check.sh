#!/usr/bin/env bash
# The checks before a change is merged: style, types and the default tests; with --all also the tests marked slow, which
# are the full trainings, the notebooks, killed processes, and the larger tables.
set -euo pipefail
cd "$(dirname "$0")/.."
selection=(-m "not slow")
case "${1:-}" in
    "") ;;
    --all) selection=() ;;
    *) echo "usage: tests/check.sh [--all]" >&2; exit 2 ;;
esac
ruff check .
ruff format --check .
pyright
python -m pytest -q -n 2 --dist worksteal --durations 20 "${selection[@]}"
