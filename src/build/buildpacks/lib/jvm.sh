# Made by the buildpack of a JVM language; sourced before the app's command.
# Heap by the dyno's size, which shows in its limit of processes.
# Source: heroku-buildpack-jvm-common.
case $(ulimit -u) in
  512) _jvm='-Xmx671m -XX:CICompilerCount=2' ;;
  16384) _jvm=-Xmx2g ;;
  32768) _jvm=-Xmx12g ;;
  *) _jvm='-Xmx300m -Xss512k -XX:CICompilerCount=2' ;;
esac
# One-off dynos run short commands beside the others.
case ${DYNO:-} in
  run.*) export JAVA_OPTS="-Dfile.encoding=UTF-8 ${JAVA_OPTS:-}" ;;
  *)
    export JAVA_TOOL_OPTIONS="$_jvm -Dfile.encoding=UTF-8 ${JAVA_TOOL_OPTIONS:-}"
    export JAVA_OPTS="${JAVA_OPTS:-}"
    ;;
esac
unset _jvm
