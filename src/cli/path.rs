//! Paths of the API, made of the user's words.

/// One part of a path, so that no word of the user's means another path.
pub(super) fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        // A part of dots only would name a parent, were it not encoded.
        if byte.is_ascii_alphanumeric()
            || b"-_~".contains(&byte)
            || (byte == b'.' && text != "." && text != "..")
        {
            segment.push(char::from(byte));
        } else {
            write!(segment, "%{byte:02X}").expect("a String takes all");
        }
    }
    segment
}

/// `/apps/APP` and what follows it.
pub(super) fn of_app(app: &str, rest: &str) -> String {
    format!("/apps/{}{rest}", segment(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_user_stay_one_part_of_the_path() {
        let check = |text: &str, expected: &str| assert_eq!(segment(text), expected);
        check("web.1", "web.1");
        check("../../x", "..%2F..%2Fx");
        check("..", "%2E%2E");
        check("a b?c#d%é", "a%20b%3Fc%23d%25%C3%A9");
        assert_eq!(of_app("a/b", "/dynos"), "/apps/a%2Fb/dynos");
    }
}
