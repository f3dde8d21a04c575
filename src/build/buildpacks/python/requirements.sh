# What requirement files ask for; sourced by bash.

# requirements FILE: appends it and those that it names to `files`, and sets `is_settled` to `no` if
# a line is not settled by them: a path, a URL, a repository. When in doubt it is not.
# Source: pip documentation, "Requirements File Format".
requirements() {
  local line dir='' other
  [ "${#files[@]}" -lt 50 ] || { is_settled=no; return; }
  [[ $1 == */* ]] && dir=${1%/*}/
  files+=("$1")
  while read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    line=${line%%[[:space:]]#*}
    case $line in
      '' | '#'*) ;;
      -r* | -c* | --requirement[=\ ]* | --constraint[=\ ]*)
        other=${line#--*[=\ ]}
        other=${other#-[rc]}
        read -r other <<<"$other"
        case $other in
          '' | *[\'\"\\\$]* | *://*) is_settled=no ;;
          /*) requirements "$other" ;;
          *) requirements "$dir$other" ;;
        esac
        ;;
      --hash[=\ ]* | -i* | --index-url* | --extra-index-url* | --no-index | --trusted-host* | \
        --pre | --prefer-binary | --only-binary* | --no-binary* | --require-hashes) ;;
      # A path, a URL, an archive, and options that name one.
      -* | .* | *[/@]* | *.whl* | *.zip* | *.tar* | *.tgz* | *.egg*) is_settled=no ;;
    esac
  done < <(cat -- "$1" 2>/dev/null)
}
