#!/bin/sh
# pre-receive: tells the supervisor, at the other end of descriptor 9, what was pushed, does what
# it asks for, and ends with its verdict. Its words go to the client.
set -u
while read -r old new name; do
  printf 'ref %s %s %s\n' "$old" "$new" "$name" >&9
done
echo end >&9
while read -r verb word <&9; do
  case $verb in
    archive)
      # Submodules are no files of this repository: their commits go beside.
      if git ls-tree -r "$word" | grep '^160000 ' >"$MANIFOLD_PUSH/submodules"; [ "$?" -le 1 ] &&
        git archive --format=tar.gz --output="$MANIFOLD_PUSH/source.tgz" "$word"; then
        echo archived >&9
      else
        echo failed >&9
      fi
      ;;
    speak)
      cat <&9
      status=1
      read -r status <"$MANIFOLD_PUSH/verdict" || status=1
      exit "$status"
      ;;
  esac
done
echo " !     The supervisor is gone."
exit 1
