//! Rewrites the exports of the filter's module, so that the host calls our callbacks and nothing else.
//!
//! The SDK exports a dispatcher for every callback of the ABI (`proxy_on_tick`, `proxy_on_log`, …), and the host calls
//! every callback that it finds. Ours replace them, but two symbols of one name do not link, so ours are exported as
//! `portcullis_on_…` and get their real names here. Code that only the SDK's dispatchers used is removed.
use anyhow::{Context, bail, ensure};
use walrus::{ExportItem, FunctionBuilder, FunctionKind, Module, ModuleConfig, ValType};

const OURS: &str = "portcullis_";
const HOST: &str = "proxy_";

/// Parts of the names, in both manglings, of the functions of the standard library that print a frame of a backtrace and
/// demangle its name. There never is a frame: this target cannot walk its stack. But the compiler cannot know.
const PRINTS_FRAMES: [&str; 5] = [
    "17BacktraceFrameFmt",
    "9symbolizeNtB5_10SymbolName",
    "9backtrace15output_filename",
    "14rustc_demangle2v0",
    "14rustc_demangle13DemangleStyle",
];

/// What the host needs of any module, besides callbacks.
const KEPT: [&str; 4] = ["memory", "_initialize", "proxy_abi_version_0_2_1", "proxy_on_memory_allocate"];

/// Without these the module would load and let requests pass unchecked, or unconfigured.
const NEEDED: [&str; 2] = ["on_configure", "on_request_headers"];

/// The callbacks of ABI 0.2.1. The host silently ignores any other name, so a misspelt one would never be called.
const CALLBACKS: [&str; 27] = [
    "on_vm_start",
    "on_configure",
    "on_tick",
    "on_queue_ready",
    "on_context_create",
    "on_done",
    "on_log",
    "on_delete",
    "on_new_connection",
    "on_downstream_data",
    "on_downstream_connection_close",
    "on_upstream_data",
    "on_upstream_connection_close",
    "on_request_headers",
    "on_request_body",
    "on_request_trailers",
    "on_request_metadata",
    "on_response_headers",
    "on_response_body",
    "on_response_trailers",
    "on_response_metadata",
    "on_http_call_response",
    "on_grpc_receive_initial_metadata",
    "on_grpc_receive",
    "on_grpc_receive_trailing_metadata",
    "on_grpc_close",
    "on_foreign_function",
];

/// The same input gives the same bytes. `names` keeps the name section, for profilers and traces.
///
/// # Errors
/// Not a module, or its exports are not those of the filter's build: then the build and this list disagree.
pub fn rewrite(wasm: &[u8], names: bool) -> anyhow::Result<Vec<u8>> {
    let mut module = ModuleConfig::new()
        .generate_name_section(names)
        .generate_producers_section(false)
        .generate_dwarf(false)
        .parse(wasm)
        .context("not a Wasm module")?;

    for name in KEPT {
        ensure!(module.exports.iter().any(|export| export.name == name), "`{name}` is not exported");
    }
    for name in NEEDED {
        let name = format!("{OURS}{name}");
        ensure!(module.exports.iter().any(|export| export.name == name), "`{name}` is not exported");
    }

    let exports: Vec<_> = module.exports.iter().map(|export| (export.id(), export.name.clone(), export.item)).collect();
    for (id, name, item) in &exports {
        if let Some(callback) = name.strip_prefix(OURS) {
            ensure!(CALLBACKS.contains(&callback), "`{name}`: the ABI has no callback `{callback}`");
            let host_name = format!("{HOST}{callback}");
            same_type_as_the_sdk(&module, *item, exports.iter().find(|export| export.1 == host_name).map(|e| e.2))
                .with_context(|| format!("`{name}`"))?;
            module.exports.get_mut(*id).name = host_name;
        } else if !KEPT.contains(&name.as_str()) {
            module.exports.delete(*id);
        }
    }

    drop_printing_of_frames(&mut module);
    let sections: Vec<_> = module.customs.iter().map(|(id, _)| id).collect();
    for section in sections {
        module.customs.delete(section);
    }
    walrus::passes::gc::run(&mut module);
    Ok(module.emit_wasm())
}

/// Replaces the functions that print frames by some that do nothing and succeed. They are in the table of functions that
/// are called by pointer, so none counts as unused. With a standard library that has other names, only the size differs.
fn drop_printing_of_frames(module: &mut Module) {
    let functions = module.funcs.iter_local().map(|(id, _)| id).filter(|id| {
        let name = module.funcs.get(*id).name.as_deref().unwrap_or_default();
        PRINTS_FRAMES.iter().any(|part| name.contains(part))
    });
    for id in functions.collect::<Vec<_>>() {
        let ty = module.funcs.get(id).ty();
        let (params, results) = (module.types.params(ty).to_vec(), module.types.results(ty).to_vec());
        if !results.iter().all(|result| *result == ValType::I32) {
            continue;
        }
        let arguments = params.iter().map(|param| module.locals.add(*param)).collect();
        let mut body = FunctionBuilder::new(&mut module.types, &params, &results);
        for _ in results {
            body.func_body().i32_const(0);
        }
        module.funcs.get_mut(id).kind = FunctionKind::Local(body.local_func(arguments));
    }
}

/// The host would refuse a callback of another type only when it loads the module; here the build fails.
fn same_type_as_the_sdk(module: &Module, ours: ExportItem, sdk: Option<ExportItem>) -> anyhow::Result<()> {
    let ExportItem::Function(ours) = ours else { bail!("not a function") };
    let Some(ExportItem::Function(sdk)) = sdk else { return Ok(()) };
    let type_of = |function| {
        let function_type = module.types.get(module.funcs.get(function).ty());
        (function_type.params().to_vec(), function_type.results().to_vec())
    };
    ensure!(
        type_of(ours) == type_of(sdk),
        "its type is {:?}, and the SDK's callback has {:?}",
        type_of(ours),
        type_of(sdk)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with the usual exports, each line of `more` added to it.
    fn module(more: &str) -> Vec<u8> {
        wat::parse_str(module_text(more)).unwrap()
    }

    fn module_text(more: &str) -> String {
        format!(
            r#"(module
                (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
                (import "env" "proxy_done" (func $sdk_only (result i32)))
                (memory (export "memory") 1)
                (global $g (export "__heap_base") i32 (i32.const 1024))
                (func $dispatch (result i32) call $sdk_only)
                (func (export "_initialize"))
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0)
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) call $dispatch)
                (func (export "proxy_on_tick") (param i32) call $dispatch drop)
                (func (export "portcullis_on_configure") (param i32 i32) (result i32) i32.const 1)
                {more})"#
        )
    }

    const HEADERS: &str = r#"(func $ours (export "portcullis_on_request_headers") (param i32 i32 i32) (result i32)
        i32.const 2 i32.const 0 i32.const 0 call $log)"#;

    fn exports(wasm: &[u8]) -> Vec<String> {
        let mut names: Vec<_> =
            Module::from_buffer(wasm).unwrap().exports.iter().map(|export| export.name.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn leaves_our_callbacks_under_the_hosts_names_and_drops_the_sdks() {
        let linked = rewrite(&module(HEADERS), false).unwrap();
        assert_eq!(
            exports(&linked),
            [
                "_initialize",
                "memory",
                "proxy_abi_version_0_2_1",
                "proxy_on_configure",
                "proxy_on_memory_allocate",
                "proxy_on_request_headers"
            ]
        );
        let linked = Module::from_buffer(&linked).unwrap();
        assert!(linked.imports.iter().any(|import| import.name == "proxy_log"));
        // Only the SDK's dispatcher used it.
        assert!(!linked.imports.iter().any(|import| import.name == "proxy_done"));
    }

    #[test]
    fn drops_what_prints_frames_of_backtraces() {
        let more = format!(
            r#"{HEADERS}
            (func $_RNvCs_17BacktraceFrameFmt21print_raw_with_column (param i32) (result i32) local.get 0 call $print)
            (func (export "portcullis_on_tick") (param i32)
                local.get 0 call $_RNvCs_17BacktraceFrameFmt21print_raw_with_column drop)"#
        );
        let import = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $print (param i32) (result i32)))"#;
        let wasm = wat::parse_str(module_text(&more).replacen("(module", import, 1)).unwrap();
        let linked = Module::from_buffer(&rewrite(&wasm, false).unwrap()).unwrap();
        assert!(!linked.imports.iter().any(|import| import.name == "fd_write"));
        assert!(linked.exports.iter().any(|export| export.name == "proxy_on_tick"));
    }

    #[test]
    fn says_which_export_is_missing() {
        let error = rewrite(&module(""), false).unwrap_err().to_string();
        assert_eq!(error, "`portcullis_on_request_headers` is not exported");
    }

    #[test]
    fn refuses_a_callback_that_the_host_would_never_call() {
        let misspelt = format!(r#"{HEADERS} (func (export "portcullis_on_reqest_body"))"#);
        let error = rewrite(&module(&misspelt), false).unwrap_err().to_string();
        assert!(error.contains("`portcullis_on_reqest_body`"), "{error}");
    }

    #[test]
    fn refuses_a_callback_of_another_type_than_the_sdks() {
        let other = r#"(func (export "portcullis_on_request_headers") (param i32 i32) (result i32) i32.const 0)"#;
        let error = format!("{:#}", rewrite(&module(other), false).unwrap_err());
        assert!(error.contains("`portcullis_on_request_headers`") && error.contains("I32"), "{error}");
    }

    #[test]
    fn keeps_names_only_when_asked_and_is_deterministic() {
        let built = module(HEADERS);
        let plain = rewrite(&built, false).unwrap();
        assert_eq!(plain, rewrite(&built, false).unwrap());
        let named = rewrite(&built, true).unwrap();
        let has_names = |wasm: &[u8]| Module::from_buffer(wasm).unwrap().funcs.by_name("ours").is_some();
        assert!(has_names(&named) && !has_names(&plain));
    }
}
