//! The nft program: one transaction a call.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::NetworkError;

/// Longest wait for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Applies `text` as one transaction.
pub(super) async fn apply(act: &'static str, text: &str) -> Result<(), NetworkError> {
    crate::sys::fault(act).map_err(|error| NetworkError::Rules {
        act,
        reason: error.to_string(),
    })?;
    run(act, &["-f", "-"], text).await.map(drop)
}

/// A table of ours as nft prints it, without counts and without what packets add to its sets.
///
/// # Errors
/// It is not there.
pub(super) async fn list(name: &str) -> Result<String, NetworkError> {
    let act = "list the firewall table";
    let text = run(act, &["-s", "-n", "list", "table", "inet", name], "").await?;
    Ok(lasting(&text))
}

/// A `list` command's answer as JSON.
pub(super) async fn json(words: &[&str]) -> Result<serde_json::Value, NetworkError> {
    let act = "list the host's firewall";
    let mut args = vec!["-j", "list"];
    args.extend(words);
    let text = run(act, &args, "").await?;
    serde_json::from_str(&text).map_err(|error| NetworkError::Rules {
        act,
        reason: error.to_string(),
    })
}

/// Leaves out the one set that packets fill, and puts the elements of others into an order:
/// the kernel keeps them in none.
fn lasting(text: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !line.starts_with("set ") {
            kept.push(line);
            continue;
        }
        let body = lines.by_ref().take_while(|line| *line != "}");
        // `elements = { A . B, C . D }`, over many lines.
        let parts = body
            .flat_map(|line| line.split([',', '{', '}']))
            .map(str::trim);
        let mut parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if line != "set connections {" {
            parts.sort_unstable();
            kept.push(line);
            kept.extend(parts);
        }
    }
    kept.join("\n")
}

async fn run(act: &'static str, args: &[&str], input: &str) -> Result<String, NetworkError> {
    let failed = |reason: String| NetworkError::Rules { act, reason };
    let mut child = tokio::process::Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            failed(format!(
                "nft does not start ({e}); install the package nftables"
            ))
        })?;
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(DEADLINE, talk).await {
        Err(_) => Err(failed("nft did not answer within 30 s".to_owned())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_packets_add_is_no_change_and_the_order_of_elements_neither() {
        let text = |counted: &str, elements: &str| {
            format!(
                "table inet t {{\n\tset sources {{\n\t\ttypeof iifname . ip saddr\n\t\telements = {{ {elements} }}\n\t}}\n\n\tset connections {{\n\t\ttype ipv4_addr\n{counted}\t}}\n\n\tchain open {{\n\t}}\n}}\n"
            )
        };
        let whole = super::lasting(&text("", "a . 1,\n\t\t\t     b . 2"));
        let counted = "\t\telements = { 172.16.0.2 ct count over 5 }\n";
        assert_eq!(
            super::lasting(&text(counted, "b . 2,\n\t\t\t     a . 1")),
            whole
        );
        assert_ne!(super::lasting(&text("", "a . 1")), whole);
        assert!(
            whole.contains("chain open") && whole.contains("typeof"),
            "{whole}"
        );
    }
}
