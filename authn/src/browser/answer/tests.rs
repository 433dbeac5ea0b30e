use super::*;
use crate::policy::Policy;

/// The answer as it is after the changes, from `name: value` lines.
fn changed(browser: &str, answer: &Answer, upstream: &[&str]) -> Vec<String> {
    let text = format!(
        r#"{{"issuers":[{{"issuer":"i","audiences":"any","algorithms":["HS256"],"keys":[{{"secret_env":"S"}}]}}],
        "browser":{browser},"rules":[{{"access":"required"}}]}}"#
    );
    let policy = Policy::from_json(text.as_bytes(), &|_| Some(vec![1; 32])).unwrap();
    let mut lines: Vec<(String, String)> = upstream
        .iter()
        .map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
        .collect();
    let pairs: Vec<Pair<'_>> = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let edits = policy.changes(Some(0), answer, &pairs).edits;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    for edit in edits {
        match edit {
            Edit::Remove(name) => {
                let name = text(name);
                lines.retain(|(other, _)| *other != name);
            }
            Edit::Set(name, value) => {
                lines.retain(|(other, _)| *other != name);
                lines.push((name.to_owned(), text(value)));
            }
            Edit::Append(name, value) => lines.push((name.to_owned(), text(value))),
        }
    }
    lines.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

fn authenticated() -> Answer {
    Answer { is_authenticated: true, ..Answer::default() }
}

#[test]
fn nothing_changes_without_a_section() {
    let upstream = ["server: a", "set-cookie: session=a"];
    assert_eq!(changed("{}", &authenticated(), &upstream), upstream);
}

#[test]
fn a_header_is_added_where_it_is_missing_and_stays_where_it_is_not() {
    let browser = r#"{"strict_transport_security":{"max_age":"1d"},"referrer_policy":"no-referrer",
        "permissions_policy":"camera=()","content_type_options":true}"#;
    assert_eq!(
        changed(browser, &Answer::default(), &[]),
        [
            "x-content-type-options: nosniff",
            "strict-transport-security: max-age=86400",
            "referrer-policy: no-referrer",
            "permissions-policy: camera=()",
        ]
    );
    let upstream = [
        "strict-transport-security: max-age=1",
        "referrer-policy: origin",
        "permissions-policy: camera=*",
        "x-content-type-options: nosniff",
    ];
    assert_eq!(changed(browser, &Answer::default(), &upstream), upstream);
    assert_eq!(
        changed(r#"{"content_type_options":true}"#, &Answer::default(), &["x-content-type-options: sniff"]),
        ["x-content-type-options: nosniff"]
    );
}

#[test]
fn a_policy_is_added_beside_those_of_the_upstream() {
    let browser = r#"{"content_security_policy":"script-src 'nonce-{nonce}'","nonce_header":"x-nonce",
        "content_security_policy_report_only":"default-src 'self'"}"#;
    let answer = Answer { nonce: Some("abc".into()), ..Answer::default() };
    assert_eq!(
        changed(browser, &answer, &["content-security-policy: default-src *"]),
        [
            "content-security-policy: default-src *",
            "content-security-policy: script-src 'nonce-abc'",
            "content-security-policy-report-only: default-src 'self'",
        ]
    );
    // The stored body has another nonce.
    let report_only = "content-security-policy-report-only: default-src 'self'";
    assert_eq!(changed(browser, &answer, &[":status: 304"]), [":status: 304", report_only]);
    assert_eq!(changed(browser, &Answer::default(), &[]), [report_only]);
}

#[test]
fn the_frame_options_of_the_upstream_still_count_beside_a_policy() {
    let none = r#"{"frame_ancestors":["'none'"]}"#;
    assert_eq!(
        changed(none, &Answer::default(), &[]),
        ["content-security-policy: frame-ancestors 'none'", "x-frame-options: DENY"]
    );
    let app = r#"{"frame_ancestors":["https://app.example"]}"#;
    let ours = "content-security-policy: frame-ancestors https://app.example";
    assert_eq!(changed(app, &Answer::default(), &[]), [ours]);
    assert_eq!(
        changed(app, &Answer::default(), &["x-frame-options: SAMEORIGIN"]),
        ["x-frame-options: SAMEORIGIN", ours, "content-security-policy: frame-ancestors 'self'"]
    );
    let theirs = "content-security-policy: frame-ancestors https://partner.example";
    assert_eq!(
        changed(app, &Answer::default(), &["x-frame-options: DENY", theirs]),
        ["x-frame-options: DENY", theirs, ours]
    );
}

#[test]
fn answers_to_verified_tokens_stay_out_of_caches() {
    let private = r#"{"authenticated_cache_control":"private"}"#;
    for (upstream, result) in [
        ("max-age=60", "private, max-age=60"),
        ("public, max-age=60, s-maxage=90", "private, max-age=60"),
        ("private, max-age=60", "private, max-age=60"),
        ("private, s-maxage=60", "private"),
        ("private=\"x-a\", max-age=1", "private, max-age=1"),
        ("no-store", "no-store"),
        ("No-Store, public", "No-Store, public"),
    ] {
        let upstream = format!("cache-control: {upstream}");
        let result = format!("cache-control: {result}");
        assert_eq!(changed(private, &authenticated(), &[&upstream]), [result], "{upstream}");
    }
    assert_eq!(changed(private, &authenticated(), &[]), ["cache-control: private"]);
    let no_store = r#"{"authenticated_cache_control":"no_store"}"#;
    assert_eq!(changed(no_store, &authenticated(), &["cache-control: private"]), ["cache-control: no-store"]);
    assert_eq!(changed(no_store, &Answer::default(), &["cache-control: public"]), ["cache-control: public"]);
}

#[test]
fn a_cookie_session_is_in_no_cache_whatever_the_section_says() {
    let answer = Answer { is_cookie_session: true, is_authenticated: true, ..Answer::default() };
    let private = r#"{"authenticated_cache_control":"private","referrer_policy":"no-referrer"}"#;
    assert_eq!(
        changed(private, &answer, &["cache-control: public"]),
        ["cache-control: no-store", "x-content-type-options: nosniff", "referrer-policy: no-referrer"]
    );
}

#[test]
fn of_several_cookies_each_is_judged_and_their_order_stays() {
    let browser = r#"{"cookies":[{"name":"a"},{"name":"c","otherwise":"remove"}]}"#;
    assert_eq!(
        changed(
            browser,
            &Answer::default(),
            &["set-cookie: a=1", "x: y", "set-cookie: b=2", "set-cookie: c=3", "set-cookie: =a=4"]
        ),
        ["x: y", "set-cookie: a=1; Secure; HttpOnly; SameSite=Lax", "set-cookie: b=2"]
    );
}

#[test]
fn a_header_of_the_upstream_is_removed_and_one_of_a_refusal_is_not() {
    let browser = r#"{"remove_headers":["X-Powered-By","www-authenticate","strict-transport-security"],
        "strict_transport_security":{"max_age":"1d"}}"#;
    let upstream = ["x-powered-by: a", "www-authenticate: Basic", "strict-transport-security: max-age=0", "x: y"];
    assert_eq!(changed(browser, &Answer::default(), &upstream), ["x: y", "strict-transport-security: max-age=86400"]);
    let ours = Answer { is_ours: true, ..Answer::default() };
    assert_eq!(changed(browser, &ours, &upstream), upstream);
}
