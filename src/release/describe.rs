//! What a release says of itself. Source: contract of releases, "Now" forms (observed).

use std::collections::BTreeMap;

use crate::model::Digest;
use crate::store::FormationRecord;

/// `Deploy f7bee2dd`: a commit id is cut to 8 digits, other version texts stay whole; without
/// either the slug's digest names it.
pub fn deploy(version: Option<&str>, digest: Option<&Digest>) -> String {
    match (version.map(str::trim), digest) {
        (Some(text), _) if is_commit(text) => format!("Deploy {}", &text[..8]),
        (Some(text), _) if !text.is_empty() => format!("Deploy {text}"),
        (_, Some(digest)) => format!("Deploy {}", &digest.to_string()[..8]),
        (_, None) => "Deploy".to_owned(),
    }
}

fn is_commit(text: &str) -> bool {
    (text.len() == 40 || text.len() == 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `Set FOO, BAR config vars`, `Remove FOO config vars`. Values are never named.
pub fn config_change(change: &BTreeMap<String, Option<String>>) -> String {
    let keys = |set: bool| {
        let keys = change.iter().filter(|(_, value)| value.is_some() == set);
        keys.map(|(key, _)| key.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (keys(true), keys(false)) {
        (set, removed) if removed.is_empty() => format!("Set {set} config vars"),
        (set, removed) if set.is_empty() => format!("Remove {removed} config vars"),
        (set, removed) => format!("Set {set} and remove {removed} config vars"),
    }
}

/// `Scaled to web@1:Standard-1X worker@2:Standard-1X by user X`.
pub fn formation_line(formation: &[FormationRecord], user: &str) -> String {
    let entries: Vec<String> = formation
        .iter()
        .map(|record| {
            let entry = &record.entry;
            format!("{}@{}:{}", record.process, entry.quantity, entry.size.name)
        })
        .collect();
    format!("Scaled to {} by user {user}", entries.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_cut_to_eight_digits_and_other_texts_stay() {
        let commit = "f7bee2dd01234567890123456789012345678901";
        assert_eq!(deploy(Some(commit), None), "Deploy f7bee2dd");
        assert_eq!(deploy(Some("v1.2.3"), None), "Deploy v1.2.3");
        let digest = Digest([0xab; 32]);
        assert_eq!(deploy(Some(" "), Some(&digest)), "Deploy abababab");
        assert_eq!(deploy(None, Some(&digest)), "Deploy abababab");
    }

    #[test]
    fn config_descriptions_name_keys_never_values() {
        let change = |pairs: &[(&str, Option<&str>)]| {
            let pairs = pairs.iter();
            config_change(
                &pairs
                    .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)))
                    .collect(),
            )
        };
        assert_eq!(
            change(&[("FOO", Some("secret")), ("BAR", Some("x"))]),
            "Set BAR, FOO config vars"
        );
        assert_eq!(change(&[("FOO", None)]), "Remove FOO config vars");
        assert_eq!(
            change(&[("A", Some("x")), ("B", None)]),
            "Set A and remove B config vars"
        );
    }
}
