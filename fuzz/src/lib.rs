//! The router's parsers, compiled straight from their files: nothing of the platform comes along,
//! and nothing of them becomes public in it.
#![allow(dead_code, reason = "the router uses the rest")]

#[path = "../../src/router"]
pub mod router {
    mod chunks;
    pub mod fuzz;
    pub mod h2 {
        mod block;
        pub mod fuzz;
        mod guard;
        mod hpack;
    }
    mod head;
    mod headers;
    mod name;
}
