# Made by the buildpack of a JVM language; sourced before the app's command.
# Heap by the dyno's size. Source for the platform's sizes: heroku-buildpack-jvm-common.
_mb=$(($(cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || echo 536870912) / 1048576))
if [ "$_mb" -le 512 ]; then
  _jvm="-Xmx$((_mb * 300 / 512))m -Xss512k -XX:CICompilerCount=2"
elif [ "$_mb" -le 1024 ]; then
  _jvm="-Xmx$((_mb * 671 / 1024))m -XX:CICompilerCount=2"
elif [ "$_mb" -le 2560 ]; then
  _jvm="-Xmx$((_mb * 2048 / 2560))m"
else
  _jvm="-Xmx$((_mb * 12288 / 14336))m"
fi
# One-off dynos run short commands beside the others.
case ${DYNO:-} in
  run.*) export JAVA_OPTS="-Dfile.encoding=UTF-8 ${JAVA_OPTS:-}" ;;
  *)
    export JAVA_TOOL_OPTIONS="$_jvm -Dfile.encoding=UTF-8 ${JAVA_TOOL_OPTIONS:-}"
    export JAVA_OPTS="${JAVA_OPTS:-}"
    ;;
esac
unset _jvm _mb
