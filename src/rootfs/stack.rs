//! Stacks on this host.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{RootfsError, Versions, skeleton};
use crate::model::{Digest, StackImage, StackName, StackRef};
use crate::settings::Paths;

/// Debian's bundle of certificate authorities.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What a dyno's overlay stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackRoot {
    /// The lowest layer.
    pub lower: PathBuf,
    /// Host directories mounted read-only: source and target.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

/// The stacks of one state directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stacks {
    versions: Versions,
    paths: Paths,
    resolv_conf: String,
    host: StackRoot,
    /// Completed since start.
    known: Arc<Mutex<HashMap<(Digest, StackImage), StackRoot>>>,
}

impl Stacks {
    /// Looks at the state directory's stacks, and makes the `host` stack's skeleton anew. What a
    /// killed build left is removed.
    ///
    /// # Errors
    /// The skeleton cannot be made.
    pub fn open(paths: &Paths, resolv_conf: &str) -> Result<Self, RootfsError> {
        let mut stacks = Self {
            versions: Versions::new(paths),
            paths: paths.clone(),
            resolv_conf: resolv_conf.to_owned(),
            host: StackRoot {
                lower: PathBuf::new(),
                binds: vec![("/usr".into(), "/usr".into())],
            },
            known: Arc::default(),
        };
        stacks.host.lower = stacks.make_host()?;
        stacks.versions.sweep();
        if let Err(error) = stacks.versions.adopt() {
            tracing::warn!(%error, "an earlier stack is not taken over");
        }
        Ok(stacks)
    }

    /// The root of a stack's image.
    ///
    /// # Errors
    /// [`RootfsError::Unknown`], [`RootfsError::UnknownVersion`], or it cannot be completed.
    pub fn image(&self, stack: &StackRef, image: StackImage) -> Result<StackRoot, RootfsError> {
        if stack.name == StackName::host() {
            return Ok(self.host.clone());
        }
        let newest = || {
            self.versions
                .newest(&stack.name)
                .map(|newest| newest.digest)
        };
        let version = stack.version.or_else(newest);
        let version = version.ok_or_else(|| RootfsError::Unknown {
            name: stack.name.clone(),
        })?;
        let key = (version, image);
        // Held while it is completed: nobody gets half of it.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = known.get(&key).filter(|root| root.lower.is_dir()) {
            return Ok(root.clone());
        }
        let place = self.versions.place(&version);
        let place = place.ok_or_else(|| RootfsError::UnknownVersion {
            name: stack.name.clone(),
            version,
        })?;
        let lower = place.join(super::version::folder(image));
        self.complete(&lower)?;
        let root = StackRoot {
            lower,
            binds: Vec::new(),
        };
        known.insert(key, root.clone());
        Ok(root)
    }

    /// A built image lacks what depends on this host: the resolver, the authorities that a site
    /// added to those of Debian, and our user.
    fn complete(&self, root: &Path) -> Result<(), RootfsError> {
        let failed = |path: PathBuf| move |source| RootfsError::Skeleton { path, source };
        let resolv = root.join("etc/resolv.conf");
        // It may be a link into /run: never write through it.
        let _ = fs::remove_file(&resolv);
        fs::write(&resolv, &self.resolv_conf).map_err(failed(resolv))?;
        let bundle = root.join(CA_BUNDLE.trim_start_matches('/'));
        if bundle.is_file() && Path::new(CA_BUNDLE).is_file() {
            let part = bundle.with_extension("part");
            fs::copy(CA_BUNDLE, &part)
                .and_then(|_| fs::rename(&part, &bundle))
                .map_err(failed(bundle))?;
        }
        let app = root.join("app");
        if !app.is_dir() {
            fs::create_dir(&app).map_err(failed(app.clone()))?;
        }
        crate::sys::give_to_app(&app).map_err(failed(app.clone()))?;
        for (name, line) in [
            ("etc/passwd", "dyno:x:1000:1000::/app:/bin/bash\n"),
            ("etc/group", "dyno:x:1000:\n"),
        ] {
            let path = root.join(name);
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                other => other.map_err(failed(path.clone()))?,
            };
            if !text.lines().any(|line| line.starts_with("dyno:")) {
                fs::write(&path, format!("{text}{line}")).map_err(failed(path))?;
            }
        }
        Ok(())
    }

    /// Made beside and put in place at once, so that a crash leaves the old or the new one.
    fn make_host(&self) -> Result<PathBuf, RootfsError> {
        let home = self.paths.stack(&StackName::host());
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RootfsError::Skeleton { path, source }
        };
        fs::create_dir_all(&home).map_err(failed(&home))?;
        let (new, root) = (home.join("new"), home.join("root"));
        for old in [&new, &root] {
            match fs::remove_dir_all(old) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(failed(old))?,
            }
        }
        fs::create_dir(&new).map_err(failed(&new))?;
        skeleton::fill(&new, Path::new("/etc"), &self.resolv_conf)?;
        fs::rename(&new, &root).map_err(failed(&root))?;
        Ok(root)
    }
}
