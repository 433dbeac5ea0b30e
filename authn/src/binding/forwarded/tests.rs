use super::*;
use crate::request::Pair;

fn with<T>(name: &str, values: &[&str], read: impl FnOnce(&Request<'_>) -> T) -> T {
    let mut pairs: Vec<Pair<'_>> = vec![(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a")];
    pairs.extend(values.iter().map(|value| (name.as_bytes(), value.as_bytes())));
    read(&Request::from_pairs(&pairs).unwrap())
}

fn nth(values: &[&str], nth: usize) -> Option<String> {
    with("x-forwarded-for", values, |request| address(request, nth)).map(|address| address.to_string())
}

#[test]
fn an_address_is_counted_from_the_right_over_all_headers() {
    let all = ["6.6.6.6, 10.0.0.1", "10.0.0.2,10.0.0.3"];
    for (place, address) in [(1, "10.0.0.3"), (2, "10.0.0.2"), (3, "10.0.0.1"), (4, "6.6.6.6")] {
        assert_eq!(nth(&all, place).as_deref(), Some(address), "{place}");
    }
    assert_eq!(nth(&all, 5), None);
    assert_eq!(nth(&[], 1), None);
    assert_eq!(nth(&["::ffff:10.0.0.1"], 1).as_deref(), Some("10.0.0.1"));
}

#[test]
fn what_is_no_address_is_none_and_is_not_skipped() {
    for value in ["unknown", "", "10.0.0.1:80", "[::1]", "10.0.0.1, ", "_hidden", "010.0.0.1"] {
        assert_eq!(nth(&[value], 1), None, "{value:?}");
    }
    assert_eq!(nth(&["10.0.0.1,,10.0.0.2"], 2), None);
}

const HOP: &str = "spiffe://a/gateway";

fn hash(values: &[&str]) -> Result<String, Cause> {
    let found = with("x-forwarded-client-cert", values, |request| certificate(request, HOP));
    found.map(|hash| String::from_utf8(hash).unwrap())
}

#[test]
fn the_last_element_of_the_hop_counts() {
    let by = format!("By={HOP};Hash=aa");
    assert_eq!(hash(&[&by]).as_deref(), Ok("aa"));
    assert_eq!(hash(&[&format!("By={HOP};Hash=ff,{by}")]).as_deref(), Ok("aa"));
    assert_eq!(hash(&[&format!("By={HOP};Hash=ff"), &by]).as_deref(), Ok("aa"));
    assert_eq!(hash(&[&format!("{by},By=spiffe://a/this;Hash=bb")]).as_deref(), Ok("aa"));
    let subject = r#"Hash=aa;Subject="CN=a,O=\"By=x;Hash=bb\"";URI=spiffe://a/b"#;
    assert_eq!(hash(&[&format!("{subject};By={HOP}")]).as_deref(), Ok("aa"));
    assert_eq!(hash(&[&format!("by=other;BY=\"{HOP}\";hash=aa")]).as_deref(), Ok("aa"));
}

#[test]
fn what_the_hop_did_not_say_does_not_count() {
    assert_eq!(hash(&[]), Err(Cause::CertificateNotForwarded));
    assert_eq!(hash(&["Hash=aa"]), Err(Cause::CertificateNotForwarded));
    assert_eq!(hash(&["By=spiffe://a/gateway2;Hash=aa"]), Err(Cause::CertificateNotForwarded));
    assert_eq!(hash(&[&format!("Subject=\"By={HOP};Hash=aa\"")]), Err(Cause::CertificateNotForwarded));
    for header in [format!("By={HOP}"), format!("By={HOP};Hash=aa;Hash=bb"), format!("By={HOP};Hash=aa;Subject=\"")] {
        assert_eq!(hash(&[&header]), Err(Cause::ForwardedCertificateUnreadable), "{header}");
    }
}

#[test]
fn a_quote_that_the_client_leaves_open_does_not_hide_what_the_hop_said() {
    // The hop writes the subject of the client's own certificate, which may have quotes.
    let hop = format!(r#"By={HOP};Hash=aa;Subject="CN=a\",O=b""#);
    assert_eq!(hash(&[&hop]).as_deref(), Ok("aa"));
    for client in [
        format!(r#"By={HOP};Hash=ff;X=""#),
        format!(r#"By={HOP};Hash=ff;X="\"#),
        format!(r#"By={HOP};Hash=ff;""#),
        format!(r#"By={HOP};Hash=ff;X=a""#),
    ] {
        assert_eq!(hash(&[&client, &hop]), Err(Cause::ForwardedCertificateUnreadable), "{client}");
        assert_eq!(hash(&[&format!("{client},{hop}")]), Err(Cause::ForwardedCertificateUnreadable), "{client}");
    }
}
