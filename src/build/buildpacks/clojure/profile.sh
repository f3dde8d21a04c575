# Made by the Clojure buildpack; sourced before the app's command.
export JVM_OPTS=${JVM_OPTS:-} LEIN_NO_DEV=${LEIN_NO_DEV:-yes}
if [ -d "$HOME/.heroku-lein" ]; then
  export PATH="$HOME/.heroku-lein/bin:$PATH"
  export LEIN_HOME=${LEIN_HOME:-$HOME/.heroku-lein}
  # What was fetched is in ~/.m2: Java asks the system's users where that is, unless it is told.
  LEIN_JVM_OPTS="${LEIN_JVM_OPTS--XX:+TieredCompilation -XX:TieredStopAtLevel=1} -Duser.home=$HOME"
  export LEIN_JVM_OPTS
fi
