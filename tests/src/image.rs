//! The OCI images of `make image`, read as their users read them.
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Unpacks the last layer of an image layout into a directory, and returns the digest of its manifest. Each blob has the
/// digest that names it, and the layer has the one media type that Istio's agent accepts.
///
/// # Panics
/// One of these is not so.
pub fn unpack(layout: &Path, into: &Path) -> String {
    let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        let path = layout.join("blobs/sha256").join(digest);
        assert_eq!(sha256(&path), digest);
        (read(path.clone()), digest.to_owned(), path)
    };
    let index: Value = serde_json::from_slice(&read(layout.join("index.json"))).expect("an index");
    let (manifest, digest, _) = blob(&index["manifests"][0]);
    let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
    let layer = manifest["layers"].as_array().and_then(|layers| layers.last()).expect("a layer");
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let (_, _, layer) = blob(layer);
    let tar = Command::new("tar").arg("-xzf").arg(layer).arg("-C").arg(into).status();
    assert!(tar.expect("tar runs").success());
    digest
}

/// # Panics
/// The file cannot be read.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}
