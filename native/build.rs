//! How the module is linked.

fn main() {
    // Never unloaded: our thread and thread-local values outlive any configuration, and Envoy may unload on a worker.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
