//! `upgrade`: the supervisor makes way for the version that is installed now.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{Screen, one_line};

/// The old supervisor lets requests and launches under way end first.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks for the new one.
const PAUSE: Duration = Duration::from_millis(100);

/// `upgrade`.
pub(super) async fn upgrade(client: &Client, screen: &mut Screen) -> Done {
    let told: Value = client.post("/host/actions/upgrade", &json!({})).await?;
    let message = told["message"].as_str().unwrap_or_default();
    screen.note(&one_line(message));
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Between the two nobody may answer.
        if let Ok(host) = client.get::<Value>("/host").await
            && host["pid"] != told["pid"]
        {
            let version = host["version"].as_str().unwrap_or_default();
            return screen.data(&format!("version {} runs\n", one_line(version)));
        }
        if Instant::now() > deadline {
            let fault = Fault::new(Exit::Connection, "the new supervisor does not answer");
            return Err(fault.hint("see its journal, e.g. `journalctl -u manifold`"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fake::Fake;

    #[tokio::test]
    async fn it_waits_for_another_supervisor_and_tells_its_version() {
        let fake = Fake::start();
        let told = json!({ "message": "version 2 takes over, dynos go on", "pid": 1 });
        fake.on("POST /host/actions/upgrade", 202, &told);
        fake.on("GET /host", 200, &json!({ "version": "2", "pid": 2 }));
        fake.run(&["upgrade"]).await.expect("upgraded");
        assert_eq!(fake.out.text(), "version 2 runs\n");
        assert_eq!(fake.err.text(), "version 2 takes over, dynos go on\n");
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let fake = Fake::start();
        let refusal =
            json!({ "id": "invalid_params", "message": "The supervisor stays as it is: no" });
        fake.on("POST /host/actions/upgrade", 422, &refusal);
        let fault = fake.run(&["upgrade"]).await.expect_err("refused");
        assert_eq!(
            (fault.exit, fake.out.text()),
            (Exit::Invalid, String::new())
        );
    }
}
