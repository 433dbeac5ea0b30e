//! The header `Accept` (RFC 9110 section 12.5.1).
use axum::http::{HeaderMap, header};

/// Whether the client takes an answer of this type, `application/…`.
pub fn takes(headers: &HeaderMap, media_type: &str) -> bool {
    let mut named = false;
    for value in headers.get_all(header::ACCEPT) {
        let Ok(text) = value.to_str() else { continue };
        for range in text.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            named |= !kind.is_empty();
            let refused = parts.any(|part| {
                let weight = part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
                weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>() == Ok(0.0))
            });
            if !refused && ["*/*", "application/*", media_type].iter().any(|ours| kind.eq_ignore_ascii_case(ours)) {
                return true;
            }
        }
    }
    !named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes_json(accept: &str) -> bool {
        takes(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]), "application/json")
    }

    #[test]
    fn a_type_is_taken_unless_something_else_is_named() {
        assert!(takes(&HeaderMap::new(), "application/json"));
        for good in ["application/json", "*/*", "text/html, application/*;q=0.1", "", "APPLICATION/JSON; charset=utf-8"]
        {
            assert!(takes_json(good), "{good}");
        }
        for bad in
            ["text/html", "application/token-introspection+jwt", "application/json;q=0", "application/json; q=0.0"]
        {
            assert!(!takes_json(bad), "{bad}");
        }
    }
}
