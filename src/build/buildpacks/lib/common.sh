# Shared by the built-in buildpacks; sourced by bash.

step() { printf -- '-----> %s\n' "$*"; }
detail() { printf '       %s\n' "$*"; }
warning() { printf ' !     %s\n' "$*"; }
indent() { sed -u 's/^/       /'; }

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
