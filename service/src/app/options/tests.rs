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
fn receivers_of_events_wait_for_a_restart_without_keys_to_sign_with() {
    let receivers = ["--event-receivers-file", "/receivers", "--signing-key", "/key"];
    let sessions = ["--session-issuer", "https://s", "--session-audience", "api"];
    let whole = options(&[&sessions[..], &receivers].concat());
    for started_with in [&[][..], &sessions] {
        let (options, waiting) = options(started_with).with_changes(&whole);
        assert!(waiting.contains(&"event-receivers-file"), "{started_with:?}");
        assert_eq!(options.event_receivers.event_receivers_file, None);
    }
    let (options, waiting) = options(&[&sessions[..], &receivers[2..]].concat()).with_changes(&whole);
    assert!(waiting.is_empty() && options.event_receivers.event_receivers_file.is_some(), "{waiting:?}");
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

#[test]
fn every_option_of_redis_is_refused_beside_a_file_by_its_name() {
    let id = "000102030405060708090a0b0c0d0e0f";
    let with_values = [
        ("--redis", "redis://h:1"),
        ("--redis-mode", "cluster"),
        ("--sentinel-master", "m"),
        ("--redis-username", "u"),
        ("--redis-password-file", "/f"),
        ("--sentinel-username", "u"),
        ("--sentinel-password-file", "/f"),
        ("--redis-ca-file", "/f"),
        ("--redis-cert-file", "/f"),
        ("--redis-key-file", "/f"),
        ("--mirror-redis", "redis://h:1"),
        ("--mirror-redis-mode", "cluster"),
        ("--redis-timeout", "1s"),
        ("--confirm-timeout", "1s"),
        ("--min-replicas", "0"),
    ];
    let refused = |more: &[&str]| {
        let needed = ["serve", "--secret-file", "/secret", "--admin-token-file", "/token", "--store", "file:/store"];
        let parsed = Command::try_parse_from(needed.iter().chain(more));
        parsed.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(refused(&["--require-disk", "--store-max-size", "2MiB", "--store-id", id]), "");
    for (name, value) in with_values {
        assert!(refused(&[name, value]).contains(name), "{name}: {}", refused(&[name, value]));
    }
    for name in ["--dangerously-allow-eviction", "--dangerously-allow-replica"] {
        assert!(refused(&[name]).contains(name), "{name}");
    }
    // Whatever has redis in its name is an option of Redis.
    let command = <Command as clap::CommandFactory>::command();
    let ids = command.get_arguments().filter(|option| option.get_long().is_some_and(|name| name.contains("redis")));
    let missing: Vec<_> = ids
        .map(|option| option.get_id().as_str())
        .filter(|id| !file_store::only_redis().any(|only| only == *id))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(
        Command::try_parse_from([
            "serve",
            "--secret-file",
            "/s",
            "--admin-token-file",
            "/t",
            "--store-max-size",
            "2MiB"
        ])
        .is_err()
    );
}
