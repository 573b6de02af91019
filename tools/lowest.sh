#!/bin/sh
# Installs the oldest versions of constraints-lowest.txt into a fresh environment, and runs the tests on them, but for
# those of a browser and of notebooks:  sh tools/lowest.sh FOLDER [arguments of pytest]
set -eu
folder=$1
shift
"${PYTHON:-python3.11}" -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e ".[test]"
"$folder/bin/python" -m pip check
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
exec "$folder/bin/python" -m pytest -q -p no:cacheprovider "$@" \
    tests/design tests/ridge tests/scoring tests/features tests/pipeline tests/datasets tests/records tests/sweep
