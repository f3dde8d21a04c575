//! Packs a tree as a build does, for `cargo xtask bench deploy` to measure.
//!
//! Arguments: the tree, an empty directory. Prints the microseconds it took.
#![expect(clippy::print_stdout, reason = "the time is what it is started for")]

use std::path::Path;
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(tree), Some(slugs)) = (arguments.next(), arguments.next()) else {
        // `cargo test --benches` and `cargo bench` start it, too.
        println!("run: cargo xtask bench deploy");
        return;
    };
    let begun = Instant::now();
    let packed = manifold::slug::pack(Path::new(&tree), Path::new(&slugs));
    packed.expect("a slug");
    println!("{}", begun.elapsed().as_micros());
}
