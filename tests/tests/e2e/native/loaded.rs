//! How the module reaches Envoy, and what Envoy does without it: docs/hosts.md and docs/envoy-gateway.md say so.
use super::*;

const FILTER: &str = "- name: portcullis\n";
const ROUTER: &str = "- name: envoy.filters.http.router\n";
const MODULE: &str = "dynamic_module_config:\n";
const ROUTES: &str = "- match: { prefix: / }\n                          route: { cluster: upstream, timeout: 15s }\n";
const SOON: Duration = Duration::from_secs(20);

fn from_file(edit: fn(String) -> String) -> MeshOptions {
    MeshOptions { listener_from_file: true, edit, ..native() }
}

/// Waits until Envoy has refused an update of its listener.
async fn refused(mesh: &Mesh) -> bool {
    wait_until(SOON, async || mesh.envoy.stat("listener_manager.lds.update_rejected").await > 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_has_this_build_and_copies_it_to_where_envoy_looks() {
    let directory = harness::Directory::new("native-image");
    let modules = FilterHost::native_modules();
    image::unpack(&modules.join("module-image"), directory.path());
    let build = image::sha256(&modules.join("libportcullis.so"));
    assert_eq!(image::sha256(&directory.path().join("libportcullis.so")), build, "run `make image HOST=native`");
    let into = directory.path().join("modules");
    std::fs::create_dir(&into).expect("a directory");
    // As a container with nothing else in it: no loader, no library, no environment.
    let mut install = Command::new(directory.path().join("install"));
    let output = install.arg(&into).env_clear().output().expect("the program of the image runs here");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut options = native();
    options.environment.push(("ENVOY_DYNAMIC_MODULES_SEARCH_PATH".into(), into.display().to_string()));
    let mesh = Mesh::start_with("native-image-envoy", options).await;
    assert_eq!((mesh.get(&mesh.token()).await.status, mesh.get("garbage").await.status), (200, 401));
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_does_not_start_without_the_module() {
    let options = MeshOptions {
        edit: |bootstrap| {
            let (before, after) = bootstrap.split_once(MODULE).expect("the module's configuration");
            format!("{before}{MODULE}{}", after.replacen("name: portcullis\n", "name: absent\n", 1))
        },
        ..native()
    };
    let log = Mesh::try_start("native-absent", options).await.err().expect("Envoy does not start");
    assert!(log.contains("Failed to load dynamic module"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_the_filter_goes_on_without_it_while_the_module_is_missing() {
    let options = from_file(|bootstrap| {
        let (before, rest) = bootstrap.split_once(FILTER).expect("the filter");
        let (_, router) = rest.split_once(ROUTER).expect("the router");
        format!("{before}{ROUTER}{router}")
    });
    let mesh = Mesh::start_with("native-late", options).await;
    assert_eq!(mesh.get("garbage").await.status, 200);
    let kind = "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";
    let filter = json!({ "name": "portcullis", "typed_config": {
        "@type": kind, "filter_name": "portcullis", "dynamic_module_config": { "name": "absent" } } });
    let indent = " ".repeat(18);
    mesh.envoy.update_listener(ROUTER, &format!("- {filter}\n{indent}{ROUTER}"));
    assert!(refused(&mesh).await);
    assert_eq!(mesh.get("garbage").await.status, 200, "requests pass unchecked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_the_filter_keeps_it_while_the_new_module_is_missing() {
    let mesh = Mesh::start_with("native-kept", from_file(|bootstrap| bootstrap)).await;
    assert_eq!(mesh.get("garbage").await.status, 401);
    mesh.envoy.update_listener("                        name: portcullis\n", "                        name: absent\n");
    assert!(refused(&mesh).await);
    assert_eq!((mesh.get(&mesh.token()).await.status, mesh.get("garbage").await.status), (200, 401));
}

/// As Envoy Gateway does: the filter is off, and each route with a policy enables it.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_off_checks_the_routes_that_enable_it_and_no_others() {
    let options = MeshOptions {
        edit: |bootstrap| {
            let on = json!({ "portcullis": {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {} } });
            let indent = " ".repeat(26);
            assert!(bootstrap.contains(ROUTES), "envoy-native.yaml has other routes");
            let checked = format!("{ROUTES}{indent}typed_per_filter_config: {on}\n");
            let others = ROUTES.replacen("prefix: /", "path: /unchecked", 1);
            let off = format!("{FILTER}{}disabled: true\n", " ".repeat(20));
            bootstrap.replacen(ROUTES, &format!("{others}{}{checked}", " ".repeat(24)), 1).replacen(FILTER, &off, 1)
        },
        ..native()
    };
    let mesh = Mesh::start_with("native-per-route", options).await;
    assert_eq!((mesh.get(&mesh.token()).await.status, mesh.get("garbage").await.status), (200, 401));
    assert_eq!(mesh.send(&Request::get("/unchecked").bearer("garbage")).await.status, 200);
}
