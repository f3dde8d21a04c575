//! From a stream of bytes to lines.

/// Longest line in bytes; longer ones are cut in pieces. Source: Dev Center, "Logging".
pub const LINE_MAX: usize = 10_000;

/// Cuts a stream at newlines and at [`LINE_MAX`]. Holds at most one unfinished line.
#[derive(Debug, Default)]
pub struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Takes bytes and hands out every whole line, without its newline and a `\r` before it.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LINE_MAX - self.rest.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            if let Some(end) = window.iter().position(|b| *b == b'\n') {
                if self.rest.is_empty() {
                    line(without_return(&bytes[..end]));
                } else {
                    self.rest.extend_from_slice(&bytes[..end]);
                    self.flush(&mut line);
                }
                bytes = &bytes[end + 1..];
            } else if bytes.len() <= room {
                self.rest.extend_from_slice(bytes);
                return;
            } else {
                self.rest.extend_from_slice(&bytes[..room]);
                bytes = &bytes[room..];
                // Cut before a character that would be torn, if one is.
                let cut = boundary(&self.rest);
                line(&self.rest[..cut]);
                self.rest.drain(..cut);
            }
        }
    }

    /// True if an unfinished line waits.
    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Hands out the unfinished line, if there is one.
    pub fn flush(&mut self, mut line: impl FnMut(&[u8])) {
        if self.has_rest() {
            line(without_return(&self.rest));
            self.rest.clear();
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where to cut a full piece: before an unfinished UTF-8 character at its end, else at the end.
fn boundary(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(4) {
        let at = bytes.len() - back;
        let length = match bytes[at] {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if length > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line.to_vec()));
        }
        splitter.flush(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn lines_end_at_newlines_wherever_the_chunks_end() {
        assert_eq!(
            split(&[b"a\nb", b"c\r\n", b"\n", b"d"]),
            [&b"a"[..], b"bc", b"", b"d"]
        );
    }

    #[test]
    fn a_long_line_is_cut_in_pieces_of_ten_thousand_bytes() {
        let long = vec![b'x'; 25_000];
        let lengths: Vec<_> = split(&[&long, b"\ny"]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [10_000, 10_000, 5_000, 1]);
        // Exactly full: one line, no empty one behind it.
        let mut full = vec![b'x'; LINE_MAX];
        full.push(b'\n');
        assert_eq!(split(&[&full]).len(), 1);
    }

    #[test]
    fn a_cut_does_not_tear_a_character() {
        let mut text = "x".repeat(LINE_MAX - 1);
        text.push('é');
        text.push_str("tail");
        let lines = split(&[text.as_bytes()]);
        assert_eq!(lines[0].len(), LINE_MAX - 1);
        assert_eq!(lines[1], "étail".as_bytes());
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_no_line_is_too_long(
            chunks in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![9 => any::<u8>(), 1 => Just(b'\n')], 0..9_000),
                0..6,
            ),
        ) {
            let all: Vec<u8> = chunks.concat();
            let refs: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let lines = split(&refs);
            prop_assert!(lines.iter().all(|l| l.len() <= LINE_MAX));
            let kept: usize = lines.iter().map(Vec::len).sum();
            let newlines = all.split(|b| *b == b'\n').count() - 1;
            let returns = all.windows(2).filter(|w| *w == b"\r\n").count()
                + usize::from(all.last() == Some(&b'\r'));
            prop_assert!(kept + newlines + returns >= all.len());
            prop_assert!(kept + newlines <= all.len());
        }
    }
}
