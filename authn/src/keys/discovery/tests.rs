use super::*;

#[test]
fn discovery_is_believed_only_for_its_own_issuer() {
    let text = br#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/a?v=1"}"#;
    let url = parse(text, "https://a.example").unwrap();
    assert_eq!((url.authority.as_str(), url.path.as_str()), ("keys.example", "/a?v=1"));
    assert_eq!(parse(text, "https://a.example/"), Err(DiscoveryError::OtherIssuer));
    assert_eq!(parse(b"{}", "https://a.example"), Err(DiscoveryError::Member("issuer")));
}

#[test]
fn urls_that_could_break_a_request_line_are_refused() {
    for bad in
        ["ftp://a/", "https://", "https:///x", "https://a b/", "https://a/b c", "https://a/\r\nx", "https://u@a/"]
    {
        assert!(Url::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(Url::parse("http://a:1").unwrap(), Url { authority: "a:1".into(), path: "/".into() });
    assert_eq!(Url::discovery("https://a/t/").unwrap().path, "/t/.well-known/openid-configuration");
}

#[test]
fn a_byte_order_mark_is_skipped_and_a_compressed_document_is_named() {
    let document = br#"{"issuer":"https://a.example","jwks_uri":"https://a.example/keys"}"#;
    let marked = [b"\xef\xbb\xbf".as_slice(), document].concat();
    assert!(parse(&marked, "https://a.example").is_ok());
    let compressed = parse(b"\x1f\x8b\x08\0rest", "https://a.example").unwrap_err();
    assert_eq!(compressed, DiscoveryError::Text(JwksError::Compressed("gzip")));
}
