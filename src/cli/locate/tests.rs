//! What an operator reads, for objects, buckets, and hostile keys.

use super::*;
use crate::topology::fixture::{cluster, config, region, url};

fn three_clusters() -> Config {
    let mut config = config(
        vec![cluster("c1", &["b1"]), cluster("c2", &["b2", "b3:9000"]), cluster("c3", &["b4"])],
        vec![
            region("main", &[("c1", 1.0), ("c2", 1.0), ("c3", 1.0)], &["s3.example.com"]),
            region("rest", &[("c1", 1.0)], &[]),
        ],
    );
    config.regions[1].read_policy = crate::config::ReadPolicy::Race;
    config.maintained_backends = vec![url("b3:9000")];
    config
}

fn located(host: Option<&str>, target: &str) -> anyhow::Result<String> {
    let mut out = Vec::new();
    run(&three_clusters(), host, target, &mut out)?;
    Ok(String::from_utf8(out)?)
}

#[test]
fn an_object_is_explained_from_host_to_backends() {
    assert_eq!(
        located(Some("S3.example.com:8080"), "/b/k3").unwrap(),
        "\
region       main (the Host is its domain s3.example.com)
bucket       b
key          k3
ring key     /b/k3
hash         0x9685ccb2 (2525351090)

clusters of the region and their shares of the ring:
   36.33 %  c1
   29.67 %  c2  <- home
   34.00 %  c3

sought in this order:
  1. c2 (home)
       http://b2
       http://b3:9000  (under maintenance: gets nothing)
  2. c1 (backtrack)
       http://b1

GET          asks one backend of c2 after the other, then backtracks to c1
PUT          goes to every backend of c2 at once; no other cluster is asked
DELETE       goes to every backend of every cluster of the region
"
    );
}

#[test]
fn both_styles_and_the_default_region_say_why() {
    let by_host = located(Some("b.s3.example.com"), "/k3").unwrap();
    assert!(by_host.contains("virtual-host style: bucket b before its domain s3.example.com"), "{by_host}");
    assert!(by_host.contains("ring key     /b/k3"), "{by_host}");
    for host in [None, Some("elsewhere")] {
        let by_default = located(host, "/b/k3").unwrap();
        assert!(by_default.contains("rest (the default region"), "{by_default}");
        assert!(
            by_default.contains("asks all backends of c1 at once; no other cluster is asked"),
            "{by_default}"
        );
    }
}

#[test]
fn buckets_are_not_hashed() {
    let bucket = located(Some("s3.example.com"), "/b/").unwrap();
    assert!(bucket.contains("not hashed"), "{bucket}");
    assert!(bucket.contains("GET          is refused with 501"), "{bucket}");
    assert!(bucket.contains("DELETE       goes to every backend of every cluster"), "{bucket}");
}

#[test]
fn versions_stay_at_home() {
    let version = located(Some("s3.example.com"), "/b/k3?versionId=v%1b1").unwrap();
    assert!(version.contains("version      v\\u{1b}1"), "{version}");
    assert!(version.contains("DELETE       goes to every backend of c2"), "{version}");
}

#[test]
fn nothing_in_a_key_reaches_the_terminal() {
    let hostile = located(None, "/b/%1b%5b2J%00%ff%e2%80%ae%0a'%22\\%c5%82").unwrap();
    assert!(hostile.contains("key          \\u{1b}[2J\\0\\xff\\u{202e}\\n'\"\\\\ł\n"), "{hostile}");
    assert!(!hostile.chars().any(|c| c.is_control() && c != '\n'), "{hostile:?}");
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    for (host, target) in [(None, "b/k"), (None, "/b/%zz"), (None, "/b/#"), (Some("a b"), "/b/k")] {
        assert!(located(host, target).is_err(), "{host:?} {target}");
    }
}
