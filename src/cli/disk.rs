//! `disk`: where the bytes are.

use serde_json::Value;

use super::arguments::Json;
use super::client::Client;
use super::exit::Done;
use super::output::{self, Screen, one_line};

/// `disk`.
pub(super) async fn show(client: &Client, screen: &mut Screen, json: Json) -> Done {
    let disk: Value = client.get("/disk").await?;
    if json.is_on {
        return screen.json(&disk);
    }
    screen.data(&report(&disk))?;
    notices(client, screen).await
}

/// `disk --prune`.
pub(super) async fn prune(client: &Client, screen: &mut Screen, json: Json) -> Done {
    let pruned: Value = client.post("/disk/actions/prune", &Value::Null).await?;
    if json.is_on {
        return screen.json(&pruned);
    }
    let names = pruned["names"].as_array().into_iter().flatten();
    let names = names.map(|name| one_line(name.as_str().unwrap_or_default()));
    screen.data(&output::lines(names))?;
    let bytes = output::bytes(pruned["bytes"].as_u64().unwrap_or_default());
    screen.note(&format!("Removed {bytes}."));
    Ok(())
}

/// What this host cannot enforce, beside the data.
pub(super) async fn notices(client: &Client, screen: &mut Screen) -> Done {
    let host: Value = client.get("/host").await?;
    for notice in host["notices"].as_array().into_iter().flatten() {
        screen.note(&format!(
            "note: {}",
            one_line(notice.as_str().unwrap_or_default())
        ));
    }
    Ok(())
}

fn report(disk: &Value) -> String {
    let bytes = |value: &Value| output::bytes(value.as_u64().unwrap_or_default());
    let text = |value: &Value| one_line(value.as_str().unwrap_or("unknown"));
    let mut pairs = vec![
        ("State".to_owned(), text(&disk["state"])),
        ("Free".to_owned(), bytes(&disk["free_bytes"])),
        (
            "Kept for the host".to_owned(),
            bytes(&disk["reserve_bytes"]),
        ),
        ("Writable layers".to_owned(), text(&disk["mechanism"])),
        ("Idle layers".to_owned(), bytes(&disk["idle_bytes"])),
    ];
    for part in disk["parts"].as_array().into_iter().flatten() {
        pairs.push((text(&part["name"]), bytes(&part["bytes"])));
    }
    pairs.push(("all of it".to_owned(), bytes(&disk["total_bytes"])));
    let mut report = output::pairs(&pairs);
    let dynos = disk["dynos"].as_array().cloned().unwrap_or_default();
    if !dynos.is_empty() {
        let row = |dyno: &Value| {
            let inodes = |key: &str| dyno[key].as_u64().unwrap_or_default();
            vec![
                format!("{}/{}", text(&dyno["app"]), text(&dyno["dyno"])),
                text(&dyno["size"]),
                format!(
                    "{} of {}",
                    bytes(&dyno["used_bytes"]),
                    bytes(&dyno["limit_bytes"])
                ),
                format!("{} of {}", inodes("used_inodes"), inodes("limit_inodes")),
                bytes(&dyno["host_bytes"]),
            ]
        };
        let rows: Vec<Vec<String>> = dynos.iter().map(row).collect();
        report.push('\n');
        report += &output::columns(&["Dyno", "Size", "Used", "Inodes", "On the host"], &rows);
    }
    report
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::fake::Fake;

    #[tokio::test]
    async fn every_dyno_is_shown_with_its_bound() {
        let fake = Fake::start();
        let disk = json!({
            "state": "/s", "mechanism": "ext4 images", "free_bytes": 1 << 30,
            "reserve_bytes": 1 << 20, "idle_bytes": 0,
            "parts": [{ "name": "slugs", "bytes": 2048 }],
            "dynos": [{ "app": "shop", "dyno": "web.1", "size": "Eco", "used_bytes": 1024,
                "limit_bytes": 1 << 30, "used_inodes": 7, "limit_inodes": 100, "host_bytes": 4096 }],
        });
        fake.on("GET /disk", 200, &disk);
        let host = json!({ "notices": ["io_weight of sizes has no effect"] });
        fake.on("GET /host", 200, &host);
        fake.run(&["disk"]).await.expect("shown");
        let notes = fake.err.text();
        assert_eq!(notes, "note: io_weight of sizes has no effect\n");
        let text = fake.out.text();
        for word in ["ext4 images", "slugs", "shop/web.1", "7 of 100"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
