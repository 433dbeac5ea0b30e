//! The API's description (OpenAPI 3.1), made from the handlers' own annotations.
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi};

use crate::{admin, server};

/// The admin listener's, as JSON.
pub fn admin_document() -> String {
    document(admin::api())
}

/// The data listener's, as JSON.
pub fn data_document() -> String {
    document(server::data_api())
}

pub fn document(mut api: OpenApi) -> String {
    api.info = InfoBuilder::new()
        .title("Portcullis")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Sessions and revocations. Errors are problem documents (RFC 9457); those of /oauth2 are as in RFC 6749.",
        ))
        .build();
    let components = api.components.get_or_insert_default();
    let http = |scheme| SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
    components.add_security_scheme("bearer", http(HttpAuthScheme::Bearer));
    components.add_security_scheme("client", http(HttpAuthScheme::Basic));
    components.add_security_scheme("certificate", SecurityScheme::MutualTls { description: None, extensions: None });
    // Tags are named by the routes alone.
    api.tags = None;
    api.to_pretty_json().unwrap_or_default()
}
