use super::*;
use crate::domain::clients::tests::{SECRET, clients};

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
}

fn basic_of(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[tokio::test]
async fn a_client_is_known_in_either_way_and_never_in_both() {
    let json = r#"{"clients":[{"client_id":"a:b","secret_files":["s"],"may":["introspect"]}]}"#;
    let clients = clients(json).await.unwrap();
    let ask = |lines: &[&str], body: &str| {
        authenticate(&clients, &headers(lines), &Form::parse(body.as_bytes()).unwrap()).map(|client| client.id)
    };
    let good = basic_of(&format!("a%3Ab:{SECRET}"));
    let refused = |challenge| Err(OAuthError::InvalidClient { challenge });
    assert_eq!(ask(&[&good], ""), Ok("a:b".to_owned()));
    assert_eq!(ask(&[&good.replace("Basic", "bAsIc")], "client_id=a:b"), Ok("a:b".to_owned()));
    assert_eq!(ask(&[], &format!("client_id=a%3Ab&client_secret={SECRET}")), Ok("a:b".to_owned()));
    assert_eq!(ask(&[], ""), refused(true));
    assert_eq!(ask(&[], "client_id=a:b"), refused(true));
    assert_eq!(ask(&[], &format!("client_id=a&client_secret={SECRET}")), refused(false));
    assert_eq!(ask(&[], "client_id=a:b&client_secret=x"), refused(false));
    for bad in [
        "Basic",
        "Basic ",
        "Basic !",
        "Bearer x",
        &basic_of("a:b"),
        &basic_of("a%3Ab:"),
        &basic_of(":"),
        &basic_of(&format!("a%3Ab:{SECRET}x")),
    ] {
        assert_eq!(ask(&[bad], ""), refused(true), "{bad}");
    }
    assert!(matches!(ask(&[&good], "client_secret=x"), Err(OAuthError::InvalidRequest(_))));
    assert!(matches!(ask(&[&good], "client_id=other"), Err(OAuthError::InvalidRequest(_))));
    assert!(matches!(ask(&[&good, &good], ""), Err(OAuthError::InvalidRequest(_))));
}
