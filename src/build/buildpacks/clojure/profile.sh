# Made by the Clojure buildpack; sourced before the app's command.
export JVM_OPTS=${JVM_OPTS:-} LEIN_NO_DEV=${LEIN_NO_DEV:-yes}
if [ -d "$HOME/.heroku-lein" ]; then
  export LEIN_HOME=${LEIN_HOME:-$HOME/.heroku-lein}
fi
