#!/bin/bash
# submodules.sh BUILD_DIR RESULT_DIR
#
# Fetches what a pushed tree only names: RESULT_DIR/submodules has a commit and a path per line,
# RESULT_DIR/gitmodules is the app's own file. Runs in the build dyno, as the app's code does.
set -uo pipefail

build_dir=$1 result_dir=$2
export GIT_ALLOW_PROTOCOL=${MANIFOLD_SUBMODULE_PROTOCOLS:-https:http:ssh:git} GIT_TERMINAL_PROMPT=0
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null

fail() {
  printf '%s\n' "$1" >"$result_dir/submodule"
  printf '       %s\n' "$2"
  exit 1
}

config() { git config --file "$result_dir/gitmodules" "$@" 2>/dev/null; }

url_of() {
  local key path
  while read -r key path; do
    if [ "$path" = "$1" ]; then
      config --get "${key%.path}.url"
      return
    fi
  done < <(config --get-regexp '^submodule\..*\.path$')
}

fetch() {
  local commit=$1 path=$2 url=$3 dir=$build_dir/$2
  rm -rf "$dir" && mkdir -p "$dir" && git init -q "$dir" && cd "$dir" || return
  # Servers that give a single commit are quick; others give all they have.
  git fetch -q --depth 1 "$url" "$commit" 2>/dev/null || git fetch -q "$url" || return
  git -c advice.detachedHead=false checkout -q "$commit" || return
  git remote add origin "$url" && git submodule --quiet update --init --recursive || return
  find "$dir" -name .git -prune -exec rm -rf {} +
}

echo "-----> Fetching submodules"
while IFS=$'\t' read -r commit path; do
  case /$path/ in
    */../* | */./* | *//*) fail "$path" "This is no path inside of the app." ;;
  esac
  url=$(url_of "$path")
  case $url in
    '') fail "$path" "There is no url for it in .gitmodules." ;;
    ./* | ../*) fail "$path" "Its url $url is relative: there is nothing beside this repository." ;;
    -*) fail "$path" "Its url $url is none." ;;
  esac
  printf '       %s\n' "$path ($url)"
  (fetch "$commit" "$path" "$url" </dev/null 2>&1 | sed -u 's/^/       /') || fail "$path" "See above."
done <"$result_dir/submodules"
