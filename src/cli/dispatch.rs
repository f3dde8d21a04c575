//! From the words of the command line to the one function that carries them out.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use super::arguments::{Cli, Command};
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::Screen;
use super::time::Clock;
use super::{
    apps, authorizations, buildpacks, builds, certs, config, deploy, diff, disk, domains, features,
    git, logs, network, promote, ps, releases, routing, run, security, stack, traffic, upgrade,
};
use crate::settings::{Flags, Settings};

/// The whole grammar, for completions and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs one command. `arguments` are those of the process, its name first.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let status = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
            // Help that nobody reads, as in `manifold help | head`.
            error.print().ok();
            return ExitCode::from(status);
        }
    };
    with_runtime(async move |screen| carry_out(cli, screen).await)
}

/// Runs a command's work and turns its outcome into an exit status.
pub(super) fn with_runtime(work: impl AsyncFnOnce(&mut Screen) -> Done<u8>) -> ExitCode {
    let mut screen = Screen::stdio();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match &runtime {
        Ok(runtime) => runtime.block_on(work(&mut screen)),
        Err(error) => Err(Fault::general(format!("cannot start: {error}"))),
    };
    if let Ok(runtime) = runtime {
        // A read of stdin that still waits must not hold us back.
        runtime.shutdown_background();
    }
    match result {
        Ok(status) => ExitCode::from(status),
        Err(fault) => {
            if fault.exit != Exit::BrokenPipe {
                screen.fault(&fault);
            }
            fault.exit.into()
        }
    }
}

/// Reads the words of a command; no words ask for help.
pub(super) fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    if arguments.len() < 2 {
        // clap's own setting counts variables of the environment as words.
        return Cli::try_parse_from(["manifold", "--help"]);
    }
    let mut cli = Cli::try_parse_from(arguments)?;
    mark_exact(&mut cli.command, arguments);
    Ok(cli)
}

/// clap does not tell whether `--` came before the words, which are always the last ones.
fn mark_exact(command: &mut Command, arguments: &[OsString]) {
    if let Command::Run(run) | Command::RunDetached(run) = command {
        let before = arguments.len().checked_sub(run.words.len() + 1);
        let before = before.and_then(|at| arguments.get(at));
        run.is_exact = before.is_some_and(|word| word == "--");
    }
}

/// `--socket`, else `MANIFOLD_SOCKET`, else what the host's settings say (if we may read them).
pub(super) fn socket(given: Option<PathBuf>) -> PathBuf {
    given
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or_else(|| {
            let settings = Settings::load(&Flags::default());
            settings.unwrap_or_default().socket
        })
}

/// The exit status of a command that did not fail: 0, or that of the command `run` ran.
pub(super) async fn carry_out(cli: Cli, screen: &mut Screen) -> Done<u8> {
    let client = &Client::new(socket(cli.socket));
    let clock = &Clock::here();
    match cli.command {
        Command::Create(create) => apps::create(client, screen, &create).await,
        Command::Apps(json) => apps::list(client, screen, json).await,
        Command::Info { app, json } => apps::info(client, screen, app.required()?, json).await,
        Command::Destroy { app, confirm } => {
            apps::destroy(client, screen, app.required()?, confirm).await
        }
        Command::Rename { name, app } => apps::rename(client, screen, app.required()?, &name).await,
        Command::Open { app } => apps::open(client, screen, app.required()?).await,
        Command::Deploy(deploy) => deploy::deploy(client, screen, &deploy).await,
        Command::Ps { types, app, json } => {
            ps::list(client, screen, app.required()?, &types, json, clock).await
        }
        Command::PsScale { changes, app, json } => {
            ps::scale(client, screen, app.required()?, &changes, json).await
        }
        Command::PsType { sizes, app, json } => {
            ps::resize(client, screen, app.required()?, &sizes, json).await
        }
        Command::Diff { dyno, app, json } => {
            diff::show(client, screen, app.required()?, &dyno, json).await
        }
        Command::Upgrade => upgrade::upgrade(client, screen).await,
        Command::Disk { prune: true, json } => disk::prune(client, screen, json).await,
        Command::Disk { prune: false, json } => disk::show(client, screen, json).await,
        Command::PsRestart { name, app } => {
            ps::restart(client, screen, app.required()?, name.as_deref()).await
        }
        Command::PsStop { name, app } => ps::stop(client, screen, app.required()?, &name).await,
        Command::Run(order) => return run::attached(client, screen, &order).await,
        Command::RunDetached(order) => run::detached(client, screen, &order).await,
        Command::Logs(order) => logs::logs(client, screen, &order).await,
        Command::Config { app, shell, json } => {
            config::list(client, screen, app.required()?, shell, json).await
        }
        Command::ConfigGet { keys, app } => {
            config::get(client, screen, app.required()?, &keys).await
        }
        Command::ConfigSet { vars, app } => {
            config::set(client, screen, app.required()?, &vars).await
        }
        Command::ConfigUnset { keys, app } => {
            config::unset(client, screen, app.required()?, &keys).await
        }
        Command::Releases { count, app, json } => {
            releases::list(client, screen, app.required()?, count, json, clock).await
        }
        Command::ReleasesInfo { release, app, json } => {
            let key = release.as_deref().unwrap_or("current");
            releases::info(client, screen, app.required()?, key, json, clock).await
        }
        Command::Rollback { release, app } => {
            releases::rollback(client, screen, app.required()?, release.as_deref()).await
        }
        Command::Domains { app, json } => {
            domains::list(client, screen, app.required()?, json).await
        }
        Command::DomainsAdd { hostname, app } => {
            domains::add(client, screen, app.required()?, hostname).await
        }
        Command::DomainsRemove { hostname, app } => {
            domains::remove(client, screen, app.required()?, &hostname).await
        }
        Command::Certs { app, json } => certs::list(client, screen, app.required()?, json).await,
        Command::CertsInfo { name, app, json } => {
            certs::info(client, screen, app.required()?, name.as_deref(), json).await
        }
        Command::CertsAdd { chain, key, app } => {
            certs::add(client, screen, app.required()?, &chain, &key).await
        }
        Command::CertsUpdate {
            chain,
            key,
            name,
            app,
        } => {
            let files = (chain.as_path(), key.as_path());
            certs::update(client, screen, app.required()?, files, name.as_deref()).await
        }
        Command::CertsRemove { name, app } => {
            certs::remove(client, screen, app.required()?, name.as_deref()).await
        }
        Command::CertsAuthority => certs::authority(client, screen).await,
        Command::CertsAuto { app, json } => {
            certs::auto(client, screen, app.required()?, json).await
        }
        Command::CertsAutoEnable { app } => certs::enable(client, screen, app.required()?).await,
        Command::CertsAutoDisable { app } => certs::disable(client, screen, app.required()?).await,
        Command::CertsAutoRefresh { app } => certs::refresh(client, screen, app.required()?).await,
        Command::Metrics { app, json } => {
            traffic::metrics(client, screen, app.required()?, json).await
        }
        Command::Top { app } => traffic::top(client, screen, app.given()).await,
        Command::Routing { app, json } => {
            routing::show(client, screen, app.required()?, json).await
        }
        Command::RoutingSet(order) => routing::set(client, screen, &order).await,
        Command::Features { app, json } => {
            features::list(client, screen, app.required()?, json).await
        }
        Command::FeaturesEnable { feature, app } => {
            features::set(client, screen, app.required()?, feature, true).await
        }
        Command::FeaturesDisable { feature, app } => {
            features::set(client, screen, app.required()?, feature, false).await
        }
        Command::Network { app, json } => {
            network::list(client, screen, app.required()?, json).await
        }
        Command::NetworkAllow { target, app, json } => {
            network::allow(client, screen, app.required()?, &target, json).await
        }
        Command::NetworkDeny { target, app } => {
            network::deny(client, screen, app.required()?, &target).await
        }
        Command::Security {
            name,
            app,
            process,
            json,
        } => {
            let app = match &name {
                Some(name) => name,
                None => app.required()?,
            };
            security::show(client, screen, app, &process, json).await
        }
        Command::Maintenance { app } => {
            apps::show_maintenance(client, screen, app.required()?).await
        }
        Command::MaintenanceOn { app } => {
            apps::set_maintenance(client, screen, app.required()?, true).await
        }
        Command::MaintenanceOff { app } => {
            apps::set_maintenance(client, screen, app.required()?, false).await
        }
        Command::Stack { app, json } => stack::list(client, screen, app.given(), json).await,
        Command::StackSet { stack, app } => {
            stack::set(client, screen, app.required()?, stack).await
        }
        Command::StackUpgrade { name, app } => {
            let name = name.as_deref().or(app.given());
            stack::upgrade(client, screen, name).await
        }
        Command::Stacks {
            name,
            packages,
            json,
        } => stack::versions(client, screen, name.as_deref(), packages, json).await,
        Command::Promote { app, to } => {
            promote::promote(client, screen, app.required()?, &to).await
        }
        Command::Buildpacks { app, json } => {
            buildpacks::list(client, screen, app.required()?, json).await
        }
        Command::BuildpacksSet(order) => {
            let change = buildpacks::Change::Set(order.index);
            buildpacks::change(
                client,
                screen,
                order.app.required()?,
                &order.buildpack,
                change,
            )
            .await
        }
        Command::BuildpacksAdd(order) => {
            let change = buildpacks::Change::Add(order.index);
            buildpacks::change(
                client,
                screen,
                order.app.required()?,
                &order.buildpack,
                change,
            )
            .await
        }
        Command::BuildpacksRemove {
            buildpack,
            index,
            app,
        } => {
            let word = buildpack.as_deref();
            buildpacks::remove(client, screen, app.required()?, word, index).await
        }
        Command::BuildpacksClear { app } => {
            buildpacks::clear(client, screen, app.required()?).await
        }
        Command::Builds { app, json } => {
            builds::list(client, screen, app.required()?, json, clock).await
        }
        Command::BuildsInfo { id, app, json } => {
            builds::info(client, screen, app.required()?, id.as_deref(), json).await
        }
        Command::BuildsOutput { id, app } => {
            builds::output(client, screen, app.required()?, id.as_deref()).await
        }
        Command::BuildsCachePurge { app } => builds::purge(client, screen, app.required()?).await,
        Command::GitRemote { app, remote } => {
            git::remote(client, screen, app.required()?, &remote).await
        }
        Command::GitShell { app } => return git::shell(client, &app).await,
        Command::Authorizations(json) => authorizations::list(client, screen, json).await,
        Command::AuthorizationsCreate {
            description,
            expires_in,
            short,
            json,
        } => authorizations::create(client, screen, description, expires_in, short, json).await,
        Command::AuthorizationsRevoke { id } => authorizations::revoke(client, screen, &id).await,
        Command::Supervise(_) => Err(Fault::usage("`supervise` must be the first word")
            .hint("write it as `manifold supervise --socket PATH …`")),
        Command::Uninstall(_) => Err(Fault::usage("`uninstall` must be the first word")
            .hint("write it as `manifold uninstall --state DIR …`")),
        Command::StacksBuild(_) => Err(Fault::usage("`stacks:build` must be the first word")
            .hint("write it as `manifold stacks:build NAME --state DIR …`")),
        Command::StacksImport(_) => Err(Fault::usage("`stacks:import` must be the first word")
            .hint("write it as `manifold stacks:import FILE --state DIR …`")),
        Command::Man { dir } => clap_mangen::generate_to(command(), &dir).map_err(|error| {
            let dir = dir.display();
            Fault::general(format!("cannot write man pages to {dir}: {error}"))
        }),
        Command::Completions { shell } => completions(screen, shell),
    }
    .map(|()| Exit::Success as u8)
}

fn completions(screen: &mut Screen, shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "manifold", &mut script);
    screen.bytes(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("manifold").chain(line.split_whitespace());
        let words: Vec<OsString> = words.map(OsString::from).collect();
        parse(&words).map(|cli| cli.command)
    }

    #[test]
    fn the_grammar_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn words_after_the_first_of_a_command_are_the_commands_own() {
        let check = |line: &str, words: &[&str], is_exact: bool| {
            let Ok(Command::Run(run)) = parsed(line) else {
                panic!("not a run: {line}");
            };
            assert_eq!(run.words, words, "{line}");
            assert_eq!(run.is_exact, is_exact, "{line}");
            assert_eq!(run.app.given(), Some("shop"), "{line}");
        };
        check("run -a shop bash", &["bash"], false);
        check(
            "run -a shop ls -la -a x --json",
            &["ls", "-la", "-a", "x", "--json"],
            false,
        );
        check("run -a shop -- ls -la", &["ls", "-la"], true);
        check("run --app=shop -s 2x env -- x", &["env", "--", "x"], false);
        check("run -a shop -- -x --help", &["-x", "--help"], true);
        check("run -ashop --no-tty worker 42", &["worker", "42"], false);
        check(
            "run -a shop ls --socket x --help",
            &["ls", "--socket", "x", "--help"],
            false,
        );
    }

    #[test]
    fn unknown_flags_before_the_command_are_refused() {
        for line in ["run -a shop --nosuch ls", "run -a shop", "run -a shop --"] {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_bad_word_of_scale_is_named() {
        let error = parsed("ps:scale web=2 web=x -a shop").expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("web=x"), "{error}");
        let Ok(Command::PsScale { changes, .. }) = parsed("ps:scale web=2:basic my-w-1") else {
            panic!("refused");
        };
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[1].process.as_str(), "my-w");
    }

    #[test]
    fn counts_have_limits() {
        for line in ["logs -n 0", "logs -n 1501", "releases -n 0", "logs -n x"] {
            assert_eq!(parsed(line).expect_err(line).exit_code(), 2, "{line}");
        }
        assert!(parsed("logs -n 1500 -t -p web -s app").is_ok());
    }

    #[test]
    fn commands_of_the_heroku_cli_are_known_by_their_names() {
        for line in [
            "apps",
            "apps --json",
            "create",
            "apps:create shop -s host",
            "info -a x",
            "apps:destroy -a x -c x",
            "ps web worker -a x",
            "ps:restart web.1 -a x",
            "ps:stop run.1234",
            "ps:kill web",
            "run:detached rake x",
            "config -s",
            "config:get A B",
            "config:set A=b C=d=e",
            "config:unset A",
            "releases -n 3",
            "releases:info v3",
            "rollback",
            "rollback v3",
            "domains",
            "domains:add *.example.com",
            "domains:remove x.example.com",
            "certs",
            "certs:add server.crt server.key -a x",
            "certs:update server.crt server.key --name n",
            "certs:remove --name n",
            "certs:info",
            "certs:ca",
            "certs:auto",
            "certs:auto:enable",
            "certs:auto:disable",
            "certs:auto:refresh",
            "metrics --json",
            "top",
            "routing --json",
            "routing:set global-queue -a x",
            "routing:set --concurrency 5",
            "features",
            "features:enable http-force-ssl",
            "labs:disable http-hsts",
            "security x",
            "security -a x --type worker",
            "network -a x",
            "network:allow other -a x",
            "network:deny 10.0.0.5:5432 -a x",
            "network:remove other -a x",
            "maintenance",
            "maintenance:on",
            "maintenance:off",
            "stack",
            "stack:set host",
            "stack:upgrade x",
            "stacks cedar --packages",
            "stacks:build cedar-13 --state /srv/m",
            "stacks:import debian.tar.zst --name mine",
            "disk --prune",
            "open",
            "deploy",
            "deploy . -a x",
            "completions bash",
            "supervise --http 127.0.0.1:0",
            "uninstall --state /srv/m --purge",
            "rename other -a x",
            "run -x ls",
        ] {
            if let Err(error) = parsed(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_command_without_its_app_says_how_to_name_it() {
        let socket = OsString::from("--socket=/nonexistent/s");
        let words = ["manifold", "ps", "--app", ""].map(OsString::from);
        let mut words = words.to_vec();
        words.push(socket);
        let cli = parse(&words).expect("a command");
        let fault = carry_out(cli, &mut Screen::stdio()).await;
        let fault = fault.expect_err("refused");
        assert_eq!(fault.exit, Exit::Usage);
        let hint = fault.hint.unwrap_or_default();
        assert!(
            hint.contains("-a") && hint.contains("MANIFOLD_APP"),
            "{hint}"
        );
    }

    #[test]
    fn completions_know_the_commands() {
        let mut script = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut command(),
            "manifold",
            &mut script,
        );
        let script = String::from_utf8(script).expect("text");
        assert!(script.contains("ps:scale"));
    }
}
