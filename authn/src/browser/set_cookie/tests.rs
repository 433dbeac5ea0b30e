use super::*;

fn rule(name: &str, otherwise: CookieAction) -> CookieRule {
    let name = match name.strip_suffix('*') {
        Some(beginning) => CookieName::Beginning(beginning.into()),
        None => CookieName::Whole(name.into()),
    };
    CookieRule { name, secure: true, http_only: true, same_site: SameSite::Lax, otherwise }
}

fn judged(cookie: &str) -> String {
    let rules = [
        rule("session", CookieAction::Repair),
        rule("strict", CookieAction::Remove),
        rule("__*", CookieAction::Repair),
        CookieRule { same_site: SameSite::Strict, ..rule("csrf", CookieAction::Repair) },
        CookieRule { secure: false, http_only: false, same_site: SameSite::Any, ..rule("any", CookieAction::Repair) },
    ];
    match judge(&rules, cookie.as_bytes()) {
        Verdict::Keep => "kept".into(),
        Verdict::Remove => "removed".into(),
        Verdict::Replace(cookie) => String::from_utf8(cookie).unwrap(),
    }
}

#[test]
fn missing_attributes_are_added() {
    for (cookie, result) in [
        ("session=a", "session=a; Secure; HttpOnly; SameSite=Lax"),
        ("session=a; Path=/; HttpOnly", "session=a; Path=/; HttpOnly; Secure; SameSite=Lax"),
        ("session=a;secure;HTTPONLY;samesite=lax", "kept"),
        ("session=a; Secure; HttpOnly; SameSite=Strict", "kept"),
        ("session=a; Secure; HttpOnly; SameSite=None", "session=a; Secure; HttpOnly; SameSite=Lax"),
        ("session=a; Secure; HttpOnly; SameSite=Other", "session=a; Secure; HttpOnly; SameSite=Lax"),
        ("csrf=a; Secure; HttpOnly; SameSite=Lax", "csrf=a; Secure; HttpOnly; SameSite=Strict"),
        ("session=; Max-Age=0", "session=; Max-Age=0; Secure; HttpOnly; SameSite=Lax"),
        ("session=a=b; x", "session=a=b; x; Secure; HttpOnly; SameSite=Lax"),
        (" session = a ;Secure", "session = a; Secure; HttpOnly; SameSite=Lax"),
        ("any=a", "kept"),
        ("other=a", "kept"),
        ("Session=a", "kept"),
        ("sessions=a", "kept"),
    ] {
        assert_eq!(judged(cookie), result, "{cookie}");
    }
}

#[test]
fn of_several_attributes_the_last_counts_as_in_browsers() {
    assert_eq!(judged("session=a; Secure; HttpOnly; SameSite=None; SameSite=Lax"), "kept");
    assert_eq!(
        judged("session=a; Secure; HttpOnly; SameSite=Lax; SameSite=None"),
        "session=a; Secure; HttpOnly; SameSite=Lax"
    );
    let long = "x".repeat(1025);
    assert_eq!(
        judged(&format!("session=a; Secure={long}; HttpOnly; SameSite=Lax")),
        format!("session=a; Secure={long}; HttpOnly; SameSite=Lax; Secure")
    );
    assert_eq!(judged("session=a; Secure=false; HttpOnly=0; SameSite=Lax"), "kept");
    // These are parts of the value or of another attribute.
    assert_eq!(
        judged("session=Secure, HttpOnly; Comment=SameSite=Lax"),
        "session=Secure, HttpOnly; Comment=SameSite=Lax; Secure; HttpOnly; SameSite=Lax"
    );
}

#[test]
fn a_prefix_is_what_it_promises() {
    let rest = "Secure; HttpOnly; SameSite=Lax";
    for (cookie, result) in [
        (format!("__Host-a=b; Path=/; {rest}"), "kept".to_owned()),
        (format!("__Host-a=b; {rest}"), format!("__Host-a=b; {rest}; Path=/")),
        (format!("__Host-a=b; Path=/x; {rest}"), format!("__Host-a=b; {rest}; Path=/")),
        (format!("__host-a=b; Domain=example.com; Path=/; {rest}"), format!("__host-a=b; Path=/; {rest}")),
        (format!("__Host-a=b; Path=/; Domain=; {rest}"), format!("__Host-a=b; Path=/; {rest}")),
        (format!("__Secure-a=b; Path=/x; Domain=example.com; {rest}"), "kept".to_owned()),
        ("__Secure-a=b; HttpOnly; SameSite=Lax".to_owned(), "__Secure-a=b; HttpOnly; SameSite=Lax; Secure".to_owned()),
    ] {
        assert_eq!(judged(&cookie), result, "{cookie}");
    }
}

#[test]
fn a_cookie_that_lacks_something_can_be_removed() {
    assert_eq!(judged("strict=a; Secure; HttpOnly"), "removed");
    assert_eq!(judged("strict=a; Secure; HttpOnly; SameSite=Lax"), "kept");
}

#[test]
fn a_cookie_without_a_name_is_removed() {
    for cookie in ["", "session", "=session=a", " = a", "; Secure", "=", "other\u{1}=a", "session=a\u{7f}", "a=b; x=\0"]
    {
        assert_eq!(judged(cookie), "removed", "{cookie:?}");
    }
}
