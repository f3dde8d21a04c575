//! `.slugignore`: which files stay out of the build. Roughly gitignore, without negation.
//! Source: Dev Center, "Slug Compiler", "Ignoring files with .slugignore".

/// Most bytes that are read of a `.slugignore`.
pub(super) const BYTES_MAX: u64 = 64 << 10;

/// Most patterns that are used.
const PATTERNS_MAX: usize = 1000;

/// The patterns of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
    /// What was not understood, one line each.
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    segments: Vec<Segment>,
    directories_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`: any number of directories.
    Any,
    Name(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[a-z]`, `[!a-z]`
    Set {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Ignore {
    /// Parses any bytes.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut ignore = Self::default();
        for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
            let line = trim(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if line.starts_with(b"!") {
                ignore.warnings.push(format!(
                    ".slugignore line {number} is ignored: negation (`!`) is not supported"
                ));
                continue;
            }
            if ignore.patterns.len() == PATTERNS_MAX {
                ignore.warnings.push(format!(
                    ".slugignore: only the first {PATTERNS_MAX} patterns are used"
                ));
                break;
            }
            ignore.patterns.extend(Pattern::parse(line));
        }
        ignore.warnings.truncate(20);
        ignore
    }

    /// True without any pattern.
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the entry with these names from the root on is to be removed.
    pub(super) fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        let fits = |pattern: &Pattern| {
            (is_directory || !pattern.directories_only) && pattern.matches(path)
        };
        self.patterns.iter().any(fits)
    }
}

/// Without a trailing CR and trailing blanks (unless escaped).
fn trim(mut line: &[u8]) -> &[u8] {
    while let [head @ .., b' ' | b'\t' | b'\r'] = line {
        if head.ends_with(b"\\") {
            break;
        }
        line = head;
    }
    line
}

impl Pattern {
    fn parse(line: &[u8]) -> Option<Self> {
        let (line, directories_only) = match line.strip_suffix(b"/") {
            Some(line) => (line, true),
            None => (line, false),
        };
        let rooted = line.contains(&b'/');
        let names = line.split(|b| *b == b'/').filter(|name| !name.is_empty());
        let mut segments: Vec<Segment> = names.map(Segment::parse).collect();
        // `a/**` is what is in `a`, not `a` itself.
        if segments.last()? == &Segment::Any {
            segments.push(Segment::Name(vec![Piece::Many]));
        }
        if !rooted {
            segments.insert(0, Segment::Any);
        }
        Some(Self {
            segments,
            directories_only,
        })
    }

    fn matches(&self, path: &[&[u8]]) -> bool {
        wild(
            &self.segments,
            path,
            |segment| *segment == Segment::Any,
            |segment, name| match segment {
                Segment::Any => true,
                Segment::Name(pieces) => wild(
                    pieces,
                    name,
                    |piece| *piece == Piece::Many,
                    |piece, byte| piece.matches(*byte),
                ),
            },
        )
    }
}

impl Segment {
    fn parse(name: &[u8]) -> Self {
        if name == b"**" {
            return Self::Any;
        }
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < name.len() {
            let (piece, length) = Piece::parse(&name[at..]);
            at += length;
            // Stars in a row mean the same as one.
            if piece != Piece::Many || pieces.last() != Some(&Piece::Many) {
                pieces.push(piece);
            }
        }
        Self::Name(pieces)
    }
}

impl Piece {
    /// The piece at the start of `text` (not empty) and its length.
    fn parse(text: &[u8]) -> (Self, usize) {
        match text {
            [b'*', ..] | [] => (Self::Many, 1),
            [b'?', ..] => (Self::One, 1),
            [b'\\', byte, ..] => (Self::Byte(*byte), 2),
            [b'[', rest @ ..] => Self::set(rest).unwrap_or((Self::Byte(b'['), 1)),
            [byte, ..] => (Self::Byte(*byte), 1),
        }
    }

    /// The set whose text follows `[`; `None` if it is never closed.
    fn set(text: &[u8]) -> Option<(Self, usize)> {
        let negated = matches!(text.first(), Some(b'!' | b'^'));
        let start = usize::from(negated);
        // A `]` right at the start is a member.
        let end = text.iter().skip(start + 1).position(|b| *b == b']')? + start + 1;
        let (mut ranges, mut members) = (Vec::new(), &text[start..end]);
        while let [low, rest @ ..] = members {
            if let [b'-', high, rest @ ..] = rest {
                ranges.push((*low, *high));
                members = rest;
            } else {
                ranges.push((*low, *low));
                members = rest;
            }
        }
        Some((Self::Set { negated, ranges }, end + 2))
    }

    fn matches(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::One | Self::Many => true,
            Self::Set { negated, ranges } => {
                ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&byte))
                    != *negated
            }
        }
    }
}

/// Matches a sequence with wildcards. Only the last star is tried again, so the time is bounded
/// by the product of the lengths whatever the pattern.
fn wild<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && is_star(&pattern[p]) {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && one(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(is_star)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A path ending in `/` is a directory.
    #[track_caller]
    fn check(patterns: &str, path: &str, expected: bool) {
        let ignore = Ignore::parse(patterns.as_bytes());
        let (names, is_directory) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        let names: Vec<&[u8]> = names.split('/').map(str::as_bytes).collect();
        assert_eq!(
            ignore.matches(&names, is_directory),
            expected,
            "{patterns:?} on {path:?}"
        );
    }

    #[test]
    fn globs_match_as_in_gitignore() {
        check("*.psd", "a.psd", true);
        check("*.psd", "deep/er/a.psd", true);
        check("*.psd", "a.psd.txt", false);
        check("/*.psd", "a.psd", true);
        check("/*.psd", "deep/a.psd", false);
        check("docs/*.md", "docs/a.md", true);
        check("docs/*.md", "x/docs/a.md", false);
        check("docs/*.md", "docs/x/a.md", false);
        check("spec/", "spec/", true);
        check("spec/", "x/spec/", true);
        check("spec/", "spec", false);
        check("a/**/b", "a/b", true);
        check("a/**/b", "a/x/y/b", true);
        check("a/**", "a/", false);
        check("a/**", "a/x", true);
        check("**/foo", "x/y/foo", true);
        check("**", "x", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("[a-c]x", "bx", true);
        check("[!a-c]x", "bx", false);
        check("[!a-c]x", "dx", true);
        check("[]]", "]", true);
        check("[a", "[a", true);
        check("\\*", "*", true);
        check("\\*", "x", false);
        check("\\#a", "#a", true);
        check("a\r\n", "a", true);
        check("# a\n\n", "# a", false);
        check("/", "x", false);
        check("a*b*c", "aXbYc", true);
        check("a*b*c", "aXbY", false);
    }

    #[test]
    fn negation_is_refused_aloud() {
        let ignore = Ignore::parse(b"*.log\n!keep.log\n");
        assert_eq!(ignore.warnings.len(), 1);
        assert!(ignore.matches(&[b"keep.log"], false));
        assert!(Ignore::parse(b"# nothing\n").is_empty());
    }

    #[test]
    fn a_pattern_made_to_backtrack_ends() {
        let pattern = "*a".repeat(120) + "b";
        check(&pattern, &"a".repeat(250), false);
        let segments = "**/a/".repeat(100) + "b";
        check(&segments, &vec!["a"; 250].join("/"), false);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_and_match(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            name in proptest::collection::vec(any::<u8>(), 1..20),
        ) {
            Ignore::parse(&bytes).matches(&[&name, &name], true);
        }

        #[test]
        fn a_plain_name_matches_itself_alone(name in "[a-z.]{1,10}", other in "[a-z.]{1,10}") {
            let ignore = Ignore::parse(name.as_bytes());
            prop_assert!(ignore.matches(&[name.as_bytes()], false));
            prop_assert_eq!(ignore.matches(&[other.as_bytes()], false), name == other);
        }
    }
}
