use super::*;

#[test]
fn the_default_authority_is_the_clusters_name_or_the_host_in_istios_name_for_it() {
    for (cluster, expected) in [
        ("session_service", "session_service"),
        ("sessions.example:7700", "sessions.example:7700"),
        ("outbound|7700||portcullis.portcullis.svc.cluster.local", "portcullis.portcullis.svc.cluster.local"),
        ("outbound|443|v1|idp.example.com", "idp.example.com"),
        ("outbound|443||[2001:db8::1]", "[2001:db8::1]"),
    ] {
        assert_eq!(authority_or(None, cluster, "at").as_deref(), Ok(expected), "{cluster}");
    }
}

#[test]
fn a_default_that_is_no_authority_is_an_error_that_says_what_to_give() {
    for cluster in
        ["inbound|8080||", "outbound|x||a.example", "a|b", "a b", "user@a.example", "a/b", "outbound|1|2|3|4"]
    {
        let invalid = authority_or(None, cluster, "revocation.authority").unwrap_err();
        assert_eq!(invalid.field, "revocation.authority");
        assert!(invalid.message.contains(cluster) && invalid.message.contains("give"), "{}", invalid.message);
        assert_eq!(authority_or(Some("a.example:80"), cluster, "at").as_deref(), Ok("a.example:80"));
    }
}

#[test]
fn an_authority_that_is_none_is_an_error() {
    for authority in ["", "a|b", "outbound|1||a.example", "a.example:x", "http://a.example", "a_b c"] {
        assert_eq!(authority_or(Some(authority), "cluster", "at").unwrap_err().field, "at", "{authority}");
    }
}
