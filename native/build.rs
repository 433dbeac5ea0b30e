//! How the module is linked.

fn main() {
    // Never unloaded: a thread of ours and thread-local values outlive any one configuration, and Envoy may unload on a
    // worker.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
