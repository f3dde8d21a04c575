//! Certificates of the router: given ones, automatic ones (ACME), and a local authority.
//!
//! Purpose: for a host name of an app, the certificate to show; changes count from the next
//! handshake on, nothing is reloaded and no connection ends. What is shown is read from an
//! `ArcSwap`; a change writes the file, then the row, then the new picture.
//! Invariants: a certificate is shown only for names of the app that owns it (the router asks with
//! the app that the name belongs to); keys lie in `certs/` of the state directory, 0600, whole or
//! not at all; a name's automatic certificate goes when the domain does.
//! Deliberately absent: which app owns a name (the router's table), and TLS itself.

mod acme;
mod book;
mod chain;
mod files;
mod local;
mod manage;

pub use acme::Acme;
pub use book::Challenge;
pub use chain::{ChainError, Facts};
pub use manage::{Certificate, Certs, CertsError, Kind};
