//! What needs neither root nor a special kernel.

mod acme;
mod cases;
mod cli;
mod h2;
mod host;
mod machine;
mod router;
mod tidy;
mod tls;
