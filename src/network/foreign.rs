//! Other tables of the host: what they drop stays dropped, whatever ours lets pass.

use serde_json::Value;

use super::NetworkError;
use super::nft;
use super::rules::LINKS;

/// Chains of others that drop what dynos send out, each with what to do about it.
///
/// # Errors
/// nft does not answer.
pub(super) async fn blockers(own: &str) -> Result<Vec<String>, NetworkError> {
    let chains = nft::json(&["chains"]).await?;
    let mut found = Vec::new();
    for chain in suspects(&chains, own) {
        let table = nft::json(&["table", chain.family, chain.table]).await?;
        if is_closed(&table, &chain) {
            found.push(advice(&chain));
        }
    }
    Ok(found)
}

/// A base chain in the way of forwarded packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    drops: bool,
}

fn suspects<'a>(answer: &'a Value, own: &str) -> Vec<Chain<'a>> {
    let objects = answer["nftables"].as_array().map(Vec::as_slice);
    let chains = objects.unwrap_or_default().iter().map(|o| &o["chain"]);
    chains
        .filter(|chain| chain["hook"] == "forward" && chain["type"] == "filter")
        .filter_map(|chain| {
            let family = chain["family"].as_str()?;
            let table = chain["table"].as_str()?;
            let is_ours = table.starts_with("manifold_") || table == own;
            (matches!(family, "ip" | "inet") && !is_ours).then_some(Chain {
                family,
                table,
                name: chain["name"].as_str()?,
                drops: chain["policy"] == "drop",
            })
        })
        .collect()
}

/// True if the chain ends in a drop and no rule of its table names our links.
fn is_closed(table: &Value, chain: &Chain<'_>) -> bool {
    let objects = table["nftables"].as_array().map(Vec::as_slice);
    let rules = objects.unwrap_or_default().iter().map(|o| &o["rule"]);
    let rules: Vec<&Value> = rules.filter(|rule| rule.is_object()).collect();
    let names_us = |rule: &&Value| rule["expr"].to_string().contains(&format!("\"{LINKS}"));
    if rules.iter().any(names_us) {
        return false;
    }
    let last = rules.iter().rev().find(|rule| rule["chain"] == chain.name);
    chain.drops || last.is_some_and(|rule| drops_all(rule))
}

/// A rule without any condition that ends in drop or reject.
fn drops_all(rule: &Value) -> bool {
    let words = rule["expr"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let is_idle = |word: &Value| word.get("counter").is_some() || word.get("log").is_some();
    let mut rest = words.iter().filter(|word| !is_idle(word));
    let last = rest.next();
    let is_drop = last.is_some_and(|w| w.get("drop").is_some() || w.get("reject").is_some());
    is_drop && rest.next().is_none()
}

fn advice(chain: &Chain<'_>) -> String {
    let Chain {
        family,
        table,
        name,
        ..
    } = chain;
    let place = format!("{family} {table} {name}");
    format!(
        "dynos get no outbound network: chain {name} of the firewall table {family} {table} drops what it does not name, and what one table drops no other can let pass. Let it pass, and keep that in that firewall's own configuration: `nft insert rule {place} iifname \\\"{LINKS}*\\\" accept` and `nft insert rule {place} oifname \\\"{LINKS}*\\\" ct state established,related accept`"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(table: &str, name: &str, policy: &str) -> Value {
        json!({"chain": {"family": "ip", "table": table, "name": name, "handle": 1,
            "type": "filter", "hook": "forward", "prio": 0, "policy": policy}})
    }

    fn rule(chain: &str, expr: &Value) -> Value {
        json!({"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": expr}})
    }

    #[test]
    fn foreign_chains_that_drop_are_found_and_those_that_name_us_are_not() {
        let listing = json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            chain("filter", "FORWARD", "drop"),
            chain("manifold_12345678", "forward", "drop"),
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}},
        ]});
        let found = suspects(&listing, "manifold_12345678");
        assert_eq!(found.len(), 1);
        let check = |rules: &[Value], expected: bool| {
            let table = json!({ "nftables": rules });
            assert_eq!(is_closed(&table, &found[0]), expected, "{table}");
        };
        check(&[], true);
        let ours = json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "mf*"}}, {"accept": null}]);
        check(&[rule("DOCKER-USER", &ours)], false);
        let other = json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}}, {"accept": null}]);
        check(&[rule("FORWARD", &other)], true);
    }

    #[test]
    fn a_last_rule_that_rejects_all_is_like_a_policy() {
        let listing = json!({"nftables": [chain("filter", "FORWARD", "accept")]});
        let found = suspects(&listing, "own");
        let check = |expr: Value, expected: bool| {
            let table = json!({"nftables": [rule("FORWARD", &expr)]});
            assert_eq!(is_closed(&table, &found[0]), expected, "{table}");
        };
        check(
            json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]),
            true,
        );
        check(
            json!([{"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]),
            true,
        );
        check(json!([{"match": {}}, {"drop": null}]), false);
        check(json!([{"accept": null}]), false);
    }

    #[test]
    fn the_advice_is_a_command() {
        insta::assert_snapshot!(advice(&Chain {
            family: "ip",
            table: "filter",
            name: "FORWARD",
            drops: true
        }));
    }
}
