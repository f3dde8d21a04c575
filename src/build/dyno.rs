//! The build dyno: what it is given, its output, and what it found out.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::failure::Bound;
use super::release_yaml::{self, Release};
use super::run::BuildOrder;
use super::source::Workdir;
use super::tree::{self, Found};
use super::{BuildError, Output, buildpack};
use crate::disk::Keep;
use crate::model::{
    AppId, BUILDPACKS_MAX, DynoName, ExitStatus, ProcessType, StackImage, StackRef,
};
use crate::settings::Paths;
use crate::supervisor::{
    Bind, Failure, LaunchedStdio, RunKind, RunOrder, RunStarted, Selector, Supervisor,
};
use crate::sys;

/// What the supervisor gets beyond a build's time to stop the dyno and to say so.
const STOP_TIME: Duration = Duration::from_mins(2);

/// Status of `driver.sh` when no buildpack applies.
const NOTHING_APPLIES: ExitStatus = ExitStatus(3);

/// Status of `driver.sh` when a buildpack that was set does not apply.
const DOES_NOT_APPLY: ExitStatus = ExitStatus(4);

/// Settings of the supervisor's own environment that builds get too: how this machine reaches
/// package registries. A password in one of these URLs is visible to every build.
const PASSED_ON: &[&str] = &[
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// What a buildpack said about the app it built.
#[derive(Debug)]
pub(super) struct Finding {
    /// What detect printed.
    pub(super) name: String,
    /// What release printed.
    pub(super) release: Release,
}

/// What the driver is to do in a dyno of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Fetch the submodules into the source.
    Submodules,
    /// Run the buildpacks on the source.
    Build,
}

/// Does the task until `deadline`; what it says goes to `output` as it comes. Also returns the cache that
/// it used: dropped, it is written out, for which it needs a processor and the disk.
pub(super) async fn run(
    supervisor: &Supervisor,
    paths: &Paths,
    order: &BuildOrder,
    workdir: &Workdir,
    output: &Output,
    (task, deadline): (Task, Instant),
) -> Result<(Finding, Option<Cache>), BuildError> {
    // What fetches submodules has no use for it: the app's own file says from where.
    let cache = match task {
        Task::Submodules => None,
        Task::Build => Some(Cache::open(supervisor, paths, order.app.0).await?),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(BuildError::Timeout(order.time_max));
    }
    let run = run_order(paths, order, workdir, (task, left))?;
    let started = supervisor.run(run, "build").await;
    let started = started.map_err(BuildError::Refused)?;
    let mut running = Running {
        supervisor,
        dyno: Some((order.app.0, started.dyno.name.clone())),
    };
    let is_starved = Arc::clone(&started.is_starved);
    let ended = tokio::time::timeout(left + STOP_TIME, wait(started, output)).await;
    let Ok(ended) = ended else {
        return Err(BuildError::Timeout(order.time_max));
    };
    running.dyno = None;
    let status = match ended {
        Some(Ok(status)) => status,
        Some(Err(failure)) => return Err(BuildError::Launch(failure)),
        None => return Err(BuildError::Stopped),
    };
    if status != ExitStatus(0) && Instant::now() >= deadline {
        return Err(BuildError::Timeout(order.time_max));
    }
    let found = verdict(workdir, task, status).map_err(|error| {
        // What a tool says of either differs from tool to tool, if it says anything.
        let memory = (Bound::Memory, order.size.memory_bytes);
        let used_up = (is_starved.load(Ordering::Relaxed).then_some(memory))
            .or_else(|| Some((Bound::Disk, workdir.filled()?)))
            .or_else(|| Some((Bound::Cache, cache.as_ref()?.filled()?)));
        match used_up {
            None => error,
            Some((what, max_bytes)) => BuildError::UsedUp {
                what,
                max_bytes,
                source: Box::new(error),
            },
        }
    });
    Ok((found?, cache))
}

/// The app's build cache on its bounded volume, as long as a build uses it.
#[derive(Debug)]
pub(super) struct Cache {
    supervisor: Supervisor,
    path: PathBuf,
}

impl Cache {
    async fn open(supervisor: &Supervisor, paths: &Paths, app: AppId) -> Result<Self, BuildError> {
        let path = paths.cache(app);
        std::fs::create_dir_all(&path).map_err(BuildError::file("make", &path))?;
        let keep = Keep::In(paths.cache_image(app));
        let bound = supervisor.bound(path.clone(), keep).await;
        bound.map_err(|failure| {
            BuildError::file("bound", &path)(io::Error::other(failure.reason))
        })?;
        Ok(Self {
            supervisor: supervisor.clone(),
            path,
        })
    }

    /// Its bound in bytes, if that is reached.
    fn filled(&self) -> Option<u64> {
        self.supervisor.filled(&self.path)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let (supervisor, path) = (self.supervisor.clone(), std::mem::take(&mut self.path));
        sys::in_background(move || supervisor.unbound(&path));
    }
}

/// Stops the dyno if nobody waits for it any more.
struct Running<'a> {
    supervisor: &'a Supervisor,
    dyno: Option<(AppId, DynoName)>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some((app, name)) = self.dyno.take() else {
            return;
        };
        let supervisor = self.supervisor.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let stopped = supervisor.stop(app, Selector::Dyno(name)).await;
                if let Err(error) = stopped {
                    tracing::debug!(%error, "a build's dyno was gone already");
                }
            });
        }
    }
}

fn run_order(
    paths: &Paths,
    order: &BuildOrder,
    workdir: &Workdir,
    (task, time): (Task, Duration),
) -> Result<RunOrder, BuildError> {
    let packs = buildpack::install(&paths.buildpacks())
        .map_err(BuildError::file("write", &paths.buildpacks()))?;
    let inside = |what: &str| PathBuf::from(format!("/tmp/{what}_{PATHS}"));
    let bind = |source: PathBuf, target: PathBuf, read_only| Bind {
        source,
        target,
        read_only,
    };
    let (source, result) = (inside("build"), inside("result"));
    let (env, uploads) = (inside("env"), inside("packs"));
    let command = format!(
        "exec /buildpacks/driver.sh {} /tmp/cache {} {} {}{}",
        source.display(),
        env.display(),
        result.display(),
        uploads.display(),
        match task {
            Task::Submodules => " submodules",
            Task::Build => "",
        }
    );
    let mut binds = vec![
        bind(packs, "/buildpacks".into(), true),
        bind(workdir.env(), env, true),
        bind(workdir.packs(), uploads, true),
        bind(workdir.result(), result, false),
        bind(workdir.source(), source, false),
    ];
    if task == Task::Build {
        // The driver sees to it that what a failed build does to it is forgotten.
        let cache = paths.cache(order.app.0);
        std::fs::create_dir_all(&cache)
            .and_then(|()| sys::give_to_app(&cache))
            .map_err(BuildError::file("make", &cache))?;
        binds.push(bind(cache, "/tmp/cache".into(), false));
    }
    Ok(RunOrder {
        app: order.app.0,
        kind: RunKind::Build {
            stack: StackRef::newest(order.stack.clone()),
            binds,
            image: StackImage::Build,
        },
        process: ProcessType::build(),
        command,
        env: environment(order, |name| std::env::var(name).ok()),
        size: order.size.clone(),
        time_to_live: Some(time),
    })
}

fn environment(
    order: &BuildOrder,
    host: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let passed_on = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), host(name)?)));
    let mut env: BTreeMap<String, String> = passed_on.collect();
    env.insert("HOME".to_owned(), "/app".to_owned());
    env.insert("STACK".to_owned(), order.stack.as_str().to_owned());
    env.insert("REQUEST_ID".to_owned(), order.id.to_string());
    if let Some(version) = &order.version {
        env.insert("SOURCE_VERSION".to_owned(), printable(version, 1000));
    }
    env
}

/// Ends the paths of every build, each in a file system of its own. Tools write the path they work
/// at into what they make, and the same tree is to give the same slug.
const PATHS: &str = "5b1d3c2f";

type Ended = Option<Result<ExitStatus, Arc<Failure>>>;

/// Copies the output to its end and waits for the status; `None` when nobody will tell it.
async fn wait(started: RunStarted, output: &Output) -> Ended {
    let copied = async {
        let Some(LaunchedStdio::Logged(pipe)) = started.output else {
            tracing::warn!("a build dyno came without its output");
            return;
        };
        if let Err(error) = copy(pipe, output).await {
            tracing::warn!(%error, "the output of a build dyno cannot be read");
        }
    };
    let ((), exit) = tokio::join!(copied, started.exit);
    exit.ok()
}

async fn copy(pipe: OwnedFd, output: &Output) -> io::Result<()> {
    let pipe = sys::watch(pipe)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut ready = pipe.readable().await?;
        let read = ready.try_io(|pipe| Ok(nix::unistd::read(pipe.get_ref(), &mut buffer)?));
        match read {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(length)) => output.write(&buffer[..length]),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

/// What the driver left behind. The app's own code ran as the same user, so nothing here is to be
/// trusted with more than this app's name, types and messages.
fn verdict(workdir: &Workdir, task: Task, status: ExitStatus) -> Result<Finding, BuildError> {
    let dir = workdir.result();
    let read = |name: &str, max| -> Result<Vec<u8>, BuildError> {
        match tree::read_file(&dir, name, max).map_err(BuildError::file("read", &dir))? {
            Found::Bytes(bytes) => Ok(bytes),
            Found::Missing | Found::Refused(_) => Ok(Vec::new()),
        }
    };
    let stage = read("stage", 100)?;
    let chosen = String::from_utf8_lossy(&read("name", 4096)?).into_owned();
    let name = printable(chosen.lines().next().unwrap_or_default(), 100);
    if status == ExitStatus(0) {
        let mut release = Release::default();
        for at in 0..BUILDPACKS_MAX {
            let bytes = read(&format!("release.{at}"), release_yaml::BYTES_MAX)?;
            // Source: Dev Center, "Using Multiple Buildpacks for an App".
            release.extend(Release::parse(&bytes));
        }
        return Ok(Finding { name, release });
    }
    let pack = String::from_utf8_lossy(&read("pack", 4096)?).into_owned();
    let pack = printable(&pack, 200);
    match stage.trim_ascii() {
        b"detect" if status == NOTHING_APPLIES => Err(BuildError::NotDetected),
        b"fetch" => Err(BuildError::Fetch(pack)),
        b"detect" if status == DOES_NOT_APPLY => Err(BuildError::NotCompatible(pack)),
        b"submodules" if task == Task::Submodules => {
            let path = String::from_utf8_lossy(&read("submodule", 4096)?).into_owned();
            Err(BuildError::Submodule(printable(&path, 200)))
        }
        b"" | b"submodules" | b"detect" => Err(BuildError::Interrupted { status }),
        _ => Err(BuildError::Compile {
            buildpack: name,
            status,
        }),
    }
}

/// Without control characters, at most `max` characters.
fn printable(text: &str, max: usize) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(max).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::str::FromStr as _;

    use nix::fcntl::OFlag;

    use super::*;
    use crate::model::{AppId, BuildId, ConfigVars, DynoSize, StackName};

    fn order() -> BuildOrder {
        BuildOrder {
            id: "11111111-2222-4333-8444-555555555555"
                .parse()
                .expect("an id"),
            app: (AppId::new(), "shop".parse().expect("a name")),
            stack: StackName::host(),
            archive: "/nowhere".into(),
            checksum: None,
            config: ConfigVars::default(),
            buildpacks: Vec::new(),
            submodules: Vec::new(),
            version: Some("v\0e\nrsion".to_owned()),
            size: DynoSize::default(),
            time_max: Duration::from_mins(15),
            before: None,
            lately: crate::slug::Lately::default(),
        }
    }

    #[test]
    fn the_build_dyno_sees_its_five_directories_and_no_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path());
        let workdir = Workdir::make(&paths, BuildId::new()).expect("made");
        let time = Duration::from_mins(15);
        let run = |task| run_order(&paths, &order(), &workdir, (task, time)).expect("an order");
        let fetch = run(Task::Submodules);
        let run = run(Task::Build);
        assert_eq!(fetch.command, format!("{} submodules", run.command));
        let RunKind::Build { binds, .. } = &run.kind else {
            panic!("not a build: {run:?}");
        };
        let targets: Vec<_> = binds
            .iter()
            .map(|b| (b.target.to_str().expect("text"), b.read_only))
            .collect();
        assert_eq!(
            targets,
            [
                ("/buildpacks", true),
                ("/tmp/env_5b1d3c2f", true),
                ("/tmp/packs_5b1d3c2f", true),
                ("/tmp/result_5b1d3c2f", false),
                ("/tmp/build_5b1d3c2f", false),
                ("/tmp/cache", false),
            ]
        );
        assert!(binds.iter().all(|b| b.source.is_dir()));
        let RunKind::Build { binds: fewer, .. } = &fetch.kind else {
            panic!("not a build: {fetch:?}");
        };
        assert!(fewer.iter().all(|b| b.target != Path::new("/tmp/cache")));
        assert_eq!(fewer.len() + 1, binds.len());
        assert_eq!(run.time_to_live, Some(time));
    }

    #[test]
    fn the_environment_is_the_documented_one_and_the_way_to_registries() {
        let host = |name: &str| (name == "HTTPS_PROXY").then(|| "proxy".to_owned());
        let env: Vec<_> = environment(&order(), host).into_iter().collect();
        let expected = [
            ("HOME", "/app"),
            ("HTTPS_PROXY", "proxy"),
            ("REQUEST_ID", "11111111-2222-4333-8444-555555555555"),
            ("SOURCE_VERSION", "version"),
            ("STACK", "host"),
        ];
        assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[tokio::test]
    async fn the_output_is_copied_to_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let output = Output::create(&dir.path().join("log")).expect("made");
        let (from, to) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).expect("a pipe");
        let copying = tokio::spawn({
            let output = output.clone();
            async move { copy(from, &output).await }
        });
        for _ in 0..3 {
            nix::unistd::write(&to, b"line\n").expect("written");
            tokio::task::yield_now().await;
        }
        drop(to);
        copying.await.expect("ended").expect("copied");
        let text = fs::read(dir.path().join("log")).expect("read");
        assert_eq!(text, b"line\nline\nline\n");
    }

    #[test]
    fn verdicts_follow_stage_and_status_and_hostile_files_count_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let workdir = Workdir::make(&Paths::new(dir.path()), BuildId::new()).expect("made");
        let put = |name: &str, text: &[u8]| {
            fs::write(workdir.result().join(name), text).expect("written");
        };
        let verdict = |status| verdict(&workdir, Task::Build, ExitStatus(status));
        let failed = |status| verdict(status).expect_err("failed");
        assert!(matches!(failed(137), BuildError::Interrupted { .. }));
        put("stage", b"submodules\n");
        assert!(matches!(failed(1), BuildError::Interrupted { .. }));
        put("submodule", b"vendor/lib\n");
        let fetched = super::verdict(&workdir, Task::Submodules, ExitStatus(1));
        let error = fetched.expect_err("failed").to_string();
        assert_eq!(error, "submodule vendor/lib cannot be fetched");
        put("stage", b"detect\n");
        assert!(matches!(failed(3), BuildError::NotDetected));
        assert!(matches!(failed(143), BuildError::Interrupted { .. }));
        put("stage", b"compile\n");
        put("name", b"Py\x1b[31mthon\nsecond line\n");
        assert_eq!(
            failed(1).to_string(),
            "failed to compile Py[31mthon app: status 1"
        );
        put("release.0", b"default_process_types:\n  web: x\n");
        put("release.1", b"default_process_types:\n  worker: y\n");
        put("release.2", b"---\n");
        let good = verdict(0).expect("built");
        let types: Vec<_> = good.release.default_process_types.keys().collect();
        assert_eq!(types, [&ProcessType::from_str("worker").expect("a type")]);
        fs::remove_file(workdir.result().join("release.1")).expect("removed");
        let good = verdict(0).expect("built");
        assert_eq!(good.release.default_process_types.len(), 1);
        fs::remove_file(workdir.result().join("release.0")).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", workdir.result().join("release.0"))
            .expect("linked");
        put("name", &[b'x'; 5000]);
        let good = verdict(0).expect("built");
        assert_eq!((good.name.as_str(), good.release), ("", Release::default()));
    }
}
