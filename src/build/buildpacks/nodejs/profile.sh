# Made by the Node.js buildpack; sourced before the app's command.
export PATH="$HOME/.heroku/node/bin:$HOME/bin:$HOME/node_modules/.bin:$PATH"
export NODE_ENV=${NODE_ENV:-production}
_node=$(command -v node)
export NODE_HOME=${NODE_HOME:-${_node%/bin/node}}
unset _node

# MB of this dyno: of its memory group if that can be seen and has a limit, else by the limit of
# processes, in which its size shows.
if [ -z "${MEMORY_AVAILABLE:-}" ]; then
  MEMORY_AVAILABLE=0
  if [ -r /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
    MEMORY_AVAILABLE=$(($(cat /sys/fs/cgroup/memory/memory.limit_in_bytes) / 1048576))
  fi
  if [ "$MEMORY_AVAILABLE" -lt 1 ] || [ "$MEMORY_AVAILABLE" -gt 1048576 ]; then
    case $(ulimit -u) in
      512) MEMORY_AVAILABLE=1024 ;;
      16384) MEMORY_AVAILABLE=2560 ;;
      32768) MEMORY_AVAILABLE=14336 ;;
      *) MEMORY_AVAILABLE=512 ;;
    esac
  fi
fi
export MEMORY_AVAILABLE
if [ "$MEMORY_AVAILABLE" -gt 16384 ]; then
  export WEB_MEMORY=${WEB_MEMORY:-2048}
else
  export WEB_MEMORY=${WEB_MEMORY:-512}
fi
if [ -z "${WEB_CONCURRENCY:-}" ]; then
  WEB_CONCURRENCY=$((MEMORY_AVAILABLE / WEB_MEMORY))
  [ "$WEB_CONCURRENCY" -lt 1 ] && WEB_CONCURRENCY=1
  [ "$WEB_CONCURRENCY" -gt 200 ] && WEB_CONCURRENCY=200
  export WEB_CONCURRENCY
fi
