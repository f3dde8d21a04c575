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

# Buildpacks that install packages read it, whether there is anything in it or not.
[ -e "$root/etc/apt/sources.list" ] || : >"$root/etc/apt/sources.list"

# Java's keystore has its certificates in another order and with another date in every build: they
# are sorted and dated anew. Source: the JDK's `sun.security.provider.JavaKeyStore`.
keystore=$root/etc/ssl/certs/java/cacerts
if [ -e "$keystore" ]; then
  perl -MDigest::SHA=sha1 -e '
    my ($path, $date) = @ARGV;
    open(my $in, "<:raw", $path) or die "$path: $!\n";
    my $text = do { local $/; <$in> };
    my ($magic, $version, $count) = unpack("N3", $text);
    $magic == 0xfeedfeed && $version == 2 or die "$path is no keystore of that kind\n";
    my ($at, %entries) = (12);
    for (1 .. $count) {
      my ($tag, $alias) = unpack("x$at N n/a", $text);
      $tag == 2 or die "$path has a key\n";
      $at += 6 + length($alias) + 8;
      my ($kind, $certificate) = unpack("x$at n/a N/a", $text);
      $at += 6 + length($kind) + length($certificate);
      $entries{$alias} = pack("N n/a Q> n/a N/a", 2, $alias, $date * 1000, $kind, $certificate);
    }
    my $sorted = pack("N3", $magic, $version, $count) . join("", map { $entries{$_} } sort keys %entries);
    my $password = join("", map { "\0$_" } split(//, "changeit"));
    open(my $out, ">:raw", $path) or die "$path: $!\n";
    print $out $sorted, sha1($password . "Mighty Aphrodite" . $sorted);
    close($out) or die "$path: $!\n";
  ' "$keystore" "${SOURCE_DATE_EPOCH:-1700000000}"
  touch -d "@${SOURCE_DATE_EPOCH:-1700000000}" "$keystore"
fi

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
