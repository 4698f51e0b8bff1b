#!/usr/bin/env bash
# What must hold before a change lands: style, types and the default tests; with --all also the tests marked slow, which
# are the full trainings, the notebooks, processes that are killed, and the rest of the large tables.
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
