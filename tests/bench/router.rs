//! The router of this build over plain processes, for `cargo xtask bench router` to measure.
//!
//! Arguments: router threads, number of web dynos, their command, a certificate and its key. Prints
//! the router's addresses when all are up, without TLS and with it; ends with its stdin.
#![expect(clippy::print_stdout, reason = "the address is what it is started for")]

use std::io::Read as _;

use manifold::settings::Timings;

#[path = "../host/host.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod host;
#[path = "../host/machine.rs"]
mod machine;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next();
    let (Some(threads), Some(dynos), Some(command), Some(chain), Some(key)) =
        (next(), next(), next(), next(), next())
    else {
        // `cargo test --benches` and `cargo bench` start it, too.
        println!("run: cargo xtask bench router");
        return;
    };
    let threads = threads.parse().expect("a number of threads");
    let dynos: u32 = dynos.parse().expect("a number of dynos");
    let host = host::Host::start_with(Timings::default(), |settings| {
        settings.router_threads = threads;
        settings.https = vec![([127, 0, 0, 1], 0).into()];
    });
    host.web("bench", "tiny", &command);
    if dynos > 1 {
        host.ok(&["ps:scale", &format!("web={dynos}"), "--app", "bench"]);
    }
    let names: Vec<String> = (1..=dynos).map(|n| format!("web.{n}")).collect();
    host.until_up(
        "bench",
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    host.ok(&["certs:add", &chain, &key, "--app", "bench"]);
    println!("{}\n{}", host.http, host.https.expect("TLS is served"));
    let mut nothing = Vec::new();
    std::io::stdin()
        .read_to_end(&mut nothing)
        .expect("stdin can be read");
}
