//! The API's description (OpenAPI 3.1), generated from the handlers' annotations.
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi};

use crate::http::{admin, check, feed, health, join, oauth2, provider_events, sightings, status_list};

/// The admin listener's, as JSON.
pub fn admin_document() -> String {
    document(admin::api())
}

/// The data listener's, as JSON.
pub fn data_document() -> String {
    document(data_api())
}

fn data_api() -> OpenApi {
    let mut api = check::routes().into_openapi();
    for part in [
        feed::routes().into_openapi(),
        join::routes().into_openapi(),
        sightings::routes().into_openapi(),
        oauth2::routes().into_openapi(),
        oauth2::key_routes().into_openapi(),
        status_list::routes().into_openapi(),
        provider_events::all_routes().into_openapi(),
        health::probes().into_openapi(),
    ] {
        api.merge(part);
    }
    api
}

fn document(mut api: OpenApi) -> String {
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
    // Named by their routes: two handlers may have one name.
    for (path, item) in &mut api.paths.paths {
        for (method, operation) in
            [("get", &mut item.get), ("post", &mut item.post), ("put", &mut item.put), ("delete", &mut item.delete)]
        {
            if let Some(operation) = operation {
                let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
                operation.operation_id = Some([method].into_iter().chain(words).collect::<Vec<_>>().join("_"));
            }
        }
    }
    api.to_pretty_json().unwrap_or_default()
}
