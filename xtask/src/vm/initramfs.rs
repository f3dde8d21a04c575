//! The first file system of the guest: busybox, the modules it needs, and `/init`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::process;

/// Disks and network of the machine, then what manifold uses. What is built in is no error.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "overlay",
    "veth",
    "nf_tables",
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "nft_chain_nat",
    "nft_limit",
    "nft_connlimit",
    "nft_numgen",
    "nft_fib_inet",
    "nft_reject_inet",
    "nf_conntrack_netlink",
    "erofs",
    "squashfs",
    "loop",
    "tun",
    "bfq",
];

const INIT: &str = include_str!("init.sh");

/// Builds it, unless the cache holds the one of this kernel and this `/init`.
pub(super) fn build(cache: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let file = cache.join(format!("initramfs-{}.zst", kernel.release));
    let recipe = cache.join(format!("initramfs-{}.recipe", kernel.release));
    let wanted = format!("{MODULES:?}\n{INIT}");
    if file.is_file() && fs::read_to_string(&recipe).is_ok_and(|text| text == wanted) {
        return Ok(file);
    }
    let scratch = tempfile::Builder::new()
        .prefix("initramfs-")
        .tempdir_in(cache)?;
    let root = scratch.path().join("root");
    for dir in ["bin", "mod", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("cannot copy /bin/busybox")?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    copy_modules(kernel, &root.join("mod"))?;
    let packed = scratch.path().join("packed");
    let mut pack = Command::new("sh");
    pack.current_dir(&root)
        .args([
            "-ec",
            r#"find . | LC_ALL=C sort | cpio --quiet -o -H newc | zstd -q -3 -o "$0""#,
        ])
        .arg(&packed);
    process::check(&mut pack, Duration::from_mins(5))?;
    fs::rename(&packed, &file).with_context(|| format!("cannot make {}", file.display()))?;
    fs::write(&recipe, wanted).with_context(|| format!("cannot write {}", recipe.display()))?;
    Ok(file)
}

/// Copies the modules flat, and writes `order`: each after those it depends on.
fn copy_modules(kernel: &Kernel, to: &Path) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut order = String::new();
    for module in MODULES {
        let mut command = Command::new("modprobe");
        command
            .args(["--show-depends", "-S", &kernel.release, "-d"])
            .arg(&kernel.tree)
            .arg(module);
        let text = process::read(&mut command)?;
        let files = text
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
            .filter_map(|line| line.split_whitespace().next());
        for file in files.filter(|file| seen.insert((*file).to_owned())) {
            let file = Path::new(file);
            let name = file.file_name().context("a module has a name")?;
            let name = name.to_string_lossy();
            let plain = name.trim_end_matches(".xz");
            fs::copy(file, to.join(&*name))
                .with_context(|| format!("cannot copy {}", file.display()))?;
            if plain != name {
                // The guest's insmod would try it packed first, and the kernel complain.
                let mut unpack = Command::new("/bin/busybox");
                unpack.arg("unxz").arg(to.join(&*name));
                process::check(&mut unpack, Duration::from_mins(1))?;
            }
            order.push_str(plain);
            order.push('\n');
        }
    }
    fs::write(to.join("order"), order).context("cannot write the order of modules")
}
