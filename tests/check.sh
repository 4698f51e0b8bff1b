#!/usr/bin/env bash
# The checks before a change is merged: style, types and the default tests. --all adds the tests marked slow, such as
# trainings, notebooks and killed processes; --exhaustive also those marked exhaustive, such as statistics over hundreds
# of fits and searches at random, which take hours and belong before a release.
set -euo pipefail
cd "$(dirname "$0")/.."
selection=(-m "not slow")
case "${1:-}" in
    "") ;;
    --all) selection=(-m "not exhaustive") ;;
    --exhaustive) selection=() ;;
    *) echo "usage: tests/check.sh [--all | --exhaustive]" >&2; exit 2 ;;
esac
ruff check .
ruff format --check .
pyright
python -m pytest -q -n 2 --dist worksteal --durations 20 "${selection[@]}"
