# Shared by the built-in buildpacks; sourced by bash.

export TMPDIR=${TMPDIR:-$(mktemp -d)}

step() { printf -- '-----> %s\n' "$*"; }
detail() { printf '       %s\n' "$*"; }
warning() { printf ' !     %s\n' "$*"; }
indent() { sed -u 's/^/       /'; }

# watched LOG COMMAND...: what it prints is shown and kept for `failures.sh`. Its status.
watched() {
  local log=$1
  shift
  "$@" 2>&1 | tee "$log" | indent
  return "${PIPESTATUS[0]}"
}

# Config vars for the tools that the build runs. The platform leaves out names that would break
# the build itself (PATH, LD_PRELOAD, ...).
export_env() {
  local dir=$1 file name
  for file in "$dir"/*; do
    name=${file##*/}
    case $name in
      '*' | HOME | STACK | BASH_ENV | ENV | PYTHONHOME | NODE_OPTIONS) ;;
      *) if [ -f "$file" ]; then export "$name=$(<"$file")"; fi ;;
    esac
  done
}

# What lies below $HOME/.heroku lands in the slug, at the path that it has at run time.
heroku_dir() {
  # What buildpacks before this one linked or left there.
  if [ -d "$HOME/.heroku" ] && [ ! -L "$HOME/.heroku" ]; then
    mkdir -p "$build_dir/.heroku"
    find "$HOME/.heroku" -mindepth 1 -maxdepth 1 -lname "$build_dir/*" -delete
    cp -an "$HOME/.heroku/." "$build_dir/.heroku/"
    rm -rf "$HOME/.heroku"
  fi
  if ! mkdir -p "$build_dir/.heroku" || ! ln -sfn "$build_dir/.heroku" "$HOME/.heroku"; then
    warning "The app has a file .heroku: this name is used by the platform for a directory."
    exit 1
  fi
}

# The start-up file of a buildpack. Source: Dev Center, "Buildpack API", .profile.d.
start_up() {
  mkdir -p "$build_dir/.profile.d"
  rm -f "$build_dir/.profile.d/$2"
  cp "$1" "$build_dir/.profile.d/$2"
}

# What a build would make anew just as it was: one file in the cache, which is written and read
# faster than many, beside the key of all that it was made from.
#
# key_of WORD... -- FILE...: of these, the buildpack and the stack's packages. What is missing
# counts as such.
key_of() {
  local words=("$STACK")
  while [ "$1" != -- ]; do
    words+=("$1")
    shift
  done
  shift
  {
    printf '%s\n' "${words[@]}"
    sha256sum -- "$@" "$0" "${BASH_SOURCE[0]}" /var/lib/dpkg/status 2>/dev/null || true
  } | sha256sum | cut -d' ' -f1
}

# is_kept NAME KEY
is_kept() {
  [ -f "$cache_dir/$1.tar" ] && [ "$(cat "$cache_dir/$1.key" 2>/dev/null)" = "$2" ]
}

# restore NAME DIR ENTRY: DIR/ENTRY as it was kept; nothing of it if that fails.
restore() {
  tar -xpf "$cache_dir/$1.tar" -C "$2" && return
  rm -rf "${2:?}/$3"
  return 1
}

# keep NAME KEY DIR ENTRY. A cache without room is no failed build.
keep() {
  local tar=$cache_dir/$1.tar
  mkdir -p "$cache_dir"
  rm -f "$cache_dir/$1.key" "$tar"
  # The key comes last: what has one is whole.
  if tar -cf "$tar" -C "$3" "$4" && printf '%s\n' "$2" >"$cache_dir/$1.key"; then
    return
  fi
  rm -f "$cache_dir/$1.key" "$tar"
  warning "Warning: the build cache cannot hold this: the next build makes it anew."
}

# Before a tool that makes jars; after it `even_jars`: the same source is to make the same jar.
before_jars() { : >"$TMPDIR/begun"; }

even_jars() {
  command -v perl >/dev/null || return 0
  # By the time of the change: a jar that is copied from the cache keeps its other time.
  find "$build_dir" -type f -name '*.[ejw]ar' -cnewer "$TMPDIR/begun" -print0 |
    xargs -0r perl "$here/../lib/jars.pl" 2>&1 | indent
}

# need PROGRAM PACKAGE...: the stack has to have it.
need() {
  local program=$1
  shift
  command -v "$program" >/dev/null && return
  warning "There is no $program on the stack $STACK."
  warning "On Debian or Ubuntu install the packages $*, or choose another stack (\`manifold stack\`), then deploy again."
  exit 1
}

# Where Debian's own artifacts stand in for the public repositories. Those are asked first, unless
# they are out of reach.
MAVEN_MIRROR=/opt/maven-mirror
maven_is_offline() {
  [ -r "$MAVEN_MIRROR/settings.xml" ] || return 1
  case ${MAVEN_MIRROR_ONLY:-} in 1 | true | yes) return 0 ;; esac
  # Maven itself knows where it would go.
  ! (cd "$(mktemp -d)" && timeout 60 mvn -q -B -Dmaven.repo.local="$PWD/m2" \
    dependency:get -Dartifact=org.apache.maven:maven-parent:41:pom -Dtransitive=false >/dev/null 2>&1)
}
