//! Why a build made no slug, in the platform's types and in the push's words.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Output;
use crate::model::{BuildpackError, Digest, ExitStatus};
use crate::slug::SlugError;
use crate::supervisor::{CommandError, Failure};

/// A build that made no slug. The output already says so in the contract's words.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No buildpack applies.
    #[error("no default language could be detected for this app")]
    NotDetected,
    /// A buildpack that was set does not apply.
    #[error("the app is not compatible with buildpack {0}")]
    NotCompatible(String),
    /// A buildpack cannot be fetched.
    #[error("buildpack {0} cannot be fetched")]
    Fetch(String),
    /// What is set is no buildpack.
    #[error(transparent)]
    Buildpack(BuildpackError),
    /// An uploaded buildpack cannot be unpacked.
    #[error("cannot unpack the uploaded buildpack")]
    Uploaded(#[source] SlugError),
    /// A submodule cannot be had.
    #[error("submodule {0} cannot be fetched")]
    Submodule(String),
    /// The buildpack failed.
    #[error("failed to compile {buildpack} app: status {status}")]
    Compile {
        /// What detect printed.
        buildpack: String,
        /// Of the build dyno.
        status: ExitStatus,
    },
    /// The build dyno ended before a buildpack was chosen (it was stopped, or the host failed).
    #[error("the build was interrupted: status {status}")]
    Interrupted {
        /// Of the build dyno.
        status: ExitStatus,
    },
    /// It failed when it had used up what it has.
    #[error("the build used up its {what} of {max_bytes} bytes")]
    UsedUp {
        /// Of what.
        what: Bound,
        /// So much.
        max_bytes: u64,
        /// How it failed.
        source: Box<BuildError>,
    },
    /// It took too long and was stopped.
    #[error("the build took longer than {}", length(*.0))]
    Timeout(Duration),
    /// The archive is not the one that was announced.
    #[error("the source's checksum is SHA256:{actual}, not SHA256:{expected}")]
    Checksum {
        /// As announced.
        expected: Digest,
        /// Of the bytes that came.
        actual: Digest,
    },
    /// The source cannot be unpacked.
    #[error("cannot unpack the source")]
    Source(#[source] SlugError),
    /// What was built cannot be packed.
    #[error("cannot pack the slug")]
    Slug(#[source] SlugError),
    /// The slug is larger than allowed.
    #[error("the slug has {size_bytes} bytes, more than {max_bytes}")]
    TooLarge {
        /// Compressed.
        size_bytes: u64,
        /// Allowed.
        max_bytes: u64,
    },
    /// The supervisor took no build dyno.
    #[error("cannot start a build dyno")]
    Refused(#[source] CommandError),
    /// The build dyno did not start.
    #[error("the build dyno did not start")]
    Launch(#[source] Arc<Failure>),
    /// The supervisor stopped, or did not tell how the build dyno ended.
    #[error("the supervisor stopped while the build ran")]
    Stopped,
    /// A file of the platform's.
    #[error("cannot {act} {path}")]
    File {
        /// In words.
        act: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a build can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// That of its dyno.
    Memory,
    /// For its source and what is made of it.
    Disk,
    /// What its app's builds keep for the next one.
    Cache,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Cache => "cache",
        })
    }
}

impl BuildError {
    /// For `map_err`.
    pub(super) fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { act, path, source }
    }

    /// Says it to the one who pushed.
    pub(super) fn explain(&self, output: &Output) {
        match self {
            Self::NotDetected => {
                output.error("No default language could be detected for this app.");
                output.plain("\t\t\tHINT: This occurs when Heroku cannot detect the buildpack to use for this application automatically.");
                output.plain("\t\t\tSee https://devcenter.heroku.com/articles/buildpacks");
            }
            Self::Compile { buildpack, .. } => {
                output.plain("");
                output.error(&format!(
                    "Push rejected, failed to compile {buildpack} app."
                ));
            }
            // The driver said it where it happened.
            Self::NotCompatible(_) => output.detail(
                "It was set with `manifold buildpacks:set`; `manifold buildpacks:clear` lets the source decide.",
            ),
            Self::Submodule(path) => {
                output.plain("");
                output.error(&format!(
                    "Push rejected, submodule {path} cannot be fetched."
                ));
            }
            Self::Timeout(limit) => {
                output.plain("");
                output.error("Build timed out");
                output.error(&format!("It was stopped after {}.", length(*limit)));
            }
            Self::UsedUp {
                what,
                max_bytes,
                source,
            } => {
                let size = human(*max_bytes);
                output.error(&match what {
                    Bound::Memory => format!(
                        "The build ran out of memory, of which it has {size}: let it do less at once (fewer jobs, a smaller heap)."
                    ),
                    Bound::Disk => format!(
                        "The build filled its disk, which has {size}: leave out what the app does not need (the host's settings bound it: [disk] build_mb)."
                    ),
                    Bound::Cache => format!(
                        "The build filled its app's cache, which has {size}: manifold builds:cache:purge empties it (the host's settings bound it: [disk] cache_mb)."
                    ),
                });
                return source.explain(output);
            }
            Self::TooLarge {
                size_bytes,
                max_bytes,
            } => {
                let (size, max) = (human(*size_bytes), max_bytes >> 20);
                output.error(&format!(
                    "Compiled slug size: {size} is too large (max is {max}M)."
                ));
                output.error("See: http://devcenter.heroku.com/articles/slug-size");
            }
            Self::Checksum { expected, actual } => {
                output.error("The source is not the one that was announced.");
                output.error(&format!("Expected SHA256:{expected}"));
                output.error(&format!("Received SHA256:{actual}"));
            }
            other => output.error(&sentence(&chain(other))),
        }
        output.plain("");
        output.error("Push failed");
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let head = chars.next().map(|c| c.to_ascii_uppercase());
    head.into_iter().chain(chars).collect()
}

/// `15 minutes`; in seconds what are no whole minutes.
fn length(time: Duration) -> String {
    let (count, unit) = match time.as_secs() {
        seconds if seconds >= 60 && seconds % 60 == 0 => (seconds / 60, "minute"),
        seconds => (seconds, "second"),
    };
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{s}")
}

/// A size as pushes show it: `36.3M`, powers of two; small ones in `K`.
pub(super) fn human(bytes: u64) -> String {
    let (unit, name) = if bytes < 1 << 20 {
        (1 << 10, 'K')
    } else {
        (1 << 20, 'M')
    };
    // Tenths, rounded; in u128 nothing overflows.
    let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
    format!("{}.{}{name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(error: &BuildError) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let output = Output::create(&dir.path().join("log")).expect("made");
        error.explain(&output);
        output.finish();
        let (mut reader, mut text) = (output.reader(), Vec::new());
        while let Some(bytes) = reader.next().await {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn failures_are_told_in_the_words_of_a_push() {
        insta::assert_snapshot!("not_detected", said(&BuildError::NotDetected).await);
        let compile = BuildError::Compile {
            buildpack: "Python".to_owned(),
            status: ExitStatus(1),
        };
        insta::assert_snapshot!("compile", said(&compile).await);
        let too_large = BuildError::TooLarge {
            size_bytes: 534_878_618,
            max_bytes: 500 << 20,
        };
        insta::assert_snapshot!("too_large", said(&too_large).await);
        let timeout = BuildError::Timeout(Duration::from_mins(15));
        insta::assert_snapshot!("timeout", said(&timeout).await);
        for (name, what, max_bytes) in [
            ("memory", Bound::Memory, 1 << 30),
            ("disk", Bound::Disk, 8 << 30),
            ("cache", Bound::Cache, 2 << 30),
        ] {
            let used_up = BuildError::UsedUp {
                what,
                max_bytes,
                source: Box::new(BuildError::Compile {
                    buildpack: "Python".to_owned(),
                    status: ExitStatus(137),
                }),
            };
            insta::assert_snapshot!(name, said(&used_up).await);
        }
        let refused = SlugError::Refused("entry `a\nb` is a device".to_owned());
        insta::assert_snapshot!("source", said(&BuildError::Source(refused)).await);
    }

    #[test]
    fn times_are_told_in_their_largest_whole_unit() {
        let check = |seconds, words: &str| {
            assert_eq!(length(Duration::from_secs(seconds)), words);
        };
        check(900, "15 minutes");
        check(60, "1 minute");
        check(90, "90 seconds");
        check(1, "1 second");
    }

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!(human(0), "0.0K");
        assert_eq!(human(1536), "1.5K");
        assert_eq!(human(38_063_309), "36.3M");
        assert_eq!(human(u64::MAX), "17592186044416.0M");
    }
}
