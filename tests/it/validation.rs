//! What the technical endpoint says of configurations, and which requests it takes for none.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    fixture::*,
    technical::{VALIDATE, YAML, validate, with_endpoint},
};

#[test]
fn good_configurations_are_ok() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in ["conf/akubra.yaml", "conf/dev.yaml", "conf/examples/two-sites.yaml"] {
            let reply = validate(technical, &std::fs::read_to_string(root.join(file)).unwrap()).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "Configuration checked - OK."), "{file}");
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        }
        let reply =
            validate(technical, &std::fs::read_to_string(root.join("tests/data/seed.yaml")).unwrap()).await;
        let text = reply.text();
        let (first, rest) = text.split_once('\n').unwrap();
        assert_eq!((reply.status, first), (200, "Configuration checked - OK."));
        assert!(rest.lines().all(|line| line.starts_with("warning: ")), "{text}");
    });
}

#[test]
fn all_that_is_wrong_comes_at_once() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let reply =
            validate(technical, "Listen: here\nDialTimeout: 5\nFoo: 1\nClusters: {c: {Backends: [x]}}\n")
                .await;
        let text = reply.text();
        assert_eq!((reply.status, reply.header("content-type")), (400, Some("text/plain; charset=utf-8")));
        for what in [
            "line 1: Listen: ",
            "line 2: DialTimeout: ",
            "line 3: Foo: unknown key",
            "line 4: Clusters.c.Backends[0]: ",
            "Regions: missing",
        ] {
            assert!(text.lines().any(|line| line.contains(what)), "no {what} in {text}");
        }
        for (body, what) in
            [(b"".as_slice(), "empty"), (b"a: [", "not valid YAML"), (b"a: 1\nb: \xff", "line 2: not UTF-8")]
        {
            let reply = request(technical, "POST", VALIDATE, &[YAML], body).await;
            assert_eq!(reply.status, 400);
            assert!(reply.text().contains(what), "{}", reply.text());
        }
    });
}

#[test]
fn what_is_no_configuration_is_refused_by_its_head() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let yaml = "Content-Type";
        for (method, target, headers, status) in [
            ("POST", VALIDATE, vec![(yaml, "application/yaml; charset=utf-8")], 400),
            ("POST", VALIDATE, vec![(yaml, "APPLICATION/YAML")], 400),
            ("POST", VALIDATE, vec![(yaml, "text/yaml")], 415),
            ("POST", VALIDATE, vec![(yaml, "application/json")], 415),
            ("POST", VALIDATE, vec![(yaml, "application/yaml; charset=utf-16")], 415),
            ("POST", VALIDATE, vec![YAML, ("Content-Encoding", "gzip")], 415),
            ("POST", VALIDATE, vec![], 400),
            ("POST", VALIDATE, vec![YAML, YAML], 400),
            ("GET", VALIDATE, vec![], 405),
            ("PUT", VALIDATE, vec![YAML], 405),
            ("OPTIONS", VALIDATE, vec![], 405),
            ("POST", "/", vec![YAML], 404),
            ("POST", "/configuration/validate/", vec![YAML], 404),
            ("GET", "/metrics", vec![], 404),
        ] {
            let reply = request(technical, method, target, &headers, b"Listen: here").await;
            assert_eq!(reply.status, status, "{method} {target} {headers:?}: {}", reply.text());
            assert!(reply.complete && !reply.body.is_empty());
            assert_eq!(reply.header("allow"), (status == 405).then_some("POST"));
            if status == 404 {
                let routes: Vec<_> = reply.text().lines().skip(1).map(str::to_owned).collect();
                let there_is = [
                    "POST /configuration/validate",
                    "POST /maintenance",
                    "GET /status/ping",
                    "GET /status",
                    "GET /status.json",
                    "GET /status/events",
                    "GET /maintenance",
                ];
                assert_eq!(routes, there_is);
            }
        }
        // A query is no other path.
        assert_eq!(
            request(technical, "POST", "/configuration/validate?x=y", &[YAML], b"x").await.status,
            400
        );
    });
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        for length in ["262145", "99999999999999999999999999"] {
            let mut client = Client::connect(technical).await;
            client
                .head("POST", VALIDATE, &[YAML, ("Content-Length", length), ("Expect", "100-continue")])
                .await;
            let reply = client.reply("POST").await;
            assert!(matches!(reply.status, 413 | 400) && reply.interim.is_empty(), "{reply:?}");
            assert_eq!(reply.header("connection"), Some("close"));
        }
        // Of one that sends all the same, the answer is heard.
        let reply = validate(technical, &"#".repeat(1_000_000)).await;
        assert_eq!(reply.status, 413);
        // The largest that fits.
        assert_eq!(validate(technical, &"#".repeat(256 << 10)).await.status, 400);
    });
}

#[test]
fn a_chunked_body_is_counted() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let chunked = [YAML, ("Transfer-Encoding", "chunked")];
        let mut client = Client::connect(technical).await;
        client.head("POST", VALIDATE, &chunked).await;
        client.chunk(b"Foo: 1\n").await;
        client.chunk(b"Bar: 1\n").await;
        client.last_chunk().await;
        let reply = client.reply("POST").await;
        assert!(reply.status == 400 && reply.text().contains("line 2: Bar"), "{}", reply.text());

        let mut client = Client::connect(technical).await;
        client.head("POST", VALIDATE, &chunked).await;
        for _ in 0..5 {
            client.chunk(&[b'#'; 64 << 10]).await;
        }
        assert_eq!(client.reply("POST").await.status, 413);

        let mut client = Client::connect(technical).await;
        client.head("POST", VALIDATE, &chunked).await;
        client.send(b"what\r\nlength is this\r\n").await;
        assert_eq!(client.reply("POST").await.status, 400);
    });
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let mut client = Client::connect(technical).await;
        client.head("POST", VALIDATE, &[YAML, ("Content-Length", "6"), ("Expect", "100-continue")]).await;
        assert_eq!(client.read_head().await.unwrap().0, 100);
        client.send(b"Foo: 1").await;
        assert_eq!(client.reply("POST").await.status, 400);
    });
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let mut client = Client::connect(technical).await;
        client.head("POST", VALIDATE, &[YAML, ("Content-Length", "1000")]).await;
        // A byte now and then is no reason to wait longer.
        let trickle = async {
            while client.stays_silent(Duration::from_secs(1)).await {
                client.try_send(b"#").await;
            }
            client.reply("POST").await
        };
        assert_eq!(soon("the end of patience", trickle).await.status, 408);
    });
}

#[test]
fn nothing_of_the_environment_can_be_learned() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        // Every process has one, none has the other.
        let path = std::env::var("PATH").unwrap();
        for yaml in [
            "Listen: '${}'\n",
            "Listen: ':0'\nDialTimeout: '${}'\n",
            "Foo: ${}\n",
            "Logging: {Mainlog: {level: '${}'}}\n",
        ] {
            let mut answers = Vec::new();
            for name in ["PATH", "NONE"] {
                let reply = validate(technical, &yaml.replace("${}", &format!("${{{name}}}"))).await;
                assert!(!reply.text().contains(&path), "{}", reply.text());
                answers.push((reply.status, reply.text().replace(name, "NAME")));
            }
            assert_eq!(answers[0], answers[1]);
        }
        let good =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/dev.yaml")).unwrap();
        let text = validate(technical, &format!("{good}\nDialTimeout: ${{PATH}}\n")).await.text();
        assert!(
            text.starts_with("Configuration checked - OK.\nwarning: line ")
                && text.contains("DialTimeout: the environment"),
            "{text}"
        );
    });
}

#[test]
fn what_is_meant_to_exhaust_it_is_refused_at_once() {
    run(async {
        let (_backend, _gateway, technical) = with_endpoint().await;
        let bomb: String = (1..20).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |yaml, n| {
            let before = format!("*a{}, ", n - 1).repeat(9);
            format!("{yaml}a{n}: &a{n} [{}]\n", before.trim_end_matches(", "))
        });
        // As many lines as there is room for.
        let many = |head: &str, line: &dyn Fn(usize) -> String| {
            let mut yaml = head.to_owned();
            for line in (0..).map(line) {
                if yaml.len() + line.len() > 256 << 10 {
                    break;
                }
                yaml.push_str(&line);
            }
            yaml
        };
        // One backend, each time in other letters.
        let spelled = |n: usize| {
            let letter = |bit: usize| if n >> bit & 1 == 0 { 'a' } else { 'A' };
            format!("  - http://{}\n", (0..14).map(letter).collect::<String>())
        };
        for (yaml, what) in [
            (bomb, "anchors and aliases are not supported"),
            ("- ".repeat(100_000), "nested deeper"),
            ("[".repeat(200_000), "not valid YAML"),
            ("a: 1\n".repeat(50_000), "more errors"),
            (many("AdditionalRequestHeaders:\n", &|n| format!(" {n:x}: \n")), "Listen: missing"),
            (many("Clusters:\n", &|n| format!(" {n:x}:\n")), "more errors"),
            (many("MaintainedBackends:\n", &spelled), "Listen: missing"),
            (many("Clusters:\n a:\n  Backends:\n", &spelled), "already stands in this cluster"),
        ] {
            let start = Instant::now();
            let reply = validate(technical, &yaml).await;
            assert_eq!(reply.status, 400);
            assert!(reply.text().contains(what) && reply.body.len() < 64 << 10, "{what}: {}", reply.text());
            assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
        }
        // Many at once are checked one after another, and health is told meanwhile.
        let large = "a: 1\n".repeat(50_000);
        let mut waiting: Vec<_> = Vec::new();
        for _ in 0..6 {
            let mut client = Client::connect(technical).await;
            let length = large.len().to_string();
            client.head("POST", VALIDATE, &[YAML, ("Content-Length", &length)]).await;
            client.send(large.as_bytes()).await;
            waiting.push(client);
        }
        assert_eq!(request(technical, "GET", "/status/ping", &[], b"").await.status, 200);
        for mut client in waiting {
            assert!(matches!(client.reply("POST").await.status, 400 | 503));
        }
    });
}
