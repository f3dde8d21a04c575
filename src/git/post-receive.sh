#!/bin/sh
# post-receive: clones check out the branch that was deployed.
while read -r old new name; do
  case $name in
    refs/heads/main | refs/heads/master) git symbolic-ref HEAD "$name" ;;
  esac
done
exit 0
