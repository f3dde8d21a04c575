//! Where things lie below the state directory.

use std::path::{Path, PathBuf};

use crate::model::{AppId, BuildId, Digest, DynoId, StackName};

/// The layout of the state directory (0700 root; default `/var/lib/manifold`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
}

impl Paths {
    /// The layout below `state`.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
        }
    }

    /// The state directory itself.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Held with `flock` by the one supervisor of this state directory.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// Eight hex digits made once: the prefix of all we make in the kernel (`manifold-1a2b3c4d`).
    pub fn instance(&self) -> PathBuf {
        self.state.join("instance")
    }

    /// The start of the machine that the supervisor saw last.
    pub fn boot(&self) -> PathBuf {
        self.state.join("boot")
    }

    /// There if we turned IP forwarding on, which was off.
    pub fn forwarding(&self) -> PathBuf {
        self.state.join("forwarding")
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.state.join("manifold.db")
    }

    /// Slug archives, each named by its sha256 with `.tgz`.
    pub fn slugs(&self) -> PathBuf {
        self.state.join("slugs")
    }

    /// One slug archive.
    pub fn slug(&self, digest: &Digest) -> PathBuf {
        self.slugs().join(format!("{digest}.tgz"))
    }

    /// Slugs unpacked once, the shared lower directories.
    pub fn trees(&self) -> PathBuf {
        self.state.join("trees")
    }

    /// The unpacked tree of one slug; its `app/` is the dyno's `/app`.
    pub fn tree(&self, digest: &Digest) -> PathBuf {
        self.trees().join(digest.to_string())
    }

    /// Writable layers of living dynos.
    pub fn dynos(&self) -> PathBuf {
        self.state.join("dynos")
    }

    /// One dyno's directory: `upper/`, `work/`, `root/`.
    pub fn dyno(&self, id: DynoId) -> PathBuf {
        self.dynos().join(id.to_string())
    }

    /// Stack images: `NAME/run` and `NAME/build`.
    pub fn stacks(&self) -> PathBuf {
        self.state.join("stacks")
    }

    /// One stack's directory.
    pub fn stack(&self, name: &StackName) -> PathBuf {
        self.stacks().join(name.as_str())
    }

    /// Working directories of builds.
    pub fn builds(&self) -> PathBuf {
        self.state.join("builds")
    }

    /// One build's directory: `source/`, `env/`, `output.log`.
    pub fn build(&self, id: BuildId) -> PathBuf {
        self.builds().join(id.to_string())
    }

    /// Outputs of builds and release phases, kept with their records.
    pub fn outputs(&self) -> PathBuf {
        self.state.join("outputs")
    }

    /// Build caches, one directory per app.
    pub fn caches(&self) -> PathBuf {
        self.state.join("cache")
    }

    /// The build cache of one app: where it is mounted while a build runs.
    pub fn cache(&self, app: AppId) -> PathBuf {
        self.caches().join(app.to_string())
    }

    /// The image in which that cache lies between builds.
    pub fn cache_image(&self, app: AppId) -> PathBuf {
        self.caches().join(format!("{app}.img"))
    }

    /// Empty images that writable layers are copied from.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// Uploaded sources waiting for their build.
    pub fn sources(&self) -> PathBuf {
        self.state.join("sources")
    }

    /// Buildpacks that were uploaded, named by their sha256.
    pub fn packs(&self) -> PathBuf {
        self.state.join("packs")
    }

    /// One uploaded buildpack.
    pub fn pack(&self, digest: &Digest) -> PathBuf {
        self.packs().join(format!("{digest}.tgz"))
    }

    /// Git repositories, one per app.
    pub fn repositories(&self) -> PathBuf {
        self.state.join("repos")
    }

    /// One app's git repository.
    pub fn repository(&self, app: AppId) -> PathBuf {
        self.repositories().join(app.to_string())
    }

    /// Certificates with their keys, the local authority, the ACME account (0700).
    pub fn certs(&self) -> PathBuf {
        self.state.join("certs")
    }

    /// Log segments, one directory per app.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Built-in buildpacks, written out at start from the binary.
    pub fn buildpacks(&self) -> PathBuf {
        self.state.join("buildpacks")
    }
}
