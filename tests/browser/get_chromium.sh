#!/bin/sh
# A Chromium for the browser test: one that is on the path, else Debian's package, else say what to do.
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
if command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo -n"; fi
    if $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; then
        exit 0
    fi
fi
echo "The browser test drives JupyterLab in Chromium, and there is none on the path." >&2
echo "Install it and run make test again: 'sudo apt-get install chromium' on Debian, 'sudo snap install chromium'" >&2
echo "on Ubuntu, 'brew install --cask chromium' on a Mac; or put google-chrome on the path." >&2
exit 1
