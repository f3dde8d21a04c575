#!/usr/bin/env bash
# Makes one image of the stack as a directory: build.sh run|build DIR SUITE ARCH SOURCE... [-- OPTION...]
# SOURCE is a file of apt sources, OPTION one of mmdebstrap. Needs root.
# `cargo xtask stack build cedar` calls it with this host's own Debian sources.
set -euo pipefail

image=$1 dir=$2 suite=$3 architecture=$4
shift 4
sources=()
while [[ $# -gt 0 && $1 != -- ]]; do
  sources+=("$1")
  shift
done
[[ $# -gt 0 ]] && shift

here=$(cd "$(dirname "$0")" && pwd)
lists=("$here/packages.txt")
if [[ $image == build ]]; then
  lists+=("$here/packages-build.txt")
fi
packages=$(sed -e 's/#.*//' -e '/^\s*$/d' "${lists[@]}" | paste -sd,)

# The date of what the packages' scripts make: two builds of the same packages are equal.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1700000000}

# The hooks drop what belongs to a host, not to an image. A dyno's devices, resolver, host name and
# user are given to it at its launch.
mmdebstrap --quiet --mode=root --variant=minbase --architectures="$architecture" \
  --include="$packages" \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook='rm -rf "$1"/var/log/* "$1"/var/cache/apt/* "$1"/var/cache/ldconfig/*' \
  --customize-hook='rm -f "$1/etc/machine-id" "$1/var/lib/dbus/machine-id" "$1/etc/hostname"' \
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/passwd- "$1"/etc/group- "$1"/etc/shadow-' \
  --customize-hook='ln -sf /usr/share/zoneinfo/Etc/UTC "$1/etc/localtime"' \
  --essential-hook='mkdir -p "$1/usr/share/man/man1"' \
  --customize-hook='mkdir -p "$1/app" && chmod 755 "$1/app"' \
  --customize-hook="$here/complete.sh \"\$1\"" \
  "$@" "$suite" "$dir" "${sources[@]}"

# Device nodes: a dyno has a /dev of its own. Only now, since mmdebstrap mounts there while it runs;
# and never across a mount.
if awk -v dir="$(realpath "$dir")/" 'index($5, dir) == 1 { found = 1 } END { exit !found }' /proc/self/mountinfo; then
  echo "something is still mounted below $dir" >&2
  exit 1
fi
find "$dir/dev" -xdev -mindepth 1 -delete

# merged-usr: the launch plan relies on it.
for link in bin sbin lib; do
  [[ -L $dir/$link ]] || { echo "$dir/$link is no link" >&2; exit 1; }
done
