//! One log line.

use jiff::Timestamp;

/// Who speaks. Source: Dev Center, "Logging".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Output of the app's dynos, and API actions (`app[api]`).
    App,
    /// The platform: states, router, codes.
    Heroku,
}

/// `TIME SOURCE[PROCESS]: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was received, microseconds.
    pub time: Timestamp,
    /// Who speaks.
    pub source: Source,
    /// `web.1`, `router`, `api`.
    pub process: String,
    /// The text without its newline; bytes of an app need not be UTF-8.
    pub message: Vec<u8>,
}

impl Line {
    /// A line of the platform, now. It may quote what people wrote, such as a command: a newline
    /// there becomes a space, lest the rest passes for a line of its own.
    pub fn platform(process: &str, message: impl Into<Vec<u8>>) -> Self {
        let mut message = message.into();
        let mut from = 0;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', &message[from..]) {
            message[from + at] = b' ';
            from += at + 1;
        }
        Self {
            time: Timestamp::now(),
            source: Source::Heroku,
            process: process.to_owned(),
            message,
        }
    }

    /// Appends `MICROSECONDS SOURCE PROCESS MESSAGE\n`, as kept on disk. A message has no newline:
    /// the splitter cuts there, and platform lines have none.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        let source = match self.source {
            Source::App => 'a',
            Source::Heroku => 'h',
        };
        let head = format!(
            "{} {source} {} ",
            self.time.as_microsecond(),
            self.process.replace([' ', '\n'], "_")
        );
        out.extend_from_slice(head.as_bytes());
        out.extend(
            self.message
                .iter()
                .map(|b| if *b == b'\n' { b' ' } else { *b }),
        );
        out.push(b'\n');
    }

    /// The reverse, without the newline; `None` for what is no such line (a torn write).
    pub(super) fn read_from(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(4, |b| *b == b' ');
        let mut text = || parts.next().and_then(|p| std::str::from_utf8(p).ok());
        let time = Timestamp::from_microsecond(text()?.parse().ok()?).ok()?;
        let source = match text()? {
            "a" => Source::App,
            "h" => Source::Heroku,
            _ => return None,
        };
        let process = text()?.to_owned();
        Some(Self {
            time,
            source,
            process,
            message: parts.next()?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_platform_quotes_stays_one_line() {
        let line = Line::platform("run.1", "Starting process with command `a\nb\r\nc`");
        assert_eq!(line.message, b"Starting process with command `a b  c`");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            micros in 0i64..4_000_000_000_000_000,
            is_app: bool,
            process in "[a-z]{1,9}\\.[0-9]{1,4}",
            message in proptest::collection::vec(any::<u8>().prop_filter("newline", |b| *b != b'\n'), 0..200),
        ) {
            let line = Line {
                time: Timestamp::from_microsecond(micros).expect("a time"),
                source: if is_app { Source::App } else { Source::Heroku },
                process,
                message,
            };
            let mut bytes = Vec::new();
            line.write_to(&mut bytes);
            prop_assert_eq!(bytes.pop(), Some(b'\n'));
            prop_assert_eq!(Line::read_from(&bytes), Some(line));
        }

        #[test]
        fn junk_is_no_line_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Line::read_from(&bytes);
        }
    }
}
