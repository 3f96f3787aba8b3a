#!/usr/bin/env bash
# Everything from a fresh clone to the test results: tools, dependencies, tests.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
npm ci
npm test --silent
