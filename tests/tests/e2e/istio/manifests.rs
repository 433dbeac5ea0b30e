//! The manifests that kustomize builds from the overlays.
use super::*;

#[test]
fn every_overlay_gives_the_same_filter_to_another_place() {
    let gateway = &GATEWAY["spec"];
    for (overlay, place) in [("gateway", "targetRefs"), ("sidecar", "selector"), ("waypoint", "targetRefs")] {
        let plugin = plugin(overlay);
        let extension = self::plugin(&format!("{overlay}-traffic-extension"));
        assert_eq!((&plugin["kind"], &extension["kind"]), (&json!("WasmPlugin"), &json!("TrafficExtension")));
        assert!(!plugin["spec"][place].is_null(), "{overlay} has no {place}");
        let namespace = if overlay == "gateway" { "ingress" } else { "shop" };
        for one in [&plugin, &extension] {
            assert_eq!(one["metadata"]["namespace"], namespace, "{overlay}");
        }
        for field in ["pluginConfig", "pluginName", "imagePullPolicy", "vmConfig", "sha256", "url", "failStrategy"] {
            assert!(!gateway[field].is_null(), "{field}");
            assert_eq!(plugin["spec"][field], gateway[field], "{overlay}: {field}");
            assert_eq!(extension["spec"]["wasm"][field], gateway[field], "{overlay}-traffic-extension: {field}");
        }
        assert_eq!(plugin["spec"]["phase"], gateway["phase"], "{overlay}");
        for field in ["phase", "selector", "targetRefs", "match"] {
            assert_eq!(extension["spec"][field], plugin["spec"][field], "{overlay}-traffic-extension: {field}");
        }
    }
}
