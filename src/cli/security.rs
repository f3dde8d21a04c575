//! What a dyno can and cannot do.

use super::arguments::Json;
use super::client::Client;
use super::exit::Done;
use super::output::{self, Paint, Screen};
use super::path::{of_app, segment};
use crate::api::types::Security;

/// Most characters of a list in one line.
const WIDTH: usize = 78;

/// `security`.
pub(super) async fn show(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    process: &str,
    json: Json,
) -> Done {
    let path = of_app(app, &format!("/security/{}", segment(process)));
    let told: Security = client.get(&path).await?;
    if json.is_on {
        return screen.json(&told);
    }
    screen.data(&description(&told, screen.paint))
}

fn description(told: &Security, paint: Paint) -> String {
    let title = format!(
        "{} dynos of {} ({})",
        told.process, told.app.name, told.size
    );
    let parts = [
        paint.heading(&title) + &identity(told),
        paint.heading("Namespaces of its own") + &namespaces(told),
        paint.heading("System calls") + &seccomp(told),
        paint.heading("Mounts") + &mounts(told),
        paint.heading("Limits") + &limits(told),
        paint.heading("Network") + &network(told),
    ];
    parts.join("\n")
}

fn identity(told: &Security) -> String {
    let user = &told.user;
    let kept = if told.capabilities.kept.is_empty() {
        "none, in any set".to_owned()
    } else {
        told.capabilities.kept.join(", ")
    };
    let privileges = if told.capabilities.no_new_privileges {
        "none: set-user-id programs and file capabilities have no effect"
    } else {
        "POSSIBLE"
    };
    output::pairs(&[
        (
            "User",
            format!("uid {}, gid {}, no groups", user.uid, user.gid),
        ),
        (
            "On the host",
            format!("{} ids of its own, from {} on", user.ids, user.host_first),
        ),
        ("Capabilities", kept),
        ("New privileges", privileges.to_owned()),
    ])
}

fn namespaces(told: &Security) -> String {
    let row = |n: &crate::api::types::Namespace| vec![n.name.clone(), n.keeps_apart.clone()];
    let rows: Vec<_> = told.namespaces.iter().map(row).collect();
    output::columns(&[], &rows)
}

fn seccomp(told: &Security) -> String {
    let filter = &told.seccomp;
    if !filter.is_on {
        return "NO FILTER\n".to_owned();
    }
    let mut text = format!(
        "{} calls are allowed; what is on no list answers {}. Looked at one by one:\n\n",
        filter.allowed, filter.default
    );
    let rows: Vec<_> = filter
        .checked
        .iter()
        .map(|c| vec![format!("  {}", c.call), c.allows.clone()])
        .collect();
    text += &output::columns(&[], &rows);
    text += "\nDenied with EPERM:\n\n";
    for group in &filter.denied {
        text.extend(["  ", &group.reason, "\n", &wrapped(&group.calls)]);
    }
    text
}

/// Words in lines, indented.
fn wrapped(words: &[String]) -> String {
    let mut text = String::new();
    let mut line = String::from("   ");
    for word in words {
        if line.len() + 1 + word.len() > WIDTH {
            text += &line;
            text.push('\n');
            "   ".clone_into(&mut line);
        }
        line.push(' ');
        line += word;
    }
    text + &line + "\n"
}

fn mounts(told: &Security) -> String {
    let row =
        |m: &crate::api::types::Mount| vec![m.target.clone(), m.flags.join(","), m.what.clone()];
    let rows: Vec<_> = told.mounts.iter().map(row).collect();
    let mut text = output::columns(&["Path", "Flags", "What"], &rows);
    text += "\nCovered with nothing, where the kernel has them:\n\n";
    text += &wrapped(&told.masked);
    text += "\nReadable only:\n\n";
    text + &wrapped(&told.read_only)
}

fn limits(told: &Security) -> String {
    let row = |l: &crate::api::types::Limit| vec![l.name.clone(), l.value.clone()];
    output::columns(&[], &told.limits.iter().map(row).collect::<Vec<_>>())
}

fn network(told: &Security) -> String {
    let network = &told.network;
    let lines = |what: &str, of: &[String]| {
        let of = of.iter().map(|line| format!("  {line}\n"));
        of.fold(format!("{what}\n"), |text, line| text + &line)
    };
    let mut text = lines("Reaches", &network.reaches);
    text += &lines("Does not reach", &network.does_not_reach);
    text += &lines("Is reached by", &["the router, at its $PORT".to_owned()]);
    let most = match network.connections_max {
        Some(most) => format!("At most {most} tracked connections at once. "),
        None => String::new(),
    };
    text + &format!(
        "{most}`nft list table {}` shows the rules.\n",
        network.table
    )
}

#[cfg(test)]
mod tests {
    use crate::cli::fake::Fake;

    #[tokio::test]
    async fn what_a_dyno_can_do_is_told_in_six_parts() {
        let fake = Fake::start();
        let told: serde_json::Value =
            serde_json::from_str(include_str!("security/shop.json")).expect("JSON");
        fake.on("GET /apps/shop/security/web", 200, &told);
        fake.run(&["security", "-a", "shop"]).await.expect("told");
        let first = fake.out.text();
        insta::assert_snapshot!(first);
        fake.run(&["security", "shop", "--type", "web"])
            .await
            .expect("told");
        assert_eq!(fake.out.text(), first.repeat(2), "APP may stand alone");
    }
}
