#!/usr/bin/env bash
# Builds the image, brings all actors up under a project name of their own, tests them from outside, takes them down.
# PYTEST names the pytest to use (default: that of .venv); `docker compose` or `docker-compose`, whichever is there.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
project="m2mtest$$"
export M2M_COMPOSE="${compose[*]} -p $project"

take_down() {
  status=$?
  trap - EXIT INT TERM
  if [ "$status" -ne 0 ]; then "${compose[@]}" -p "$project" logs --no-color --tail 60 || true; fi
  "${compose[@]}" -p "$project" --profile outdated down -v --remove-orphans
  exit "$status"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"${compose[@]}" -p "$project" build pki
"${compose[@]}" -p "$project" up -d
"${PYTEST:-.venv/bin/pytest}" -m docker tests/docker
