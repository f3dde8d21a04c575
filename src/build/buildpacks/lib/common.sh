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
