//! Partial lists: `Range: version ..; max=15, order=desc` and `Next-Range`.
//! Source: Platform API Reference, "Ranges".

use std::cmp::Ordering;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::error::ApiError;
use super::reply::{self, Answer};

/// Rows in a list without `max`.
const MAX_DEFAULT: usize = 200;
/// Most rows in one answer.
const MAX: usize = 1000;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    property: String,
    /// Rows from here on; true: without this one.
    start: Option<(String, bool)>,
    end: Option<String>,
    max: usize,
    descending: bool,
}

/// Answers a list in the order and part that `Range` asks for; by the first of `properties` when
/// it does not say.
pub(super) fn list<T: Serialize>(headers: &HeaderMap, properties: &[&str], items: &[T]) -> Answer {
    let wanted = wanted(headers, properties)?;
    let mut rows = items
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ApiError::internal("write JSON", &error))?;
    rows.sort_by(|a, b| compare(&a[&wanted.property], &b[&wanted.property]));
    if wanted.descending {
        rows.reverse();
    }
    rows.retain(|row| is_within(&row[&wanted.property], &wanted));
    let has_more = rows.len() > wanted.max;
    rows.truncate(wanted.max);
    let status = if has_more {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let mut response = reply::json(status, &rows)?;
    let headers = response.headers_mut();
    put(headers, "accept-ranges", &properties.join(", "));
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        let text = |row: &Value| plain(&row[&wanted.property]);
        let order = if wanted.descending {
            ", order=desc"
        } else {
            ""
        };
        let (name, max) = (&wanted.property, wanted.max);
        let content = format!("{name} {}..{}; max={max}{order}", text(first), text(last));
        put(headers, "content-range", &content);
        if has_more {
            let end = wanted.end.as_deref().unwrap_or_default();
            let next = format!("{name} ]{}..{end}; max={max}{order}", text(last));
            put(headers, "next-range", &next);
        }
    }
    Ok(response)
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // A name with control characters cannot be a header; the list is right without it.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn wanted(headers: &HeaderMap, properties: &[&str]) -> Result<Wanted, ApiError> {
    let text = match headers.get(header::RANGE) {
        None => "",
        Some(value) => value.to_str().map_err(|_| ApiError::range())?.trim(),
    };
    // The CLI sends an empty header with some calls.
    if text.is_empty() {
        return Ok(Wanted {
            property: properties[0].to_owned(),
            start: None,
            end: None,
            max: MAX_DEFAULT,
            descending: false,
        });
    }
    parse(text)
        .filter(|wanted| properties.contains(&wanted.property.as_str()))
        .ok_or_else(ApiError::range)
}

/// `PROPERTY [[]]START..END][; max=N[, order=desc]]`; separators and spaces vary among clients.
fn parse(text: &str) -> Option<Wanted> {
    let (span, parameters) = text.split_once(';').unwrap_or((text, ""));
    let (property, bounds) = span
        .trim()
        .split_once(char::is_whitespace)
        .unwrap_or((span.trim(), ".."));
    let (start, end) = bounds.trim().split_once("..")?;
    let start = match (start.trim(), start.trim().strip_prefix(']')) {
        ("", _) => None,
        (_, Some(after)) => Some((after.to_owned(), true)),
        (from, None) => Some((from.to_owned(), false)),
    };
    let mut wanted = Wanted {
        property: property.to_owned(),
        start,
        end: Some(end.trim().to_owned()).filter(|end| !end.is_empty()),
        max: MAX_DEFAULT,
        descending: false,
    };
    for parameter in parameters.split([',', ';']).map(str::trim) {
        match parameter.split_once('=').map(|(k, v)| (k.trim(), v.trim())) {
            None if parameter.is_empty() => {}
            Some(("max", n)) => {
                let max: usize = n.parse().ok().filter(|max| *max > 0)?;
                wanted.max = max.min(MAX);
            }
            Some(("order", "desc")) => wanted.descending = true,
            Some(("order", "asc")) => wanted.descending = false,
            _ => return None,
        }
    }
    Some(wanted)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => plain(a).cmp(&plain(b)),
    }
}

fn compare_text(value: &Value, bound: &str) -> Ordering {
    match (value.as_i64(), bound.parse::<i64>()) {
        (Some(a), Ok(b)) => a.cmp(&b),
        _ => plain(value).as_str().cmp(bound),
    }
}

fn is_within(value: &Value, wanted: &Wanted) -> bool {
    let directed = |order: Ordering| {
        if wanted.descending {
            order.reverse()
        } else {
            order
        }
    };
    let after_start = wanted.start.as_ref().is_none_or(|(start, exclusive)| {
        match directed(compare_text(value, start)) {
            Ordering::Less => false,
            Ordering::Equal => !exclusive,
            Ordering::Greater => true,
        }
    });
    let before_end = wanted
        .end
        .as_ref()
        .is_none_or(|end| directed(compare_text(value, end)) != Ordering::Greater);
    after_start && before_end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(range: &str) -> Result<(u16, String, String), ApiError> {
        let items: Vec<Value> = (1..=20)
            .map(|n| serde_json::json!({"version": n}))
            .collect();
        let mut headers = HeaderMap::new();
        headers.insert("range", range.parse().expect("a header"));
        let response = list(&headers, &["id", "version"], &items)?;
        let text = |name: &str| {
            let value = response.headers().get(name);
            value.map_or("", |v| v.to_str().expect("text")).to_owned()
        };
        Ok((
            response.status().as_u16(),
            text("content-range"),
            text("next-range"),
        ))
    }

    #[track_caller]
    fn check(range: &str, status: u16, content: &str, next: &str) {
        let got = versions(range).expect("a list");
        assert_eq!(
            got,
            (status, content.to_owned(), next.to_owned()),
            "{range}"
        );
    }

    #[test]
    fn ranges_are_read_as_the_clients_write_them() {
        check(
            "version ..; max=15, order=desc",
            206,
            "version 20..6; max=15, order=desc",
            "version ]6..; max=15, order=desc",
        );
        check(
            "version ]6..; max=15, order=desc",
            200,
            "version 5..1; max=15, order=desc",
            "",
        );
        check(
            "version ..; order=desc,max=1;",
            206,
            "version 20..20; max=1, order=desc",
            "version ]20..; max=1, order=desc",
        );
        check("version 3..4", 200, "version 3..4; max=200", "");
    }

    #[test]
    fn a_range_that_means_nothing_is_416() {
        for bad in [
            "version",
            "name ..",
            "version ..; max=0",
            "version ..; x=1",
            ";;",
            "version ..; order=up",
        ] {
            let range = if bad == "version" { "version 3" } else { bad };
            assert!(versions(range).is_err(), "{range}");
        }
    }
}
