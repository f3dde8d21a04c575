//! How commands fail: an exit status, what failed and why, and what to do.

use std::io;
use std::process::ExitCode;

/// Exit statuses of the CLI. `run` ends with its command's status once the command ran; 128 + n
/// stands for signal n, as in a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// None of those below.
    General = 1,
    /// The words given make no command (also clap's status).
    Usage = 2,
    /// No such app, dyno, release, process type, domain, …
    NotFound = 3,
    /// Something else is under way, or too much of it.
    Conflict = 4,
    /// The server refuses a value.
    Invalid = 5,
    /// The caller may not use the socket.
    Permission = 6,
    /// Nobody listens on the socket.
    NotRunning = 7,
    /// A fault of the server's own: full disk, internal error, stopping.
    Server = 8,
    /// The build failed; nothing was released.
    BuildFailed = 9,
    /// The connection broke off, or no answer came in time.
    Connection = 10,
    /// The release command failed; the release before stays current.
    ReleaseFailed = 11,
    /// Nobody reads our output any more (128 + SIGPIPE).
    BrokenPipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Fault {
    pub(super) exit: Exit,
    /// What failed and why.
    pub(super) message: String,
    /// What to do.
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn general(message: impl Into<String>) -> Self {
        Self::new(Exit::General, message)
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writing our output failed. A reader that left is no news to anyone.
    pub(super) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::BrokenPipe, "nobody reads the output");
        }
        Self::general(format!("cannot write the output: {error}"))
    }

    /// An answer that is no success. `id` and `message` are the server's.
    pub(super) fn answer(status: u16, id: &str, message: &str) -> Self {
        let exit = match (status, id) {
            (403, _) => Exit::Permission,
            (404, _) => Exit::NotFound,
            (409 | 429, _) => Exit::Conflict,
            (400..=499, _) => Exit::Invalid,
            (500.., _) => Exit::Server,
            _ => Exit::General,
        };
        let fault = Self::new(exit, message.trim());
        match (exit, id) {
            (Exit::NotFound, _) if message.contains("find that app") => {
                fault.hint("`manifold apps` lists the apps there are")
            }
            (Exit::Server, "internal_error") => {
                fault.hint("see the supervisor's journal, e.g. `journalctl -u manifold`")
            }
            _ => fault,
        }
    }
}

/// What commands return.
pub(super) type Done<T = ()> = Result<T, Fault>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_refusal_has_its_own_status() {
        let check = |status, expected| {
            assert_eq!(Fault::answer(status, "x", "No.").exit, expected, "{status}");
        };
        check(400, Exit::Invalid);
        check(403, Exit::Permission);
        check(404, Exit::NotFound);
        check(409, Exit::Conflict);
        check(413, Exit::Invalid);
        check(422, Exit::Invalid);
        check(429, Exit::Conflict);
        check(500, Exit::Server);
        check(503, Exit::Server);
        check(507, Exit::Server);
        check(302, Exit::General);
    }

    #[test]
    fn an_unknown_app_comes_with_a_way_to_find_the_right_one() {
        let fault = Fault::answer(404, "not_found", "Couldn't find that app.");
        assert_eq!(fault.to_string(), "Couldn't find that app.");
        assert!(
            fault
                .hint
                .is_some_and(|hint| hint.contains("manifold apps"))
        );
    }

    #[test]
    fn a_reader_that_left_ends_us_like_sigpipe_would() {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Fault::output(&error).exit as u8, 141);
        let error = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Fault::output(&error).exit, Exit::General);
    }
}
