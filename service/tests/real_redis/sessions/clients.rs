//! Clients at the OAuth endpoints.
use super::*;

#[test]
fn a_client_revokes_by_either_token_and_nonsense_is_no_error() {
    let stack = stack();
    for name in ["access_token", "refresh_token"] {
        let made = stack.create_refreshable();
        let (status, body) = stack.as_client(
            "app",
            SECRET,
            "/oauth2/revoke",
            &[("token", text(&made, name)), ("token_type_hint", "nonsense")],
        );
        assert_eq!((status, body.as_str()), (200, Some("")), "{name}");
        assert!(!stack.is_active(text(&made, "access_token")) && stack.dead_for_filters(text(&made, "sid")), "{name}");
        assert_eq!(stack.refresh(text(&made, "refresh_token")).0, 400);
        assert_eq!(stack.as_client("app", SECRET, "/oauth2/revoke", &[("token", text(&made, name))]).0, 200);
    }
    assert_eq!(stack.as_client("app", SECRET, "/oauth2/revoke", &[("token", "nonsense")]).0, 200);
    assert_eq!(text(&stack.audited("session.end"), "by"), "client:app");
}

#[test]
fn the_endpoints_want_a_known_client_a_form_and_each_parameter_once() {
    let stack = stack();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let credentials = format!("client_id=app&client_secret={SECRET}");
    let with = |rest: &str| format!("{credentials}&{rest}");
    for path in ["/oauth2/introspect", "/oauth2/revoke", "/oauth2/token"] {
        for (expected, headers, body) in [
            ((401, "invalid_client"), vec![form], "token=x".to_owned()),
            ((401, "invalid_client"), vec![form], "client_id=app&client_secret=wrong&token=x".to_owned()),
            ((401, "invalid_client"), vec![form], format!("client_id=nobody&client_secret={SECRET}&token=x")),
            ((401, "invalid_client"), vec![form], format!("client_id=other&client_secret={SECRET}&token=x")),
            ((401, "invalid_client"), vec![form, ("authorization", "Basic YXBwOndyb25n")], "token=x".to_owned()),
            ((401, "invalid_client"), vec![form, ("authorization", "Bearer x")], "token=x".to_owned()),
            ((400, "invalid_request"), vec![form, ("authorization", "Basic YXBwOndyb25n")], with("token=x")),
            ((400, "invalid_request"), vec![("content-type", "application/json")], with("token=x")),
            ((400, "invalid_request"), vec![], with("token=x")),
            ((400, "invalid_request"), vec![form], with("token=x&token=y")),
            ((406, "invalid_request"), vec![form, ("accept", "text/html")], with("token=x")),
            ((400, "invalid_request"), vec![form], with("")),
        ] {
            let (status, problem) = stack.post(path, &headers, &body);
            assert_eq!((status, text(&problem, "error")), expected, "{path} {headers:?} {body}");
        }
        let (status, _, headers) = stack.service.post(path, &[form], "token=x");
        assert_eq!(status, 401);
        assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(stack.service.get(path).0, 405);
        // It is refused before all of it is sent: who is still sending may see no more than a closed connection.
        let status = stack.service.post_status(path, &[form], &"x".repeat(300_000));
        assert!(matches!(status, None | Some(413)), "{status:?}");
        let (_, problem) = stack.as_client("mute", SECRET, path, &[("token", "x"), ("grant_type", "refresh_token")]);
        assert_eq!(text(&problem, "error"), "unauthorized_client");
    }
    let grant = [("grant_type", "password")];
    let (_, problem) = stack.as_client("app", SECRET, "/oauth2/token", &grant);
    assert_eq!(text(&problem, "error"), "unsupported_grant_type");
}

#[test]
fn a_client_may_authenticate_by_basic_and_its_new_secret_is_known_soon() {
    use base64::Engine as _;
    let stack = stack();
    let basic = |secret: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("gateway:{secret}"));
        let authorization = format!("Basic {pair}");
        let headers =
            [("content-type", "application/x-www-form-urlencoded"), ("authorization", authorization.as_str())];
        stack.post("/oauth2/introspect", &headers, "token=x").0
    };
    assert_eq!(basic(SECRET), 200);
    std::fs::write(stack.dir.path().join("app"), OTHER_SECRET).unwrap();
    eventually(SOON, || (basic(OTHER_SECRET) == 200).then_some(()));
    assert_eq!(basic(SECRET), 401);
    // A file that is broken for a moment changes nothing.
    std::fs::write(stack.dir.path().join("clients.json"), "{").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(basic(OTHER_SECRET), 200);
}
