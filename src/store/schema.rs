//! Tables and their migrations. A migration, once released, is never edited: add the next one.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Migration N brings `user_version` from N to N + 1.
const MIGRATIONS: &[&str] = &[
    FIRST,
    FEATURES,
    ROUTING,
    AUTHORIZATIONS,
    BUILDPACKS,
    CERTIFICATES,
    NETWORK,
    STACK_VERSIONS,
    ANNOUNCED,
];

const FIRST: &str = "
CREATE TABLE apps (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    stack TEXT NOT NULL,
    maintenance INTEGER NOT NULL,
    next_version INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;

-- A slug outlives its app while another app's release uses it, hence no reference to apps.
CREATE TABLE slugs (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    digest TEXT,
    size_bytes INTEGER NOT NULL,
    stack TEXT NOT NULL,
    commit_id TEXT,
    buildpack TEXT,
    processes TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;
CREATE INDEX slugs_by_digest ON slugs (digest);

CREATE TABLE releases (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    description TEXT NOT NULL,
    user TEXT NOT NULL,
    status TEXT NOT NULL,
    slug TEXT REFERENCES slugs (id),
    config TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    UNIQUE (app, version)
) STRICT;
CREATE INDEX releases_by_slug ON releases (slug);

CREATE TABLE formations (
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    process TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity >= 0),
    size TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (app, process)
) STRICT;

CREATE TABLE domains (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    hostname TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX domains_by_app ON domains (app);

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    user TEXT NOT NULL,
    status TEXT NOT NULL,
    stack TEXT NOT NULL,
    source_url TEXT NOT NULL,
    checksum TEXT,
    version TEXT,
    slug TEXT,
    release TEXT,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_by_app ON builds (app);
";

const FEATURES: &str = "
CREATE TABLE features (
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (app, name)
) STRICT;
";

const ROUTING: &str = "
ALTER TABLE apps ADD COLUMN routing TEXT NOT NULL DEFAULT 'least-in-flight';
ALTER TABLE apps ADD COLUMN concurrency INTEGER;
INSERT OR IGNORE INTO features (app, name) SELECT id, 'preboot' FROM apps;
";

/// Tokens for callers that the kernel does not know: kept as digests only.
const AUTHORIZATIONS: &str = "
CREATE TABLE authorizations (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    user TEXT NOT NULL,
    description TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT;
";

const BUILDPACKS: &str = "
CREATE TABLE buildpacks (
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    buildpack TEXT NOT NULL,
    PRIMARY KEY (app, ordinal)
) STRICT;
";

const CERTIFICATES: &str = "
CREATE TABLE certificates (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL UNIQUE,
    hostname TEXT,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_by_app ON certificates (app);

-- Apps whose custom domains get certificates by ACME.
CREATE TABLE auto_apps (
    app TEXT PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE
) STRICT;

CREATE TABLE auto_domains (
    hostname TEXT PRIMARY KEY REFERENCES domains (hostname) ON DELETE CASCADE,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    attempts INTEGER NOT NULL,
    next INTEGER,
    reason TEXT
) STRICT;
";

const NETWORK: &str = "
-- The number of the address at which an app answers other apps.
CREATE TABLE app_addresses (
    app TEXT PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    number INTEGER NOT NULL UNIQUE CHECK (number >= 0)
) STRICT;

CREATE TABLE network_rules (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    target_app TEXT REFERENCES apps (id) ON DELETE CASCADE,
    host TEXT,
    user TEXT NOT NULL,
    created INTEGER NOT NULL,
    CHECK ((target_app IS NULL) <> (host IS NULL))
) STRICT;
CREATE UNIQUE INDEX network_rules_by_app
    ON network_rules (app, coalesce(target_app, ''), coalesce(host, ''));
CREATE INDEX network_rules_by_target ON network_rules (target_app);
";

const STACK_VERSIONS: &str = "
-- The build of the slug's stack that a release runs on; without one (earlier releases, the stack
-- host) it is the newest.
ALTER TABLE releases ADD COLUMN stack_version TEXT;
-- Whether somebody set an app's routing; else its stack may have one of its own.
ALTER TABLE apps ADD COLUMN has_routing INTEGER NOT NULL DEFAULT 0;
UPDATE apps SET has_routing = 1 WHERE routing <> 'least-in-flight' OR concurrency IS NOT NULL;
-- Releases whose slug was removed from disk: too old to go back to.
ALTER TABLE releases ADD COLUMN is_collected INTEGER NOT NULL DEFAULT 0;
";

const ANNOUNCED: &str = "
-- Of a slug whose bytes are still to come, if it was told.
ALTER TABLE slugs ADD COLUMN expected TEXT;
-- Those of one build, a line each; NULL: its app's.
ALTER TABLE builds ADD COLUMN buildpacks TEXT;
";

/// Brings the database to this program's schema, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let fail = |source| StoreError::Sql {
        act: "migrate the database",
        source,
    };
    let known = u32::try_from(MIGRATIONS.len()).expect("few migrations");
    let found: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(fail)?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (version, sql) in (1..=known).zip(MIGRATIONS).skip(found as usize) {
        let step = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fail)?;
        step.execute_batch(sql).map_err(fail)?;
        step.pragma_update(None, "user_version", version)
            .map_err(fail)?;
        step.commit().map_err(fail)?;
    }
    Ok(())
}
