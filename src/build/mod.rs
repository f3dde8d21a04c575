//! Source → slug: buildpacks run in an isolated build dyno.
//!
//! Knows no HTTP and no SQL: the API hands it an order, and records what comes back. Everything
//! that comes from the app or its build is hostile: it is read bounded and through no link.
//!
//! Stages: `source` unpacks and cleans, `dyno` runs `driver.sh` with the built-in buildpacks,
//! `run` takes the process types and packs. Buildpacks from elsewhere (`choice`) run as those built in
//! do: in the build dyno, as its user.

mod buildpack;
#[cfg(test)]
mod causes;
mod choice;
#[cfg(test)]
mod contract;
mod dyno;
mod failure;
mod ignore;
#[cfg(test)]
mod jars;
mod output;
mod procfile;
mod release_yaml;
mod run;
mod source;
mod tree;

pub use failure::BuildError;
pub use output::{Output, OutputReader};
pub use run::{BuildOrder, Built, Rest, run};
