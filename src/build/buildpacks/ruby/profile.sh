# Made by the Ruby buildpack; sourced before the app's command.
export PATH="$HOME/bin:$HOME/vendor/bundle/bin:$PATH"
export LANG=${LANG:-C.UTF-8}
export RACK_ENV=${RACK_ENV:-production} RAILS_ENV=${RAILS_ENV:-production}
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2} DISABLE_SPRING=1
export RAILS_SERVE_STATIC_FILES=${RAILS_SERVE_STATIC_FILES:-enabled}
export RAILS_LOG_TO_STDOUT=${RAILS_LOG_TO_STDOUT:-enabled}
export BUNDLE_SILENCE_ROOT_WARNING=true
