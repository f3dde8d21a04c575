# Made by the Python buildpack; sourced before the app's command.
export PATH="$HOME/.heroku/python/bin:$PATH"
export PYTHONUNBUFFERED=true
export PYTHONHASHSEED=${PYTHONHASHSEED:-random}
export LANG=${LANG:-C.UTF-8}
export PYTHONPATH=${PYTHONPATH:-$HOME}
export GUNICORN_CMD_ARGS=${GUNICORN_CMD_ARGS:---access-logfile -}

# MB of this dyno: of its memory group, else by the limit of processes, in which its size shows.
if [ -z "${DYNO_RAM:-}" ]; then
  if [ -r /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
    DYNO_RAM=$(($(cat /sys/fs/cgroup/memory/memory.limit_in_bytes) / 1048576))
  fi
  if [ "${DYNO_RAM:-0}" -lt 1 ] || [ "$DYNO_RAM" -gt 1048576 ]; then
    case $(ulimit -u) in
      512) DYNO_RAM=1024 ;;
      16384) DYNO_RAM=2560 ;;
      32768) DYNO_RAM=14336 ;;
      *) DYNO_RAM=512 ;;
    esac
  fi
fi
export DYNO_RAM
if [ -z "${WEB_CONCURRENCY:-}" ]; then
  # One worker per 256 MB, at most two per core and one.
  WEB_CONCURRENCY=$((DYNO_RAM / 256))
  [ "$WEB_CONCURRENCY" -lt 1 ] && WEB_CONCURRENCY=1
  _cores=$(($(nproc 2>/dev/null || echo 1) * 2 + 1))
  [ "$WEB_CONCURRENCY" -gt "$_cores" ] && WEB_CONCURRENCY=$_cores
  unset _cores
  export WEB_CONCURRENCY
fi
