//! The client's address in the logs, behind proxies: only those that the configuration trusts are believed.

use crate::fixture::*;

/// What the access log says of the last of so many requests.
async fn remote(gateway: &Gateway, count: usize) -> String {
    gateway.wait_for_access(count).await[count - 1]["remote"].as_str().unwrap().to_string()
}

#[test]
fn x_forwarded_for_of_a_trusted_proxy_is_believed() {
    run(async {
        let a = Misbehaving::start().await;
        for (trusted, expected) in
            [("[127.0.0.0/8]", "198.51.100.7"), ("[10.0.0.0/8]", "127.0.0.1"), ("[]", "127.0.0.1")]
        {
            let gateway = Gateway::over(&[&a]).set_yaml("TrustedProxies", trusted).start().await;
            let headers = [("X-Forwarded-For", "203.0.113.9, 198.51.100.7, 127.0.0.2")];
            gateway.request("PUT", "/bucket/key", &headers, b"hello").await;
            assert_eq!(remote(&gateway, 1).await, expected, "{trusted}");
            // It is the client's header, and goes on as any other.
            assert_eq!(a.requests().last().unwrap().header("x-forwarded-for"), Some(headers[0].1));
        }
    });
}

#[test]
fn a_proxy_header_tells_the_client_of_all_requests_of_a_connection() {
    run(async {
        let a = Misbehaving::start().await;
        let setup = Gateway::over(&[&a]).set_yaml("TrustedProxies", "[127.0.0.1]").set("ProxyProtocol", true);
        let gateway = setup.start().await;
        let v1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 80\r\n".to_vec();
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x7f\0\0\x01\xdc\x04\0\x50".to_vec();
        let mut count = 0;
        for (header, address) in [(v1, "192.0.2.7"), (v2, "192.0.2.8")] {
            for pieces in [header.len(), 1] {
                let mut client = gateway.client().await;
                for piece in header.chunks(pieces) {
                    client.send(piece).await;
                }
                for _ in 0..2 {
                    assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.status, 404);
                    count += 1;
                    assert_eq!(remote(&gateway, count).await, address);
                }
                // A client that is not trusted has no word on its own address.
                let headers = [("X-Forwarded-For", "203.0.113.9")];
                client.request("GET", "/bucket/key", &headers, b"").await;
                client.send(b"GET / HTTP/7\r\n").await;
                assert_eq!(client.reply("GET").await.status, 400);
                count += 2;
                assert_eq!(remote(&gateway, count - 1).await, address);
                assert_eq!(remote(&gateway, count).await, address);
            }
        }
        // The proxy's own health check.
        let mut client = gateway.client().await;
        client.send(b"PROXY UNKNOWN\r\n").await;
        assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.status, 404);
        assert_eq!(remote(&gateway, count + 1).await, "127.0.0.1");
    });
}

#[test]
fn connections_without_a_proxy_header_or_of_somebody_else_are_refused() {
    run(async {
        let a = Misbehaving::start().await;
        for (trusted, first) in [
            ("[127.0.0.1]", "GET /bucket/key HTTP/1.1\r\nHost: h\r\n\r\n"),
            ("[127.0.0.1]", "PROXY TCP4 192.0.2.7 127.0.0.1 nothing 80\r\n"),
            ("[10.0.0.0/8]", "PROXY TCP4 192.0.2.7 127.0.0.1 56324 80\r\n"),
        ] {
            let setup = Gateway::over(&[&a]).set_yaml("TrustedProxies", trusted).set("ProxyProtocol", true);
            let mut gateway = setup.start().await;
            let mut client = gateway.client().await;
            client.try_send(first.as_bytes()).await;
            assert!(client.reply_or_end("GET").await.is_none(), "{trusted} {first}");
            gateway.wait_for_log("refused a connection").await;
            assert!(gateway.stop().await.access.is_empty());
        }
        assert!(a.requests().is_empty());
    });
}
