use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;

use super::*;
use crate::model::{AppId, Digest, DynoSize, ReleaseId, ReleaseStatus, SlugId, StackName};

fn open(dir: &Path) -> Store {
    Store::open(&dir.join("manifold.db")).expect("a database")
}

fn new_app(name: &str) -> NewApp {
    NewApp {
        name: name.parse().expect("a name"),
        owner: "eve@test".to_owned(),
        stack: StackName::host(),
    }
}

fn config(app: AppId, key: &str, value: Option<&str>) -> NewRelease {
    NewRelease {
        app,
        user: "eve@test".to_owned(),
        description: format!("Set {key} config vars"),
        change: Change::Config(BTreeMap::from([(key.to_owned(), value.map(str::to_owned))])),
    }
}

async fn add_slug(store: &Store, app: AppId, types: &[&str]) -> SlugId {
    let slug = SlugRecord {
        id: SlugId::new(),
        app,
        digest: Some(Digest([types.len().try_into().expect("few"); 32])),
        expected: None,
        size_bytes: 10,
        stack: StackName::host(),
        commit: None,
        buildpack: None,
        processes: types
            .iter()
            .map(|name| (name.parse().expect("a type"), format!("./{name}")))
            .collect(),
        created: Timestamp::now(),
        updated: Timestamp::now(),
    };
    let id = slug.id;
    store.add_slug(slug).await.expect("a slug");
    id
}

fn change(app: AppId, change: Change) -> NewRelease {
    NewRelease {
        app,
        user: "eve@test".to_owned(),
        description: "Deploy".to_owned(),
        change,
    }
}

async fn quantities(store: &Store, app: AppId) -> Vec<(String, u32)> {
    let formation = store.formation(app).await.expect("a formation");
    formation
        .into_iter()
        .map(|record| (record.process.to_string(), record.entry.quantity))
        .collect()
}

#[tokio::test]
async fn a_new_app_has_two_releases_so_that_the_first_deploy_is_v3() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let app = store.create_app(new_app("shop")).await.expect("an app");
    let slug = add_slug(&store, app.id, &["web", "worker"]).await;
    let created = store
        .create_release(change(app.id, Change::Slug(slug, None)))
        .await
        .expect("a release");
    assert_eq!(created.release.version.0, 3);
    assert_eq!(created.scaled.len(), 1, "web only");
    let all = store.releases(app.id).await.expect("releases");
    let texts: Vec<_> = all.iter().map(|r| r.description.as_str()).collect();
    assert_eq!(texts, ["Initial release", "Enable Logplex", "Deploy"]);
}

#[tokio::test]
async fn a_taken_name_is_refused_also_on_rename() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.create_app(new_app("shop")).await.expect("an app");
    let other = store.create_app(new_app("blog")).await.expect("an app");
    let again = store.create_app(new_app("shop")).await;
    assert!(matches!(again, Err(StoreError::NameTaken(_))), "{again:?}");
    let rename = AppChange {
        name: Some("shop".parse().expect("a name")),
        ..AppChange::default()
    };
    let renamed = store.update_app(other.id, rename).await;
    assert!(matches!(renamed, Err(StoreError::NameTaken(_))));
}

#[tokio::test]
async fn concurrent_writers_lose_no_update_and_share_no_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let app = store.create_app(new_app("shop")).await.expect("an app");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = store.clone();
        tasks.spawn(async move {
            let release = config(app.id, &format!("K{n}"), Some("v"));
            store.create_release(release).await.expect("a release")
        });
    }
    let made = tasks.join_all().await;
    let mut versions: Vec<_> = made.iter().map(|c| c.release.version.0).collect();
    versions.sort_unstable();
    assert_eq!(versions, (3..53).collect::<Vec<_>>());
    let current = store.current_release(app.id).await.expect("a release");
    assert_eq!(current.config.iter().count(), 50);
}

#[tokio::test]
async fn a_refused_change_burns_no_version_and_a_failed_phase_burns_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let app = store.create_app(new_app("shop")).await.expect("an app");
    let refused = store.create_release(config(app.id, "A-B", Some("x"))).await;
    assert!(matches!(refused, Err(StoreError::Config(_))));
    let slug = add_slug(&store, app.id, &["web", "release"]).await;
    let v3 = store
        .create_release(change(app.id, Change::Slug(slug, None)))
        .await
        .expect("a release");
    assert_eq!(
        (v3.release.version.0, v3.release.status),
        (3, ReleaseStatus::Pending)
    );
    let meanwhile = store.create_release(config(app.id, "A", Some("x"))).await;
    assert!(matches!(meanwhile, Err(StoreError::Pending(v)) if v.0 == 3));
    store
        .finish_release(v3.release.id, false)
        .await
        .expect("failed");
    assert_eq!(quantities(&store, app.id).await, []);
    let v4 = store
        .create_release(config(app.id, "A", Some("x")))
        .await
        .expect("a release");
    assert_eq!(v4.release.version.0, 4);
    assert_eq!(
        v4.release.slug, None,
        "the failed release was never current"
    );
}

#[tokio::test]
async fn rollback_takes_code_and_config_and_only_from_what_ran() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let app = store.create_app(new_app("shop")).await.expect("an app");
    let slug = add_slug(&store, app.id, &["web"]).await;
    let deploy = change(app.id, Change::Slug(slug, None));
    let v3 = store.create_release(deploy).await.expect("v3").release;
    store
        .create_release(config(app.id, "A", Some("1")))
        .await
        .expect("v4");
    let back = store
        .create_release(change(app.id, Change::Rollback(v3.id)))
        .await
        .expect("v5")
        .release;
    assert_eq!((back.version.0, back.slug), (5, Some(slug)));
    assert!(back.config.is_empty());
    let first = store.releases(app.id).await.expect("releases")[0].id;
    let refused = store
        .create_release(change(app.id, Change::Rollback(first)))
        .await;
    assert!(matches!(refused, Err(StoreError::NotEligible { .. })));
}

#[tokio::test]
async fn scaling_is_all_or_nothing_and_outlives_a_type_that_vanishes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let app = store.create_app(new_app("shop")).await.expect("an app");
    let both = add_slug(&store, app.id, &["web", "worker"]).await;
    let web = add_slug(&store, app.id, &["web"]).await;
    let deploy = |slug| store.create_release(change(app.id, Change::Slug(slug, None)));
    deploy(both).await.expect("v3");
    let process = |name: &str| name.parse::<ProcessType>().expect("a type");
    let size = DynoSize::find("2x").expect("a size");
    store
        .scale(
            app.id,
            vec![
                (process("worker"), Some(Scale::To(3)), Some(size)),
                (process("web"), Some(Scale::By(1)), None),
            ],
        )
        .await
        .expect("scaled");
    let now = quantities(&store, app.id).await;
    assert_eq!(now, [("web".to_owned(), 2), ("worker".to_owned(), 3)]);
    for bad in [
        (process("worker"), Some(Scale::By(-4)), None),
        (process("nope"), Some(Scale::To(1)), None),
    ] {
        let good = (process("web"), Some(Scale::To(9)), None);
        store
            .scale(app.id, vec![good, bad])
            .await
            .expect_err("refused");
        assert_eq!(quantities(&store, app.id).await, now);
    }
    deploy(web).await.expect("v4");
    assert_eq!(quantities(&store, app.id).await, [("web".to_owned(), 2)]);
    deploy(both).await.expect("v5");
    let back = quantities(&store, app.id).await;
    assert_eq!(back, [("web".to_owned(), 2), ("worker".to_owned(), 0)]);
}

#[tokio::test]
async fn domains_belong_to_one_app_and_wildcards_guard_what_is_below() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let one = store.create_app(new_app("one")).await.expect("an app").id;
    let two = store.create_app(new_app("two")).await.expect("an app").id;
    let host = |name: &str| name.parse::<Hostname>().expect("a name");
    store
        .add_domain(one, host("*.example.com"))
        .await
        .expect("added");
    store
        .add_domain(one, host("www.example.com"))
        .await
        .expect("added");
    for taken in ["www.example.com", "api.example.com", "example.com"] {
        let refused = store.add_domain(two, host(taken)).await;
        assert!(
            matches!(refused, Err(StoreError::DomainTaken(_))),
            "{taken}"
        );
    }
    store
        .add_domain(two, host("a.b.example.com"))
        .await
        .expect("a deeper name");
    store.delete_app(one).await.expect("deleted");
    store
        .add_domain(two, host("www.example.com"))
        .await
        .expect("freed");
}

#[tokio::test]
async fn deleting_an_app_keeps_slugs_another_app_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let one = store.create_app(new_app("one")).await.expect("an app").id;
    let two = store.create_app(new_app("two")).await.expect("an app").id;
    let shared = add_slug(&store, one, &["web"]).await;
    let own = add_slug(&store, one, &["web", "worker"]).await;
    for (app, slug) in [(one, own), (one, shared), (two, shared)] {
        store
            .create_release(change(app, Change::Slug(slug, None)))
            .await
            .expect("a release");
    }
    let removed = store.delete_app(one).await.expect("deleted");
    assert_eq!(removed.slugs, [Digest([2; 32])]);
    assert_eq!(removed.releases.len(), 4);
    let removed = store.delete_app(two).await.expect("deleted");
    assert_eq!(removed.slugs, [Digest([1; 32])]);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    open(dir.path()).close().await;
    let path = dir.path().join("manifold.db");
    let raw = rusqlite::Connection::open(&path).expect("a database");
    raw.pragma_update(None, "user_version", 99).expect("set");
    drop(raw);
    let error = Store::open(&path).expect_err("refused");
    assert!(matches!(error, StoreError::Newer { found: 99, .. }));
}

/// The child of the test below: creates apps and names each once it was acknowledged.
#[tokio::test]
#[ignore = "run by what_was_acknowledged_survives_sigkill only"]
async fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os("MANIFOLD_TEST_STORE") else {
        return;
    };
    let store = open(Path::new(&dir));
    for n in 0..100_000 {
        let name = format!("app-{n}");
        store.create_app(new_app(&name)).await.expect("an app");
        println!("\nack {name}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "store::tests::child_that_writes_until_killed"])
        .args(["--ignored", "--nocapture"])
        .env("MANIFOLD_TEST_STORE", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut acknowledged = Vec::new();
    for line in output.lines() {
        if let Some(name) = line.expect("a line").strip_prefix("ack ") {
            acknowledged.push(name.to_owned());
            if acknowledged.len() == 20 {
                child.kill().expect("killed");
            }
        }
    }
    child.wait().expect("reaped");
    assert!(acknowledged.len() >= 20, "{}", acknowledged.len());
    let store = open(dir.path());
    for name in acknowledged {
        let app = store.app(&name).await.expect("an acknowledged app");
        let releases = store.releases(app.id).await.expect("releases");
        assert_eq!(releases.len(), 2, "{name}: a transaction is whole");
    }
}

#[tokio::test]
async fn network_rules_follow_their_target_and_go_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let front = store.create_app(new_app("front")).await.expect("an app");
    let back = store.create_app(new_app("back")).await.expect("an app");
    let other = store.create_app(new_app("other")).await.expect("an app");
    let add = async |app, target: &str| {
        let target = target.parse().expect("a target");
        let rule = store.add_network_rule(app, target, "eve@test".to_owned());
        rule.await
    };
    let first = add(front.id, "back").await.expect("a rule");
    assert_eq!(first.id, add(front.id, "back").await.expect("it").id);
    add(front.id, "10.0.0.5:5432").await.expect("a rule");
    add(back.id, "other").await.expect("a rule");
    let own = add(front.id, "front").await.expect_err("refused");
    assert!(matches!(own, StoreError::TargetIsSelf), "{own}");
    let nobody = add(front.id, "nobody").await.expect_err("refused");
    assert_eq!(nobody.to_string(), "Couldn't find the app nobody.");
    let rename = AppChange {
        name: Some("rear".parse().expect("a name")),
        ..AppChange::default()
    };
    store.update_app(back.id, rename).await.expect("renamed");
    let shown = async |app| {
        let rules = store.network_rules(app).await.expect("rules");
        let texts = rules.iter().map(|rule| match &rule.target {
            NetworkRuleTarget::App { at, .. } => format!("{} {at}", rule.target),
            NetworkRuleTarget::Host(_) => rule.target.to_string(),
        });
        texts.collect::<Vec<_>>()
    };
    assert_eq!(shown(front.id).await, ["rear 198.18.0.1", "10.0.0.5:5432"]);
    assert_eq!(shown(back.id).await, ["other 198.18.0.2"]);
    let removed = store.remove_network_rule(front.id, "10.0.0.5:5432").await;
    removed.expect("removed");
    let again = store.remove_network_rule(front.id, "10.0.0.5:5432").await;
    assert!(matches!(again, Err(StoreError::UnknownNetworkRule)));
    store.delete_app(back.id).await.expect("deleted");
    assert!(shown(front.id).await.is_empty());
    // The freed address goes to the next app that needs one, which no old rule names.
    add(front.id, "other").await.expect("a rule");
    add(other.id, "front").await.expect("a rule");
    assert_eq!(shown(front.id).await, ["other 198.18.0.2"]);
    assert_eq!(shown(other.id).await, ["front 198.18.0.1"]);
}

#[tokio::test]
async fn what_is_too_old_is_given_up_and_what_runs_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let app = store.create_app(new_app("shop")).await.expect("an app").id;
    let stack = |n: u8| Digest([0xa0 + n; 32]);
    let mut releases = Vec::new();
    for (n, types) in [
        (1, &["web"][..]),
        (2, &["web", "a"]),
        (3, &["web", "a", "b"]),
    ] {
        let slug = add_slug(&store, app, types).await;
        let order = change(app, Change::Slug(slug, Some(stack(n))));
        let made = store.create_release(order).await.expect("a release");
        releases.push(made.release.id);
    }
    // Without a release yet.
    let fresh = add_slug(&store, app, &["web", "a", "b", "c"]).await;
    let collect = async |running: &[ReleaseId]| {
        let keep = Keep {
            releases: 2,
            running: running.iter().copied().collect(),
            stacks: [stack(9)].into(),
        };
        store.collect(keep).await.expect("collected")
    };
    let kept = collect(&releases[..1]).await;
    assert_eq!((kept.slugs.len(), kept.stacks.len()), (4, 4), "v3 runs");
    let kept = collect(&[]).await;
    assert!(!kept.slugs.contains(&Digest([1; 32])) && kept.slugs.len() == 3);
    assert_eq!(kept.stacks, [stack(2), stack(3), stack(9)].into());
    let back = |release| store.create_release(change(app, Change::Rollback(release)));
    let refused = back(releases[0]).await.expect_err("refused");
    assert!(refused.to_string().contains("too old"), "{refused}");
    let made = back(releases[1]).await.expect("rolled back");
    assert_eq!(made.release.stack_version, Some(stack(2)));
    let deploy = change(app, Change::Slug(fresh, None));
    store.create_release(deploy).await.expect("still there");
}
