#!/bin/bash
# checkout.sh DIR URL REF
#
# A buildpack's repository at a branch, tag or commit (empty: its HEAD), in an empty DIR.
set -euo pipefail

dir=$1 url=$2 ref=$3
cd "$dir"
git init -q .
at=FETCH_HEAD

# Servers that give a single commit are quick.
if ! git fetch -q --depth 1 -- "$url" "${ref:-HEAD}" 2>/dev/null; then
  # Others give all they have.
  git fetch -q --tags -- "$url" HEAD '+refs/heads/*:refs/remotes/origin/*'
  if [ -n "$ref" ]; then
    commit() { git rev-parse --verify --quiet --end-of-options "$1^{commit}"; }
    if ! at=$(commit "refs/remotes/origin/$ref" || commit "$ref"); then
      echo "There is no branch, tag or commit $ref." >&2
      exit 1
    fi
  fi
fi
git -c advice.detachedHead=false checkout -q --detach "$at"
