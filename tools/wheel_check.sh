#!/bin/sh
# Builds the sdist and from it the wheel, installs the wheel without its dependencies into a folder of its own, and runs
# the demo from there outside the repository.
set -eu
python=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m build --no-isolation --outdir "$folder/dist" . > "$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/site" "$folder"/dist/*.whl
cd "$folder"
export PYTHONPATH="$folder/site"
"$python" -c "import encoding_nb, sys; sys.exit(encoding_nb.__file__.startswith('$folder/site') - 1)"
"$python" -m encoding_nb demo --results "$folder/results"
test -s "$folder/results/flatmap.png"
test -s "$folder/results/01_control_panel.html"
ls -l "$folder"/dist
