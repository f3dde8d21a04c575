//! What of ours stays on a host: the table, and IP forwarding.

use serde_json::Value;

use super::open::table_name;
use super::{NetworkError, guard, nft, rules};

/// Removes the firewall table of a supervisor that does not run, if it is there; no other is
/// touched.
///
/// # Errors
/// nft refuses, or is not there.
pub async fn uninstall(instance: &str) -> Result<(), NetworkError> {
    let name = table_name(instance);
    nft::apply("remove the firewall table", &rules::remove(&name)).await
}

/// Turns IP forwarding off, as it was before us, unless another firewall table forwards: then
/// somebody else may need it by now.
///
/// # Errors
/// nft does not tell.
pub async fn stop_forwarding() -> Result<(), NetworkError> {
    let listing = nft::json(&["chains"]).await?;
    if let Some(table) = forwarder(&listing) {
        tracing::warn!(
            "IP forwarding stays on, though manifold turned it on: the firewall table {table} forwards too. If nobody needs it: sysctl -w net.ipv4.ip_forward=0"
        );
        return Ok(());
    }
    match std::fs::write(guard::FORWARDING, "0") {
        Ok(()) => tracing::info!("turned {} off again", guard::FORWARDING),
        Err(error) => tracing::warn!(%error, "{} stays on", guard::FORWARDING),
    }
    Ok(())
}

fn forwarder(listing: &Value) -> Option<String> {
    let chains = listing["nftables"].as_array()?.iter();
    let mut chains = chains.map(|entry| &entry["chain"]);
    let chain = chains.find(|chain| chain["hook"] == "forward")?;
    let text = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    Some(format!("{} {}", text("family"), text("table")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_forwards_is_named() {
        let chain =
            |hook: &str| json!({"chain": {"family": "ip", "table": "docker", "hook": hook}});
        let listing = json!({"nftables": [{"metainfo": {}}, chain("input"), chain("forward")]});
        assert_eq!(forwarder(&listing).as_deref(), Some("ip docker"));
        let listing = json!({"nftables": [chain("input"), {"chain": {"table": "t"}}]});
        assert_eq!(forwarder(&listing), None);
    }
}
