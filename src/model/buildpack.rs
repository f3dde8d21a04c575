//! Which buildpack: one of ours, one from elsewhere, or a folder that was sent to us.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// The built-in buildpacks, in the order of default detection: the first that applies builds the
/// app. Source: herokuish, its Makefile; Dev Center, "Buildpacks".
pub const BUILT_IN: &[&str] = &[
    "ruby", "nodejs", "clojure", "python", "java", "scala", "static",
];

/// Most buildpacks of an app.
pub const BUILDPACKS_MAX: usize = 20;

/// Longest URL in bytes.
const URL_MAX: usize = 2048;

/// A buildpack of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Buildpack {
    /// `heroku/NAME`.
    BuiltIn(&'static str),
    /// A git or tarball URL, with `#REF` if you like.
    Remote(String),
    /// A folder or archive that was uploaded: `upload:NAME:SHA256`.
    Uploaded {
        /// What it was called.
        name: String,
        /// Of the archive.
        digest: Digest,
    },
}

/// A word that names no buildpack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildpackError {
    /// No such short name.
    #[error(
        "There is no built-in buildpack {0}. Built in are heroku/{names}; others are given by URL.",
        names = BUILT_IN.join(", heroku/")
    )]
    Unknown(String),
    /// Neither a name nor a URL.
    #[error(
        "{0} is no buildpack: give heroku/NAME, a git URL (https://, ssh://, git://, git@HOST:PATH), or the URL of a .tgz"
    )]
    Form(String),
}

impl FromStr for Buildpack {
    type Err = BuildpackError;

    fn from_str(text: &str) -> Result<Self, BuildpackError> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("upload:") {
            return uploaded(rest).ok_or_else(|| BuildpackError::Form(text.to_owned()));
        }
        if let Some(name) = short_name(text) {
            return built_in(name).ok_or_else(|| BuildpackError::Unknown(text.to_owned()));
        }
        let is_url = ["https://", "http://", "ssh://", "git://", "git@"]
            .iter()
            .any(|scheme| {
                text.strip_prefix(scheme)
                    .is_some_and(|rest| !rest.is_empty())
            });
        let is_plain = text.len() <= URL_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        if is_url && is_plain {
            Ok(Self::Remote(text.to_owned()))
        } else {
            Err(BuildpackError::Form(text.to_owned()))
        }
    }
}

fn built_in(name: &str) -> Option<Buildpack> {
    let found = BUILT_IN.iter().find(|known| **known == name)?;
    Some(Buildpack::BuiltIn(found))
}

/// NAME of every form in which Heroku's own buildpacks are called.
fn short_name(text: &str) -> Option<&str> {
    if let Some(name) = text.strip_prefix("heroku/") {
        return Some(name);
    }
    if let Some(name) = text.strip_prefix("urn:buildpack:heroku/") {
        return Some(name);
    }
    if let Some(name) = text.strip_prefix("https://github.com/heroku/heroku-buildpack-") {
        let name = name.strip_suffix(".git").unwrap_or(name);
        // Another version of ours than ours is somebody else's.
        return built_in(name).map(|_| name);
    }
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(text)
}

fn uploaded(rest: &str) -> Option<Buildpack> {
    let (name, digest) = rest.rsplit_once(':')?;
    let digest = format!("SHA256:{digest}").parse().ok()?;
    let is_name = !name.is_empty()
        && name.len() <= 100
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    is_name.then(|| Buildpack::Uploaded {
        name: name.to_owned(),
        digest,
    })
}

impl fmt::Display for Buildpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => write!(f, "heroku/{name}"),
            Self::Remote(url) => f.write_str(url),
            Self::Uploaded { name, digest } => write!(f, "upload:{name}:{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_one_buildpack() {
        let check = |text: &str, expected: &str| {
            let parsed: Buildpack = text.parse().expect(text);
            assert_eq!(parsed.to_string(), expected);
            let again: Buildpack = parsed.to_string().parse().expect("its own form");
            assert_eq!(again, parsed);
        };
        check("heroku/nodejs", "heroku/nodejs");
        check("urn:buildpack:heroku/ruby", "heroku/ruby");
        check("python", "heroku/python");
        check(
            "https://github.com/heroku/heroku-buildpack-scala.git",
            "heroku/scala",
        );
        let version = "https://github.com/heroku/heroku-buildpack-scala#v12";
        check(version, version);
        check("https://x.test/a.tgz", "https://x.test/a.tgz");
        check("git@x.test:a/b.git#main", "git@x.test:a/b.git#main");
        let upload = format!("upload:mine:{}", "ab".repeat(32));
        check(&upload, &upload);
    }

    #[test]
    fn what_names_nothing_is_refused_with_what_would() {
        for bad in [
            "",
            "heroku/cobol",
            "/etc",
            "file:///etc",
            "--upload-pack=x",
            "https://",
            "https://a b",
            "upload:x:y",
            "upload:../x:00",
        ] {
            let error = bad.parse::<Buildpack>().expect_err(bad);
            assert!(error.to_string().contains("heroku/"), "{error}");
        }
    }
}
