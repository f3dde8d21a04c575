//! Which buildpacks build an app: those that are set, else `BUILDPACK_URL`, else `.buildpacks`,
//! else detection. Source: Dev Center, "Buildpacks"; "Using Multiple Buildpacks for an App".

use std::fs;
use std::path::Path;

use super::run::BuildOrder;
use super::source::Workdir;
use super::tree::{self, Found};
use super::{BuildError, Output};
use crate::model::{BUILDPACKS_MAX, Buildpack};
use crate::settings::Paths;
use crate::{slug, sys};

/// Most bytes of a `.buildpacks`.
const LIST_MAX: u64 = 64 << 10;

/// The buildpacks of a build; none means that the driver detects one.
///
/// # Errors
/// [`BuildError::Buildpack`]: something that is no buildpack was asked for.
pub(super) fn choose(order: &BuildOrder, source: &Path) -> Result<Vec<Buildpack>, BuildError> {
    if !order.buildpacks.is_empty() {
        return Ok(order.buildpacks.clone());
    }
    if let Some(url) = order.config.get("BUILDPACK_URL").map(str::trim)
        && !url.is_empty()
    {
        return Ok(vec![url.parse().map_err(BuildError::Buildpack)?]);
    }
    let found = tree::read_file(source, ".buildpacks", LIST_MAX)
        .map_err(BuildError::file("read", Path::new(".buildpacks")))?;
    let Found::Bytes(bytes) = found else {
        return Ok(Vec::new());
    };
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .take(BUILDPACKS_MAX)
        .map(|line| line.parse().map_err(BuildError::Buildpack))
        .collect()
}

/// Says which, and leaves the list (and what was uploaded, unpacked) for the driver.
///
/// # Errors
/// An uploaded buildpack is gone or cannot be unpacked.
pub(super) async fn prepare(
    buildpacks: &[Buildpack],
    paths: &Paths,
    workdir: &Workdir,
    output: &Output,
) -> Result<(), BuildError> {
    let mut list = String::new();
    match buildpacks {
        [] => {}
        [one] => output.step(&format!("Using buildpack: {}", shown(one))),
        many => {
            output.step("Using buildpacks:");
            for (at, one) in many.iter().enumerate() {
                output.detail(&format!("{}. {}", at + 1, shown(one)));
            }
        }
    }
    for (at, buildpack) in buildpacks.iter().enumerate() {
        let line = match buildpack {
            Buildpack::BuiltIn(name) => format!("builtin {name}\n"),
            Buildpack::Remote(url) => format!("remote {url}\n"),
            Buildpack::Uploaded { name, digest } => {
                let dir = workdir.packs().join(at.to_string());
                fs::create_dir_all(&dir).map_err(BuildError::file("make", &dir))?;
                slug::extract_source(&paths.pack(digest), &dir)
                    .await
                    .map_err(BuildError::Uploaded)?;
                format!("uploaded {at} {name}\n")
            }
        };
        list.push_str(&line);
    }
    let path = workdir.result().join("buildpacks");
    fs::write(&path, list)
        .and_then(|()| sys::give_to_app(&path))
        .map_err(BuildError::file("write", &path))
}

/// As people called it.
fn shown(buildpack: &Buildpack) -> String {
    match buildpack {
        Buildpack::Uploaded { name, .. } => format!("{name} (uploaded)"),
        // A password in a URL is nobody's business.
        Buildpack::Remote(url) => match url.split_once("://") {
            Some((scheme, rest)) => match rest.split_once('@') {
                Some((user, host)) if !user.contains('/') => format!("{scheme}://{host}"),
                _ => url.clone(),
            },
            None => url.clone(),
        },
        Buildpack::BuiltIn(_) => buildpack.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_not_shown() {
        let check = |url: &str, expected: &str| {
            assert_eq!(shown(&url.parse().expect("a buildpack")), expected);
        };
        check(
            "https://u:secret@x.test/a.git#v1",
            "https://x.test/a.git#v1",
        );
        check("https://x.test/a@b.git", "https://x.test/a@b.git");
        check("heroku/ruby", "heroku/ruby");
    }
}
