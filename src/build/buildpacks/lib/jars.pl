# jars.pl FILE...: dates what is in jars (zip files) evenly, in place, so that the same classes make the
# same file whenever they were packed.
#
# Classes are dated two seconds after the rest: Clojure loads a class only if it is newer than its
# source, else it compiles that anew. Source: PKWARE, "APPNOTE.TXT", 4.3 and 4.5.
use strict;
use warnings;

# 2000-01-01, as DOS and as Unix have it.
my ($day, $epoch) = (0x2821, 946684800);

sub at {
    my ($file, $place, $length) = @_;
    seek($file, $place, 0) and read($file, my $text, $length) == $length or die "cut short\n";
    return $text;
}

sub put {
    my ($file, $place, $text) = @_;
    seek($file, $place, 0) and print $file $text or die "$!\n";
}

# Times in an entry's extra fields.
sub extra {
    my ($text, $later) = @_;
    for (my $from = 0; $from + 4 <= length($text);) {
        my ($id, $size) = unpack("v2", substr($text, $from, 4));
        my $body = $from + 4;
        last if $body + $size > length($text);
        if ($id == 0x5455) {
            my $count = int(($size - 1) / 4);
            substr($text, $body + 1, 4 * $count) = pack("V", $epoch + $later) x $count if $count > 0;
        } elsif ($id == 0x000a && $size >= 32) {
            my $since_1601 = ($epoch + $later + 11644473600) * 10_000_000;
            substr($text, $body + 8, 24) = pack("Q<", $since_1601) x 3;
        }
        $from = $body + $size;
    }
    return $text;
}

sub even {
    my ($path) = @_;
    open(my $file, "+<:raw", $path) or die "$!\n";
    my $size = -s $file;
    my $tail = $size < 65557 ? $size : 65557;
    my $text = at($file, $size - $tail, $tail);
    my $found = rindex($text, "PK\5\6");
    die "not a zip file\n" if $found < 0 || length($text) - $found < 22;
    my ($count, $length, $place) = unpack("x10 v V2", substr($text, $found));
    my $end = $size - $tail + $found;
    if ($count == 0xffff || $place == 0xffffffff) {
        $end -= 76;
        my $large = at($file, $end, 56);
        die "its directory is not found\n" if substr($large, 0, 4) ne "PK\6\6";
        ($length, $place) = unpack("x40 Q<2", $large);
    }
    my $start = $end - $length;
    # A script may stand before it.
    my $before = $start - $place;
    my $directory = at($file, $start, $length);
    for (my $from = 0; $from + 46 <= $length;) {
        last if substr($directory, $from, 4) ne "PK\1\2";
        my ($name_length, $extra_length, $comment_length, $local) =
            unpack("x28 v3 x8 V", substr($directory, $from, 46));
        my $later = substr($directory, $from + 46, $name_length) =~ /\.class$/ ? 2 : 0;
        my $dated = pack("v2", $later / 2, $day);
        substr($directory, $from + 12, 4) = $dated;
        my $more = $from + 46 + $name_length;
        substr($directory, $more, $extra_length) = extra(substr($directory, $more, $extra_length), $later);
        die "an entry of 4 GiB\n" if $local == 0xffffffff;
        my $head = at($file, $before + $local, 30);
        die "an entry is not where it should be\n" if substr($head, 0, 4) ne "PK\3\4";
        my ($own_name, $own_extra) = unpack("x26 v2", $head);
        put($file, $before + $local + 10, $dated);
        my $own = $before + $local + 30 + $own_name;
        put($file, $own, extra(at($file, $own, $own_extra), $later)) if $own_extra > 0;
        $from = $more + $extra_length + $comment_length;
    }
    put($file, $start, $directory);
    close($file) or die "$!\n";
}

for my $path (@ARGV) {
    # What is no jar, or an odd one, stays as it is: it only differs from build to build.
    eval { even($path); 1 } or print STDERR "$path: $@";
}
