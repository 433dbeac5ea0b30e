use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

fn options(more: &[&str]) -> Options {
    let needed = ["serve", "--secret-file", "/secret", "--admin-token-file", "/token"];
    Command::try_parse_from(needed.iter().chain(more)).unwrap_or_else(|error| panic!("{error}")).options
}

#[test]
fn retention_covers_lifetime_tolerance_and_skew_and_rounds_up() {
    let defaults = options(&["--future-iat-tolerance", "1s"]);
    assert_eq!(defaults.retention(), Retention { token: 86_701, login: 30 * 86_400 + 301 });
    let odd = options(&["--future-iat-tolerance", "1ms"]);
    assert_eq!((odd.retention().token, odd.future_iat_tolerance_seconds()), (86_701, 1));
}

#[test]
fn refuses_options_that_do_not_fit_together() {
    let refused = |more: &[&str]| options(more).check().unwrap_err().to_string();
    assert!(options(&[]).check().is_ok());
    let sessions = ["--session-issuer", "https://s", "--session-audience", "api"];
    let with = |more: &[&'static str]| [&sessions[..], more].concat();
    assert!(options(&sessions).check().is_ok());
    for (name, more) in [
        ("max-session", vec!["--max-session", "86399s"]),
        ("token-claims", vec!["--token-claims", "i=jti", "--token-claims", "i=uti"]),
        ("session-audience", vec!["--session-issuer", "https://s"]),
        ("session-issuer", vec!["--session-issuer", "", "--session-audience", "api"]),
        ("session-lifetime", with(&["--session-lifetime", "86401s"])),
        ("--signing-key", with(&["--signing-key", "pkcs11:nonsense=x"])),
    ] {
        assert!(refused(&more).contains(name), "{more:?}: {}", refused(&more));
    }
    assert!(options(&["--max-session", "86400s"]).check().is_ok());
    let store_id = "000102030405060708090a0b0c0d0e0f".parse().ok();
    let pinned = Options { create_store: true, store_id, ..options(&[]) };
    assert!(matches!(pinned.check(), Err(OptionsError::CreatePinned)));
}

#[test]
fn keys_in_tokens_have_a_bound_on_threads() {
    let uri = "pkcs11:object=a?module-path=/m.so&pin-source=/p";
    let keys = |count: usize| {
        let mut more = vec!["--session-issuer", "https://s", "--session-audience", "api", "--signing-sessions", "64"];
        more.extend(["--signing-key", "/key"]);
        (0..count).for_each(|_| more.extend(["--signing-key", uri]));
        options(&more).check()
    };
    assert!(keys(4).is_ok());
    assert!(matches!(keys(5), Err(OptionsError::TokenThreads(_))));
}
