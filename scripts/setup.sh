#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Makes a Python environment with what the given requirements files ask for (default:
# requirements.txt). Source it to get $PYTHON and the environment's commands in PATH:
#     source scripts/setup.sh requirements.txt requirements-demo.txt
# An active virtual environment is used as it is; so is the Python of an NGC container, whose own
# packages are not touched; else .venv in the repository is used, and made if there is none.

if [[ $- != *i* ]]; then # in a shell that somebody types into, errors must not end it
  set -euo pipefail
fi

setup_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
setup_is_supported='import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))'

setup_fail() {
  printf 'setup: %s\n' "$@" >&2
  [[ $- != *i* ]] || kill -INT $$ # back to the prompt
  exit 2
}

# The first Python 3.10 to 3.13 that can make virtual environments.
setup_find_python() {
  local candidate path without_venv=""
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    path="$(command -v "$candidate")" || continue
    "$path" -c "$setup_is_supported" 2>/dev/null || continue
    if "$path" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$path"
      return
    fi
    without_venv="${without_venv:-$path}"
  done
  if [[ -n "$without_venv" ]]; then
    setup_fail "$without_venv cannot make virtual environments: its module ensurepip is missing." \
      "On Debian and Ubuntu: apt-get install $(basename "$(readlink -f "$without_venv")")-venv"
  fi
  setup_fail "no Python 3.10 to 3.13 found. On Debian and Ubuntu: apt-get install python3 python3-venv"
}

setup_in_ngc_container() {
  [[ -n "${NVIDIA_PYTORCH_VERSION:-}" ]] && return
  local finds_torch='import importlib.util as u, sys
sys.exit(not (sys.prefix.startswith("/opt/") and u.find_spec("torch")))'
  python3 -c "$finds_torch" 2>/dev/null
}

setup_make_venv() {
  local folder="$setup_root/.venv" python
  if ! setup_has_pip "$folder/bin/python"; then # none yet, or one whose making was interrupted
    python="$(setup_find_python)"
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv "$folder" && setup_has_pip "$folder/bin/python" ||
      setup_fail "the folder $folder has no working Python and pip; remove it and run this again"
  fi
  export VIRTUAL_ENV="$folder"
}

setup_has_pip() {
  [[ -x "$1" ]] && "$1" -m pip --version >/dev/null 2>&1
}

setup_choose_environment() {
  SETUP_KEEPS=()
  if [[ -n "${VIRTUAL_ENV:-}" ]]; then
    PYTHON="$VIRTUAL_ENV/bin/python"
  elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-base}" != base ]]; then
    PYTHON="$CONDA_PREFIX/bin/python"
  elif setup_in_ngc_container; then
    PYTHON="$(command -v python3)"
    SETUP_KEEPS=(--keep-installed)
  else
    setup_make_venv
    PYTHON="$VIRTUAL_ENV/bin/python"
  fi
  "$PYTHON" -c "$setup_is_supported" ||
    setup_fail "$PYTHON is $("$PYTHON" --version 2>&1); this project runs on Python 3.10 to 3.13." \
      "Leave that environment (deactivate), or make one with another Python."
  export PYTHON PATH="$(dirname "$PYTHON"):$PATH"
}

setup_install() {
  local ask=("$PYTHON" "$setup_root/scripts/requirements.py" "${SETUP_KEEPS[@]}")
  local list missing=() pins
  list="$("${ask[@]}" missing "$@")" || setup_fail "the requirements files $* could not be read"
  if [[ -z "$list" ]]; then
    return
  fi
  mapfile -t missing <<<"$list"
  echo "setup: installing into $(dirname "$(dirname "$PYTHON")"): ${missing[*]}"
  pins="$(mktemp)"
  "${ask[@]}" pins >"$pins"
  "$PYTHON" -m pip install --disable-pip-version-check --constraint "$pins" "${missing[@]}" ||
    setup_fail "pip could not install ${missing[*]}; its message is above"
  rm "$pins"
}

setup_choose_environment
(
  cd "$setup_root"
  setup_install "${@:-requirements.txt}"
)
