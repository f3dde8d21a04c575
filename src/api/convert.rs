//! Records and views in the public schema's shapes.

use jiff::{Timestamp, Unit};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::types;
use crate::certs::Certificate;
use crate::model::{APP_ADDRESS_PORT, Buildpack, DynoSize, Protocol, ReleaseStatus, StackName};
use crate::settings::Settings;
use crate::store::{
    AppRecord, AppState, AutoRecord, BuildRecord, DomainRecord, FormationRecord, NetworkRule,
    NetworkRuleTarget, ReleaseRecord, SlugRecord,
};
use crate::supervisor::DynoView;

/// A stable id for things that are known by name only: sizes, stacks, users, formation entries.
pub(super) fn derived_id(kind: &str, name: &str) -> Uuid {
    let digest = Sha256::digest(format!("manifold\0{kind}\0{name}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn named(kind: &str, name: &str) -> types::Named {
    types::Named {
        id: derived_id(kind, name),
        name: name.to_owned(),
    }
}

/// The API's times have no fractions (`2012-01-01T12:00:00Z`).
pub(super) fn second(time: Timestamp) -> Timestamp {
    let options = jiff::TimestampRound::new()
        .smallest(Unit::Second)
        .mode(jiff::RoundMode::Trunc);
    time.round(options).unwrap_or(time)
}

pub(super) fn user(email: &str) -> types::User {
    types::User {
        id: derived_id("user", email),
        email: email.to_owned(),
    }
}

pub(super) fn app_name(app: &AppRecord) -> types::Named {
    types::Named {
        id: app.id.0,
        name: app.name.to_string(),
    }
}

pub(super) fn app(settings: &Settings, state: &AppState) -> types::App {
    let record = &state.app;
    let slug = state.slug.as_ref();
    let stack = slug.map_or(&record.stack, |slug| &slug.stack);
    types::App {
        id: record.id.0,
        name: record.name.to_string(),
        web_url: settings.web_url(&record.name),
        git_url: String::new(),
        stack: named("stack", stack.as_str()),
        build_stack: named("stack", record.stack.as_str()),
        owner: user(&record.owner),
        region: named("region", "local"),
        team: None,
        organization: None,
        space: None,
        acm: state.has_auto_certificates,
        internal_routing: false,
        archived_at: None,
        buildpack_provided_description: slug.and_then(|slug| slug.buildpack.clone()),
        created_at: second(record.created),
        released_at: slug.map(|_| second(state.release.updated)),
        updated_at: second(record.updated),
        maintenance: record.maintenance,
        repo_size: 0,
        slug_size: slug.map_or(0, |slug| slug.size_bytes),
        generation: named("generation", "cedar"),
        create_status: "complete".to_owned(),
        process_tier: "production".to_owned(),
    }
}

pub(super) fn dyno(app: &AppRecord, view: &DynoView, attach_url: Option<String>) -> types::Dyno {
    types::Dyno {
        id: view.id.0,
        name: view.name.to_string(),
        process: view.name.process.to_string(),
        state: view.state.to_string(),
        size: view.size.name.clone(),
        command: view.command.clone(),
        attach_url,
        release: types::DynoRelease {
            id: view.release.0.0,
            version: view.release.1.0,
        },
        app: app_name(app),
        created_at: second(view.created),
        updated_at: second(view.since),
    }
}

pub(super) fn formation(state: &AppState, record: &FormationRecord) -> types::Formation {
    let process = &record.process;
    let commands = state.slug.as_ref().map(|slug| &slug.processes);
    let command = commands.and_then(|commands| commands.get(process));
    types::Formation {
        id: derived_id("formation", &format!("{}.{process}", state.app.id)),
        process: process.to_string(),
        quantity: record.entry.quantity,
        size: record.entry.size.name.clone(),
        dyno_size: named("size", &record.entry.size.name),
        command: command.cloned().unwrap_or_default(),
        app: app_name(&state.app),
        created_at: second(record.created),
        updated_at: second(record.updated),
    }
}

pub(super) fn release(app: &AppRecord, record: &ReleaseRecord, is_current: bool) -> types::Release {
    let succeeded = record.status == ReleaseStatus::Succeeded;
    types::Release {
        id: record.id.0,
        version: record.version.0,
        description: record.description.clone(),
        user: user(&record.user),
        status: record.status.to_string(),
        current: is_current,
        app: app_name(app),
        slug: record.slug.map(|id| types::Reference { id: id.0 }),
        output_stream_url: None,
        eligible_for_rollback: succeeded && record.slug.is_some() && !record.is_collected,
        addon_plan_names: Vec::new(),
        created_at: second(record.created),
        updated_at: second(record.updated),
        stack: None,
        stack_version: record.stack_version.map(|version| version.to_string()),
    }
}

pub(super) fn build(record: &BuildRecord) -> types::Build {
    types::Build {
        id: record.id.0,
        app: types::Reference { id: record.app.0 },
        status: record.status.as_str().to_owned(),
        output_stream_url: format!("/builds/{}/output", record.id),
        source_blob: types::SourceBlob {
            url: record.source_url.clone(),
            checksum: record.checksum.clone(),
            version: record.version.clone(),
            version_description: None,
        },
        buildpacks: (!record.buildpacks.is_empty())
            .then(|| record.buildpacks.iter().map(build_buildpack).collect()),
        slug: record.slug.map(|id| types::Reference { id: id.0 }),
        release: record.release.map(|id| types::Reference { id: id.0 }),
        stack: record.stack.to_string(),
        user: user(&record.user),
        created_at: second(record.created),
        updated_at: second(record.updated),
    }
}

fn build_buildpack(buildpack: &Buildpack) -> types::BuildBuildpack {
    let url = Some(buildpack.to_string());
    types::BuildBuildpack {
        name: url.clone(),
        url,
    }
}

/// `method`: `get` for a slug with bytes, `put` for one that waits for them.
pub(super) fn slug(record: &SlugRecord) -> types::Slug {
    let method = if record.digest.is_some() {
        "get"
    } else {
        "put"
    };
    types::Slug {
        id: record.id.0,
        blob: types::Blob {
            method: method.to_owned(),
            url: format!("/slugs/{}/blob", record.id),
        },
        process_types: record
            .processes
            .iter()
            .map(|(process, command)| (process.to_string(), command.clone()))
            .collect(),
        commit: record.commit.clone(),
        commit_description: None,
        checksum: record
            .digest
            .or(record.expected)
            .map(|digest| format!("SHA256:{digest}")),
        size: record.digest.map(|_| record.size_bytes),
        stack: named("stack", record.stack.as_str()),
        buildpack_provided_description: record.buildpack.clone(),
        created_at: second(record.created),
        updated_at: second(record.updated),
    }
}

/// The name every app has without asking, as a domain.
pub(super) fn default_domain(settings: &Settings, app: &AppRecord) -> types::Domain {
    let hostname = settings.default_hostname(&app.name).to_string();
    types::Domain {
        id: derived_id("domain", &app.id.to_string()),
        cname: None,
        kind: "heroku".to_owned(),
        ..domain_of(app, hostname, app.created)
    }
}

pub(super) fn domain(settings: &Settings, app: &AppRecord, record: &DomainRecord) -> types::Domain {
    types::Domain {
        id: record.id,
        cname: Some(settings.default_hostname(&app.name).to_string()),
        kind: "custom".to_owned(),
        ..domain_of(app, record.hostname.to_string(), record.created)
    }
}

fn domain_of(app: &AppRecord, hostname: String, created: Timestamp) -> types::Domain {
    types::Domain {
        id: Uuid::nil(),
        hostname,
        kind: String::new(),
        cname: None,
        // Nothing to wait for: the router knows the name at once.
        status: "succeeded".to_owned(),
        acm_status: None,
        acm_status_reason: None,
        sni_endpoint: None,
        app: app_name(app),
        created_at: second(created),
        updated_at: second(created),
    }
}

/// How the automatic certificate of a domain fares, in the schema's words.
pub(super) fn set_acm(domain: &mut types::Domain, auto: Option<&AutoRecord>) {
    let Some(auto) = auto else {
        return;
    };
    let status = match (&auto.reason, auto.next) {
        (Some(_), _) => "failing",
        (None, Some(_)) => "ok",
        (None, None) => "pending",
    };
    domain.acm_status = Some(status.to_owned());
    domain.acm_status_reason.clone_from(&auto.reason);
}

pub(super) fn sni_endpoint(
    app: &AppRecord,
    one: &Certificate,
    domains: &[DomainRecord],
) -> types::SniEndpoint {
    let covered = domains.iter().filter(|domain| {
        let name = domain.hostname.as_str();
        one.facts.covers(name) || one.facts.names.iter().any(|other| other == name)
    });
    types::SniEndpoint {
        id: one.record.id,
        name: one.record.name.clone(),
        display_name: one.record.name.clone(),
        certificate_chain: one.chain.clone(),
        cname: None,
        ssl_cert: types::SslCert {
            id: derived_id("ssl-cert", &one.facts.fingerprint),
            acm: one.record.hostname.is_some(),
            ca_signed: !one.facts.is_self_signed,
            self_signed: one.facts.is_self_signed,
            cert_domains: one.facts.names.clone(),
            starts_at: second(one.facts.starts),
            expires_at: second(one.facts.expires),
            issuer: one.facts.issuer.clone(),
            subject: one.facts.subject.clone(),
            fingerprint: one.facts.fingerprint.clone(),
        },
        domains: covered.map(|domain| domain.id).collect(),
        app: app_name(app),
        created_at: second(one.record.created),
        updated_at: second(one.record.updated),
    }
}

pub(super) fn network_rule(app: &AppRecord, rule: &NetworkRule) -> types::NetworkRule {
    let (kind, address, port, protocol) = match &rule.target {
        NetworkRuleTarget::App { at, .. } => ("app", *at, APP_ADDRESS_PORT, Protocol::Tcp),
        NetworkRuleTarget::Host(host) => ("host", host.address, host.port, host.protocol),
    };
    types::NetworkRule {
        id: rule.id,
        app: app_name(app),
        target: rule.target.to_string(),
        kind: kind.to_owned(),
        address,
        port,
        protocol: protocol.to_string(),
        user: user(&rule.user),
        created_at: second(rule.created),
        updated_at: second(rule.created),
    }
}

/// One stack with its builds, and who runs on them.
pub(super) fn stack(
    name: &StackName,
    is_default: bool,
    stands_for: Option<StackName>,
    versions: Vec<types::StackVersion>,
) -> types::Stack {
    types::Stack {
        id: derived_id("stack", name.as_str()),
        name: name.to_string(),
        state: "public".to_owned(),
        default: is_default,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        stands_for: stands_for.map(|name| name.to_string()),
        versions,
    }
}

pub(super) fn size(size: &DynoSize) -> types::Size {
    // GB as the schema has it: 0.5, 1, 2.5; whole MiB fit an f64 exactly.
    let mib = u32::try_from(size.memory_bytes >> 20).unwrap_or(u32::MAX);
    types::Size {
        id: derived_id("size", &size.name),
        name: size.name.clone(),
        memory: f64::from(mib) / 1024.0,
        compute: size.cpu_shares / 1024,
        dedicated: size.name.starts_with("Performance"),
        precise_dyno_units: f64::from(u32::try_from(size.cpu_shares).unwrap_or(u32::MAX)) / 1024.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_stable_version_4_uuids() {
        let id = derived_id("size", "Standard-1X");
        assert_eq!(id, derived_id("size", "Standard-1X"));
        assert_ne!(id, derived_id("stack", "Standard-1X"));
        assert_eq!(id.get_version_num(), 4);
    }

    #[test]
    fn times_lose_their_fraction() {
        let time: Timestamp = "2012-01-01T12:00:00.999999Z".parse().expect("a time");
        assert_eq!(second(time).to_string(), "2012-01-01T12:00:00Z");
    }
}
