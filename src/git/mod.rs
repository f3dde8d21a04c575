//! The server's side of `git push`: one bare repository per app, served by Debian's own git.
//!
//! A push: client → API (Unix socket, HTTP, ssh over either) → [`Repository::start`] →
//! `git receive-pack` in a confined process (`worker`) → its pre-receive hook, which talks to us
//! over a descriptor of its own → [`Push`]: what was pushed, the commit's files as an archive, our
//! words back to the client, and the verdict. Only a good verdict lets git move a ref.
//!
//! Everything a client sends is read by that process alone: the `dyno` user, no capability, no
//! network, nothing of this host below `/tmp` but the repository. Deliberately absent: what a push
//! means (that is `api`), and any git work of ours.

mod push;
mod repository;
mod session;
mod worker;

pub use push::{Push, PushError, Update, Wanted, wanted};
pub use repository::{GitError, Repository};
pub use session::{Exchange, Service, Session};
pub use worker::git_main;
