//! Words for a shell.

/// Quoted so that a shell reads back exactly this word; plain words stay as they are.
pub(super) fn quote(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:,+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The command text of `run WORDS…`.
///
/// One word is shell text as it is. Several words are joined as the `heroku` CLI does, so that
/// `run echo '$HOME' x` is expanded in the dyno; after `--` (`is_exact`) each word is quoted and
/// reaches the program unchanged.
pub(super) fn command(words: &[String], is_exact: bool) -> String {
    if let [one] = words {
        return one.clone();
    }
    let join = |word: &String| {
        if is_exact {
            quote(word)
        } else if word.is_empty() || word.contains([' ', '"']) {
            format!("\"{}\"", word.replace('"', "\\\""))
        } else {
            word.clone()
        }
    };
    words.iter().map(join).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in [
            "", "plain", "a b", "it's", "$HOME", "`id`", "a\nb", "\\", "\"", "é", "*", "~", "-n",
            "a;b", "#", "!", "{a,b}",
        ] {
            let script = format!("printf %s {}", quote(word));
            let output = std::process::Command::new("bash")
                .args(["-c", &script])
                .output()
                .expect("bash runs");
            assert_eq!(output.stdout, word.as_bytes(), "{script}");
        }
    }

    #[test]
    fn words_are_joined_as_heroku_does_and_exactly_after_two_dashes() {
        let check = |words: &[&str], joined: &str, exact: &str| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(command(&words, false), joined);
            assert_eq!(command(&words, true), exact);
        };
        check(&["echo a; ls"], "echo a; ls", "echo a; ls");
        check(
            &["bash", "-c", "cat; exit 7"],
            "bash -c \"cat; exit 7\"",
            "bash -c 'cat; exit 7'",
        );
        check(&["echo", "$HOME"], "echo $HOME", "echo '$HOME'");
        check(
            &["echo", "a \"b\""],
            "echo \"a \\\"b\\\"\"",
            "echo 'a \"b\"'",
        );
        check(&["worker", "42"], "worker 42", "worker 42");
        check(&["echo", ""], "echo \"\"", "echo ''");
    }
}
