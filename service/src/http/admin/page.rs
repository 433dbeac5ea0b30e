//! The operator's page: static files that call the admin API, and headers that bound what a browser does with any answer of
//! this listener.
//!
//! ```text
//! GET /operator/          the page
//! GET /operator/{file}    its script modules and its style, by the names in `FILES`
//! ```
//! The files contain no data, so they are served to anybody. Everything that the page shows comes from the guarded API.
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Name, media type, content.
const FILES: [(&str, &str, &str); 9] = [
    ("", HTML, include_str!("page/index.html")),
    ("page.css", STYLE, include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("users.js", SCRIPT, include_str!("page/users.js")),
    ("revocations.js", SCRIPT, include_str!("page/revocations.js")),
    ("audit.js", SCRIPT, include_str!("page/audit.js")),
    ("health.js", SCRIPT, include_str!("page/health.js")),
];

/// Files of this origin only, no inline script or style, no form that the browser submits, no frame around it. With Trusted
/// Types no text becomes markup, whatever a script of the page does.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// On every answer of the listener, the API's too: `script-src 'self'` trusts this origin, so none of its answers may be taken
/// for a script.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub fn routes() -> Router {
    Router::new()
        // Relative, so that it works below a path of a proxy too.
        .route("/operator", get(async || Redirect::permanent("operator/")))
        .route("/operator/", get(async || file("")))
        .route("/operator/{file}", get(async |Path(name): Path<String>| file(&name)))
}

/// One of the files above; no name reaches a file system.
fn file(name: &str) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, media_type, content)) => ([(header::CONTENT_TYPE, *media_type)], *content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Middleware of the whole listener while the page is on.
pub async fn harden(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
