//! What a dyno's command finds in its environment.

use std::collections::BTreeMap;

use crate::model::{ConfigVars, DynoName};

/// Source: Dev Center, "Dynos", environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Prompt of an attached bash. Source: hsup.
const PROMPT: &str = r"\[\033[01;34m\]\w\[\033[00m\] \[\033[01;32m\]$ \[\033[00m\]";

/// Names no config var may take over: they say which dyno this is.
const OWN: [&str; 3] = ["DYNO", "PORT", "PS"];

/// What an environment is made from.
#[derive(Clone, Copy, Debug)]
pub struct EnvironmentRequest<'a> {
    /// `DYNO` and `PS`.
    pub name: &'a DynoName,
    /// `PORT`, for web.
    pub port: Option<u16>,
    /// The release's config vars; `None` for builds.
    pub config: Option<&'a ConfigVars>,
    /// Of the one who asked for a one-off; wins over config vars.
    pub extra: &'a BTreeMap<String, String>,
    /// True: somebody sits in front of it.
    pub is_attached: bool,
}

/// Base variables, then config vars, then what the caller gave.
/// Source: Dev Center, "Dynos" and "Config Vars".
pub fn environment(request: EnvironmentRequest<'_>) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |key: &str, value: &str| {
        env.insert(key.to_owned(), value.to_owned());
    };
    set("PATH", PATH);
    set("HOME", "/app");
    if request.is_attached {
        set("PS1", PROMPT);
    }
    for (key, value) in request.config.into_iter().flat_map(ConfigVars::iter) {
        set(key, value);
    }
    for (key, value) in request.extra {
        set(key, value);
    }
    for own in OWN {
        env.remove(own);
    }
    let name = request.name.to_string();
    env.insert("DYNO".to_owned(), name.clone());
    env.insert("PS".to_owned(), name);
    if let Some(port) = request.port {
        env.insert("PORT".to_owned(), port.to_string());
    }
    env.into_iter().collect()
}

/// The command as logs and `ps` show it: `$PORT` and `${PORT}` expanded, all else as written.
pub fn shown(command: &str, port: Option<u16>) -> String {
    let Some(port) = port else {
        return command.to_owned();
    };
    let port = port.to_string();
    let command = command.replace("${PORT}", &port);
    let mut out = String::with_capacity(command.len());
    let mut rest = command.as_str();
    while let Some(at) = rest.find("$PORT") {
        let (before, after) = (&rest[..at], &rest[at + 5..]);
        out.push_str(before);
        let is_longer = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        out.push_str(if is_longer { "$PORT" } else { &port });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> DynoName {
        "web.1".parse().expect("a name")
    }

    fn config(pairs: &[(&str, &str)]) -> ConfigVars {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), Some((*v).to_owned()));
        let changes: BTreeMap<_, _> = pairs.iter().map(owned).collect();
        ConfigVars::default()
            .changed(&changes)
            .expect("config vars")
    }

    #[test]
    fn config_vars_win_over_the_base_but_not_over_the_dynos_own() {
        let config = config(&[("PATH", "/mine"), ("PORT", "1"), ("DYNO", "x"), ("A", "b")]);
        let extra = BTreeMap::from([("A".to_owned(), "from run".to_owned())]);
        let env = environment(EnvironmentRequest {
            name: &web(),
            port: Some(25436),
            config: Some(&config),
            extra: &extra,
            is_attached: false,
        });
        let text: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let expected = [
            "A=from run",
            "DYNO=web.1",
            "HOME=/app",
            "PATH=/mine",
            "PORT=25436",
            "PS=web.1",
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn only_web_has_a_port() {
        let env = environment(EnvironmentRequest {
            name: &web(),
            port: None,
            config: Some(&config(&[("PORT", "1")])),
            extra: &BTreeMap::new(),
            is_attached: true,
        });
        assert!(env.iter().all(|(key, _)| key != "PORT"));
        assert!(env.iter().any(|(key, _)| key == "PS1"));
    }

    #[test]
    fn the_shown_command_has_the_port_and_nothing_else_expanded() {
        let check = |command: &str, expected: &str| {
            assert_eq!(shown(command, Some(80)), expected, "{command:?}");
        };
        check("serve -p $PORT -e $RAILS_ENV", "serve -p 80 -e $RAILS_ENV");
        check("serve ${PORT}$PORT", "serve 8080");
        check("serve $PORTABLE $PORT_X", "serve $PORTABLE $PORT_X");
        assert_eq!(shown("serve $PORT", None), "serve $PORT");
    }
}
