//! Flags of `manifold stacks:build` and `stacks:import`, which work on the state directory itself.

use std::path::PathBuf;

use super::PlaceFlags;

/// Flags of `manifold stacks:build`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct StackBuildFlags {
    /// cedar-12, cedar-13, or cedar or bamboo for the newest of them
    pub name: String,
    /// Folder with recipes of your own: NAME/stack.toml, packages.txt, packages-build.txt
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// Debian mirror [default: this host's own]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Mirror of Debian's security updates, beside --mirror
    #[arg(long, value_name = "URL", requires = "mirror")]
    pub security: Option<String>,
    /// Which platform.
    #[command(flatten)]
    pub place: PlaceFlags,
}

/// Flags of `manifold stacks:import`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct StackImportFlags {
    /// A root file system: tar (also compressed), squashfs, erofs or ext4; or one with run/ and build/
    pub file: PathBuf,
    /// Name of the stack [default: the file's, up to its first dot]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Which platform.
    #[command(flatten)]
    pub place: PlaceFlags,
}
