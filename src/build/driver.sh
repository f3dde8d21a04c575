#!/bin/bash
# Runs in the build dyno: chooses a built-in buildpack, compiles, asks for the release data.
#
#   driver.sh BUILD_DIR CACHE_DIR ENV_DIR RESULT_DIR
#
# What the supervisor wants to know is left in RESULT_DIR: `stage` (how far it came), `name`
# (what detect printed) and `release` (what bin/release printed). Statuses: 0 built; 3 nothing
# applies; else of the step that failed.
set -uo pipefail

build_dir=$1 cache_dir=$2 env_dir=$3 result_dir=$4
packs=$(cd "$(dirname "$0")" && pwd)
order=(nodejs python)

stage() { printf '%s\n' "$1" >"$result_dir/stage"; }

# Buildpacks see what is documented and nothing of the dyno's own environment.
clean=(
  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
  "HOME=$HOME"
  "LANG=C.UTF-8"
)
for name in STACK REQUEST_ID SOURCE_VERSION PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST \
  NPM_CONFIG_REGISTRY npm_config_registry HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY \
  http_proxy https_proxy no_proxy all_proxy; do
  [ -n "${!name+set}" ] && clean+=("$name=${!name}")
done
# Some tools bring certificates of their own; all are to trust what the machine trusts.
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -r "$bundle" ]; then
  for name in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO \
    CURL_CA_BUNDLE; do
    clean+=("$name=$bundle")
  done
fi

if [ -s "$result_dir/submodules" ]; then
  stage submodules
  env -i "${clean[@]}" "$packs/submodules.sh" "$build_dir" "$result_dir" || exit $?
fi

stage detect
echo "-----> Determining which buildpack to use for this app"
pack='' name='' all=''
for candidate in "${order[@]}"; do
  if found=$(env -i "${clean[@]}" "$packs/$candidate/bin/detect" "$build_dir" 2>/dev/null); then
    found=${found:-$candidate}
    all=${all:+$all,}$found
    [ -z "$pack" ] && pack=$packs/$candidate name=$found
  fi
done
[ -z "$pack" ] && exit 3
printf '%s\n' "$name" >"$result_dir/name"
if [ "$all" != "$name" ]; then
  echo " !     Warning: Multiple default buildpacks reported the ability to handle this app. The first buildpack in the list below will be used."
  printf '\t\t\tDetected buildpacks: %s\n' "$all"
fi
echo "-----> $name app detected"

stage compile
# What is put below $HOME/.heroku lands in the slug, under the path that it has at run time.
if ! mkdir -p "$build_dir/.heroku" || ! ln -sfn "$build_dir/.heroku" "$HOME/.heroku"; then
  echo " !     The app has a file .heroku: this name is used by the platform for a directory."
  exit 1
fi
mkdir -p "$cache_dir"
cd "$build_dir" || exit 1
env -i "${clean[@]}" "$pack/bin/compile" "$build_dir" "$cache_dir" "$env_dir" </dev/null 2>&1
status=$?
[ "$status" -ne 0 ] && exit "$status"

stage release
if [ -x "$pack/bin/release" ]; then
  env -i "${clean[@]}" "$pack/bin/release" "$build_dir" </dev/null >"$result_dir/release" || exit $?
fi
rmdir "$build_dir/.heroku" 2>/dev/null
stage done
