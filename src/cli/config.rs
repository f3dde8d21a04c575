//! Config vars.

use std::collections::BTreeMap;

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{self, Screen};
use super::path::of_app;
use super::quote::quote;
use super::releases;

pub(super) type Vars = BTreeMap<String, String>;

/// `config`.
pub(super) async fn list(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    is_shell: bool,
    json: Json,
) -> Done {
    let vars: Vars = client.get(&of_app(app, "/config-vars")).await?;
    if json.is_on {
        return screen.json(&vars);
    }
    if is_shell {
        return screen.data(&shell(&vars));
    }
    if vars.is_empty() {
        screen.note(&format!(
            "{} has no config vars.",
            screen.note_paint.app(app)
        ));
        return Ok(());
    }
    let heading = format!("{} Config Vars", screen.paint.app(app));
    let heading = screen.paint.heading(&heading);
    screen.data(&(heading + &table(&vars)))
}

pub(super) fn table(vars: &Vars) -> String {
    output::pairs(&vars.iter().collect::<Vec<_>>())
}

/// `KEY=VALUE` lines for a shell.
fn shell(vars: &Vars) -> String {
    let lines = vars
        .iter()
        .map(|(key, value)| format!("{key}={}", quote(value)));
    output::lines(lines)
}

/// `config:get`: all or nothing.
pub(super) async fn get(client: &Client, screen: &mut Screen, app: &str, keys: &[String]) -> Done {
    let vars: Vars = client.get(&of_app(app, "/config-vars")).await?;
    let value = |key: &String| {
        vars.get(key).cloned().ok_or_else(|| {
            let key = output::one_line(key);
            let fault = Fault::new(Exit::NotFound, format!("{key} is not set on {app}"));
            fault.hint(format!("`manifold config --app {app}` lists what is"))
        })
    };
    let values = keys.iter().map(value).collect::<Done<Vec<_>>>()?;
    screen.data(&output::lines(values.into_iter()))
}

/// `config:set`.
pub(super) async fn set(client: &Client, screen: &mut Screen, app: &str, words: &[String]) -> Done {
    let vars = assignments(words)?;
    let names = vars.keys().map(String::as_str).collect::<Vec<_>>();
    let what = format!("Setting {}", names.join(", "));
    let change: BTreeMap<_, _> = vars.iter().map(|(key, value)| (key, Some(value))).collect();
    update(client, screen, app, &what, &change).await?;
    screen.data(&table(&vars))
}

/// `config:unset`.
pub(super) async fn unset(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    keys: &[String],
) -> Done {
    let what = format!("Unsetting {}", keys.join(", "));
    let change: BTreeMap<_, _> = keys.iter().map(|key| (key, None)).collect();
    update(client, screen, app, &what, &change).await
}

async fn update(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    what: &str,
    change: &BTreeMap<&String, Option<&String>>,
) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("{} and restarting {shown}", output::one_line(what));
    let work = async {
        let path = of_app(app, "/config-vars");
        client.patch::<Vars>(&path, change).await?;
        releases::newest(client, app).await
    };
    let told = |newest: &Option<crate::api::types::Release>| {
        let newest = newest.as_ref();
        newest.map_or_else(String::new, |release| format!(", v{}", release.version))
    };
    screen.action(&what, work, told).await.map(drop)
}

/// Each word at its first `=`; the last of several for one key counts.
fn assignments(words: &[String]) -> Done<Vars> {
    let split = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Fault::usage(format!(
            "{} is invalid. Must be in the format FOO=bar.",
            output::one_line(word)
        ))),
    };
    words.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::fake::{Fake, objects};

    #[tokio::test]
    async fn config_vars_are_listed_for_people_shells_and_programs() {
        let fake = Fake::start();
        let vars = json!({"GREETING": "it's $5", "A": "1"});
        fake.on("GET /apps/shop/config-vars", 200, &vars);
        for flag in [&[][..], &["-s"], &["--json"]] {
            let words = [&["config", "-a", "shop"], flag].concat();
            fake.run(&words).await.expect("listed");
        }
        fake.run(&["config:get", "A", "GREETING", "-a", "shop"])
            .await
            .expect("got");
        let fault = fake.run(&["config:get", "A", "NOPE", "-a", "shop"]).await;
        let fault = fault.expect_err("refused");
        assert_eq!(fault.exit, Exit::NotFound);
        assert_eq!(fault.message, "NOPE is not set on shop");
        insta::assert_snapshot!(fake.out.text(), @r#"
        === ⬢ shop Config Vars

        A:        1
        GREETING: it's $5
        A=1
        GREETING='it'\''s $5'
        {
          "A": "1",
          "GREETING": "it's $5"
        }
        1
        it's $5
        "#);
    }

    #[tokio::test]
    async fn setting_and_unsetting_are_one_call_each_and_tell_the_release() {
        let fake = Fake::start();
        fake.on("PATCH /apps/shop/config-vars", 200, &json!({}));
        let newest = json!([objects::release(12, "Set A, B config vars", "succeeded")]);
        fake.on("GET /apps/shop/releases", 206, &newest);
        fake.run(&["config:set", "A=1", "B=x=y", "-a", "shop"])
            .await
            .expect("set");
        fake.run(&["config:unset", "A", "-a", "shop"])
            .await
            .expect("unset");
        assert_eq!(
            fake.calls(),
            [
                r#"PATCH /apps/shop/config-vars {"A":"1","B":"x=y"}"#,
                "GET /apps/shop/releases [version ..; max=1, order=desc]",
                r#"PATCH /apps/shop/config-vars {"A":null}"#,
                "GET /apps/shop/releases [version ..; max=1, order=desc]",
            ]
        );
        assert_eq!(
            fake.err.text(),
            "Setting A, B and restarting ⬢ shop... done, v12\nUnsetting A and restarting ⬢ shop... done, v12\n"
        );
        assert_eq!(fake.out.text(), "A: 1\nB: x=y\n");
    }

    #[tokio::test]
    async fn a_word_without_equals_changes_nothing() {
        let fake = Fake::start();
        for bad in ["FOO", "=x"] {
            let fault = fake.run(&["config:set", "A=1", bad, "-a", "shop"]).await;
            let fault = fault.expect_err("refused");
            assert_eq!(fault.exit, Exit::Usage);
            assert_eq!(
                fault.message,
                format!("{bad} is invalid. Must be in the format FOO=bar.")
            );
        }
        assert!(fake.calls().is_empty());
    }
}
