#!/bin/bash
# Runs in the build dyno: chooses the buildpacks, compiles, asks for the release data.
#
#   driver.sh BUILD_DIR CACHE_DIR ENV_DIR RESULT_DIR PACKS_DIR [submodules]
#
# With `submodules` it fetches those alone: the source is cleaned when they are there, and then built.
# RESULT_DIR/buildpacks lists what was set, one a line: `builtin NAME`, `remote URL`,
# `uploaded N NAME` (unpacked at PACKS_DIR/N); empty means detection among the built-in ones.
# What the supervisor wants to know is left in RESULT_DIR: `stage` (how far it came), `name`
# (what detect printed, of the last buildpack), `pack` (the buildpack at work) and `release.N`
# (what each bin/release printed). Statuses: 0 built; 3 nothing applies; 4 one that was set does
# not apply; else of the step that failed. Source: Dev Center, "Buildpack API".
set -uo pipefail

build_dir=$1 cache_dir=$2 env_dir=$3 result_dir=$4 uploads=$5
packs=$(cd "$(dirname "$0")" && pwd)
order=(ruby nodejs clojure python java scala static)

stage() { printf '%s\n' "$1" >"$result_dir/stage"; }

# Buildpacks see what is documented and nothing of the dyno's own environment.
clean=(
  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
  "HOME=$HOME"
  "LANG=C.UTF-8"
  # The same tree is to give the same slug: tools that write a time write this one, and Python's
  # compiled files name the content of their source instead of its time.
  "SOURCE_DATE_EPOCH=946684800"
)
for name in REQUEST_ID SOURCE_VERSION PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST \
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

# Buildpacks from elsewhere know Heroku's stacks alone, and choose by them what they fetch. They are
# told the newest whose C library is not newer than this stack's.
like=$STACK
case $STACK in
  heroku-*) ;;
  *)
    # shellcheck source=/dev/null
    case $(. /etc/os-release 2>/dev/null && echo "${ID:-}-${VERSION_ID:-}") in
      debian-12 | ubuntu-22.04) like=heroku-22 ;;
      debian-13 | ubuntu-24.04) like=heroku-24 ;;
      ubuntu-26.04) like=heroku-26 ;;
    esac
    ;;
esac

# as PACK COMMAND...: with what this buildpack sees. One from elsewhere is in its own folder, as on
# Heroku: some copy files of theirs from there.
as() {
  local pack=$1 stack=$STACK place=$build_dir
  shift
  case $pack in "$packs"/*) ;; *) stack=$like place=$pack ;; esac
  (cd "$place" && exec env -i "${clean[@]}" "STACK=$stack" "$@")
}

if [ "${6:-}" = submodules ]; then
  stage submodules
  exec env -i "${clean[@]}" "$packs/submodules.sh" "$build_dir" "$result_dir"
fi

# Where a buildpack lies, fetched if it has to be. Chosen by hand, so it says what goes wrong.
place=''
fetch() {
  local kind=$1 what=$2 at=$3 url ref='' dir=${TMPDIR:-/tmp}/buildpack_$3
  case $kind in
    builtin)
      place=$packs/$what
      return
      ;;
    uploaded)
      # A copy: buildpacks write `export` into their own folder.
      cp -a "$uploads/$what" "$dir" && place=$dir
      return
      ;;
  esac
  url=${what%%#*}
  [ "$url" != "$what" ] && ref=${what#*#}
  printf -- '-----> Fetching custom buildpack... '
  mkdir -p "$dir"
  case $url in
    *.tgz | *.tar.gz)
      env -i "${clean[@]}" curl -fsSL --max-time 300 "$url" >"$dir.tgz" 2>"$dir.log" &&
        tar -xzf "$dir.tgz" -C "$dir" --no-same-owner 2>>"$dir.log"
      ;;
    *)
      env -i "${clean[@]}" GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=https:http:ssh:git:file GIT_CONFIG_NOSYSTEM=1 \
        "$packs/checkout.sh" "$dir" "$url" "$ref" 2>"$dir.log"
      ;;
  esac || {
    echo failed
    sed 's/^/       /' "$dir.log" | head -n 20
    return 1
  }
  echo done
  # A tarball may have all in one folder.
  if [ ! -e "$dir/bin/compile" ]; then
    set -- "$dir"/*/
    [ $# -eq 1 ] && [ -e "$1/bin/compile" ] && dir=${1%/}
  fi
  [ -e "$dir/bin/compile" ] || {
    echo " !     There is no bin/compile in it: it is no buildpack."
    return 1
  }
  place=$dir
}

chosen=() titles=()
if [ -s "$result_dir/buildpacks" ]; then
  stage fetch
  at=0
  while read -r kind what title; do
    printf '%s\n' "${title:-$what}" >"$result_dir/pack"
    fetch "$kind" "$what" "$at" </dev/null || exit 1
    chosen+=("$place")
    case $kind in builtin) titles+=("heroku/$what") ;; *) titles+=("${title:-$what}") ;; esac
    at=$((at + 1))
  done <"$result_dir/buildpacks"
fi

detect() { as "$1" "$1/bin/detect" "$build_dir" </dev/null; }

names=()
stage detect
if [ "${#chosen[@]}" -eq 0 ]; then
  echo "-----> Determining which buildpack to use for this app"
  all='' looking=()
  # Side by side: each only looks at a few files.
  for candidate in "${order[@]}"; do
    detect "$packs/$candidate" >"$result_dir/found.$candidate" 2>/dev/null &
    looking+=($!)
  done
  for at in "${!order[@]}"; do
    candidate=${order[at]}
    if wait "${looking[at]}"; then
      # The last one takes what no other does.
      [ "$candidate" = static ] && [ -n "$all" ] && break
      found=$(<"$result_dir/found.$candidate")
      found=${found:-$candidate}
      all=${all:+$all,}$found
      if [ "${#chosen[@]}" -eq 0 ]; then
        chosen=("$packs/$candidate") names=("$found") titles=("heroku/$candidate")
      fi
    fi
  done
  [ "${#chosen[@]}" -eq 0 ] && exit 3
  if [ "$all" != "${names[0]}" ]; then
    echo " !     Warning: Multiple default buildpacks reported the ability to handle this app. The first buildpack in the list below will be used."
    printf '\t\t\tDetected buildpacks: %s\n' "$all"
  fi
else
  for at in "${!chosen[@]}"; do
    printf '%s\n' "${titles[at]}" >"$result_dir/pack"
    if ! found=$(detect "${chosen[at]}" 2>"$result_dir/why"); then
      echo "-----> App not compatible with buildpack: ${titles[at]}"
      # Why, if it says so.
      printf '%s\n' "$found" | cat - "$result_dir/why" | grep -vxE 'no|' | head -n 20 | sed 's/^/       /'
      exit 4
    fi
    names+=("${found:-${titles[at]##*/}}")
  done
fi

# One that was built in links $HOME/.heroku as a whole, others what they put there, name by name: for
# those that follow it is always so.
apart() {
  [ -L "$HOME/.heroku" ] || return 0
  local entry
  rm "$HOME/.heroku" && mkdir "$HOME/.heroku"
  for entry in "$build_dir"/.heroku/*; do
    [ -e "$entry" ] && ln -s "$entry" "$HOME/.heroku/"
  done
  return 0
}

# What a build that fails does to the cache is forgotten: buildpacks work on a copy, at the same path each
# time. Those built in, and what they call, put new files in the place of old ones: of theirs only the
# names are copied, which costs next to nothing. Others may write into theirs.
mkdir -p "$cache_dir"
# Of builds that failed, and of other versions of this.
find "$cache_dir" -mindepth 1 -maxdepth 1 ! -name own ! -name others -exec rm -rf {} +
declare -A copied=()
own_cache() {
  local kept=$cache_dir/others how=-a
  case $1 in "$packs"/*) kept=$cache_dir/own how=-al ;; esac
  own=$kept.new
  [ -z "${copied[$kept]:-}" ] || return 0
  copied[$kept]=yes
  if [ -d "$kept" ] && cp "$how" "$kept" "$own" 2>/dev/null; then return; fi
  # None yet, or no room for two.
  rm -rf "$own"
  mkdir "$own"
}

exports=()
for at in "${!chosen[@]}"; do
  pack=${chosen[at]} name=${names[at]}
  printf '%s\n' "$name" >"$result_dir/name"
  printf '%s\n' "${titles[at]}" >"$result_dir/pack"
  echo "-----> $name app detected"
  stage compile
  own_cache "$pack"
  # What a pack exports is for those that come after it.
  as "$pack" bash -c 'n=$1; shift; for ((; n > 0; n--)); do . "$1"; shift; done; exec "$@"' - \
    "${#exports[@]}" "${exports[@]}" "$pack/bin/compile" "$build_dir" "$own" "$env_dir" </dev/null 2>&1
  status=$?
  [ "$status" -ne 0 ] && exit "$status"
  [ -f "$pack/export" ] && exports+=("$pack/export")
  apart
done

stage release
for at in "${!chosen[@]}"; do
  pack=${chosen[at]}
  if [ -x "$pack/bin/release" ]; then
    as "$pack" "$pack/bin/release" "$build_dir" </dev/null >"$result_dir/release.$at" || exit $?
  fi
done
rmdir "$build_dir/.heroku" 2>/dev/null
for kept in "${!copied[@]}"; do
  rm -rf "$kept" && mv "$kept.new" "$kept"
done
stage done
