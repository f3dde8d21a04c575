#!/usr/bin/env bash
# Completes an image before it is packed: complete.sh ROOT
set -euo pipefail

root=$1

# Debian installs gems without the folders that Bundler looks for: without them `bundle install`
# wants to fetch what is there.
for spec in "$root"/usr/share/rubygems-integration/*/specifications/*.gemspec; do
  [ -e "$spec" ] || continue
  mkdir -p "$(dirname "$(dirname "$spec")")/gems/$(basename "$spec" .gemspec)"
done

# The keystore differs from build to build: Java reads the PEM bundle's certificates from it, so it
# is made anew from them, in their order and with a fixed date.
keystore=$root/etc/ssl/certs/java/cacerts
[ -e "$keystore" ] && touch -d "@${SOURCE_DATE_EPOCH:-1700000000}" "$keystore"

# Debian's own Maven artifacts as a mirror that Maven, Leiningen and Mill take for a repository:
# the only one where the public ones are out of reach.
repo=$root/usr/share/maven-repo
if [ -d "$repo" ] && [ -d "$root/usr/share/maven" ]; then
  mirror=$root/opt/maven-mirror
  mkdir -p "$mirror"
  (cd "$repo" && find . -type d -exec mkdir -p "$mirror/{}" \;)
  (cd "$repo" && find . \( -type f -o -type l \) -exec ln -sf "/usr/share/maven-repo/{}" "$mirror/{}" \;)
  # Maven asks for a version of its own of this one.
  utils=$mirror/org/codehaus/plexus/plexus-utils
  if [ -d "$utils/2.x" ] && [ ! -e "$utils/1.1" ]; then
    mkdir "$utils/1.1"
    ln -s /usr/share/maven-repo/org/codehaus/plexus/plexus-utils/2.x/plexus-utils-2.x.jar "$utils/1.1/plexus-utils-1.1.jar"
    printf '<project><modelVersion>4.0.0</modelVersion><groupId>org.codehaus.plexus</groupId><artifactId>plexus-utils</artifactId><version>1.1</version></project>\n' \
      >"$utils/1.1/plexus-utils-1.1.pom"
  fi
  # Leiningen wants checksums.
  (cd "$repo" && find -L . \( -name '*.jar' -o -name '*.pom' \) -type f) | while read -r file; do
    sha1sum "$(chroot "$root" readlink -f "/usr/share/maven-repo/$file" | sed "s|^|$root|")" | cut -d' ' -f1 >"$mirror/$file.sha1"
  done
  cat >"$mirror/settings.xml" <<'XML'
<settings>
  <mirrors>
    <mirror>
      <id>debian</id>
      <mirrorOf>*</mirrorOf>
      <url>file:///opt/maven-mirror</url>
    </mirror>
  </mirrors>
</settings>
XML
fi
