#!/bin/sh
# install_packages.sh LIST: installs the Debian packages named in LIST (one a line, # comments) that dpkg does not know as
# installed. Does nothing, and needs no rights and no network, when none is missing.
set -eu
missing=""
for package in $(sed 's/#.*//' "$1"); do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
  echo "fathom: this system has no apt-get; install the equivalents of:$missing" >&2
  exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "fathom: packages are missing and neither root nor sudo is at hand; run: apt-get install$missing" >&2
    exit 1
  fi
  as_root=sudo
fi
echo "installing:$missing"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
