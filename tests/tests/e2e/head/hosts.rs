//! Hosts: the judged one, the routed one and the forwarded one are the same.
use super::*;

/// As [`two_virtual_hosts`], in an Envoy that leaves the host as the client wrote it.
fn without_stripping(bootstrap: String) -> String {
    let stripped = ["strip_any_host_port: true", "strip_trailing_host_dot: true"];
    assert!(stripped.iter().all(|line| bootstrap.contains(line)), "the shipped bootstrap strips ports and dots");
    two_virtual_hosts(stripped.iter().fold(bootstrap, |bootstrap, line| bootstrap.replace(line, "")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_was_judged_is_the_one_that_is_routed_and_forwarded() {
    for (edit, strips) in [(two_virtual_hosts as fn(String) -> String, true), (without_stripping, false)] {
        let mesh = Mesh::start_with("hosts", MeshOptions { edit, ..options() }).await;
        for host in [
            "public.example.com",
            "PUBLIC.Example.com",
            "public.example.com:1234",
            "public.example.com:80",
            "public.example.com:",
            "public.example.com.",
            "public.example.com.:443",
            "Public.Example.Com.:65535",
        ] {
            let request = Request::get("/x").header("host", host);
            let mut seen = vec![mesh.send(&request).await];
            // The absolute form wins over the Host header (RFC 9112 section 3.2.2).
            let absolute = format!("GET http://{host}/x HTTP/1.1\r\nhost: other.example.com\r\n\r\n");
            let mut connection = Connection::open(mesh.envoy.address()).await.unwrap();
            seen.push(connection.send_bytes(absolute.as_bytes(), false).await.unwrap());
            seen.extend(over_h2(&mesh, &request).await);
            assert!(seen.len() == 3 || host.ends_with(':'), "{host}: not sent over HTTP/2");
            for response in seen {
                // Envoy itself refuses an empty port in the absolute form.
                if host.ends_with(':') && response.status == 400 {
                    continue;
                }
                assert_eq!(response.status, 200, "{host}: {}", response.text());
                assert_eq!(response.upstream_saw("x-routed-by"), ["public"], "{host}");
                assert_eq!(response.upstream_saw("host"), ["public.example.com"], "{host}");
            }
        }
        let request = Request::get("/x").header("host", "[0:0::1]:8080");
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.upstream_saw("x-routed-by"), ["public"], "{}", response.text());
            assert_eq!(response.upstream_saw("host"), ["[::1]"]);
        }
        for host in [
            "user@public.example.com",
            "public.example.com@other.example.com",
            "public.example.com:65536",
            "public.example.com:0x50",
            "public.example.com:80:80",
            "public..example.com",
            ".public.example.com",
            "public.example.com..",
            "public.example.com%2e",
            "public.example.com\\",
            "public.example.com,other.example.com",
            "public.example.com other.example.com",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.01:80",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "",
        ] {
            let request = Request::get("/x").header("host", host);
            let mut seen = vec![mesh.send(&request).await];
            seen.extend(over_h2(&mesh, &request).await);
            for response in seen {
                // Where Envoy strips everything after the colon, only one reading is left.
                let one_reading = response.upstream_saw("x-routed-by") == ["public"]
                    && response.upstream_saw("host") == ["public.example.com"];
                assert!(response.status == 400 || (strips && one_reading), "{host:?}: {}", response.text());
            }
        }
    }
}

/// The cluster sends each request to the address that its header names.
fn original_destination(bootstrap: String) -> String {
    let edited = two_virtual_hosts(bootstrap);
    let start = edited.find("    - name: upstream\n      type: STRICT_DNS\n").expect("the upstream's cluster");
    let end = edited.find("    - name: session_service\n").expect("the service's cluster");
    assert!(start < end);
    let cluster = "    - name: upstream\n      type: ORIGINAL_DST\n      lb_policy: CLUSTER_PROVIDED\n      \
                   connect_timeout: 1s\n      original_dst_lb_config: { use_http_header: true }\n";
    format!("{}{cluster}{}", &edited[..start], &edited[end..])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_choose_the_upstream() {
    for (kept, status) in [(json!([]), 503), (json!(["X-Envoy-Original-Dst-Host"]), 200)] {
        let mut options = MeshOptions { edit: original_destination, ..options() };
        options.filter["keep_override_headers"] = kept;
        let mesh = Mesh::start_with("original-dst", options).await;
        let request = Request::get("/x")
            .header("host", "public.example.com")
            .header("x-envoy-original-dst-host", mesh.upstream.address().to_string());
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.status, status, "{}", response.text());
        }
        assert_eq!(mesh.upstream.requests() > 0, status == 200);
    }
}
