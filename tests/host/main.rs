//! What needs neither root nor a special kernel.

mod acme;
mod apart;
mod cases;
mod cli;
mod codes;
mod expect;
mod faults;
mod frames;
mod front;
mod h2;
mod host;
mod leaving;
mod limits;
mod machine;
mod pool;
mod router;
mod routing;
mod slugs;
mod tidy;
mod tls;
mod top;
mod websocket;
