//! A real S3 client against real S3 servers through the gateway: what it stores is on every replica, and
//! what it reads is what it stored.

use aws_sdk_s3::{
    Client as S3Client,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier},
};
use bytes::Bytes;

use crate::fixture::*;

const BUCKET: &str = "bucket";

/// Keys that make trouble when a path is decoded or encoded once too often.
const KEYS: [&str; 8] =
    ["plain", "a/b/c", "with space", "100% of it", "a+b=c&d", "grün/日本語", "q?x=y", "tilde~(paren)'quote'"];

async fn backends<const N: usize>() -> [S3Backend; N] {
    let mut backends = Vec::new();
    for _ in 0..N {
        backends.push(S3Backend::with_bucket(BUCKET).await);
    }
    backends.try_into().unwrap_or_else(|_| unreachable!())
}

async fn put(client: &S3Client, key: &str, body: &Bytes) {
    client.put_object().bucket(BUCKET).key(key).body(body.clone().into()).send().await.unwrap();
}

async fn get(client: &S3Client, key: &str) -> Bytes {
    let answer = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().into_bytes()
}

async fn assert_replicas(backends: &[&S3Backend], key: &str, body: &Bytes) {
    for backend in backends {
        assert_eq!(backend.object(BUCKET, key).await.as_ref(), Some(body), "{key:?} on {}", backend.url());
    }
}

#[test]
fn objects_are_on_both_replicas_and_read_as_they_were_written() {
    run(async {
        let [a, b] = backends().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let client = s3_client(&gateway.url());
        for (number, key) in KEYS.into_iter().enumerate() {
            let body = noise([0, 1, 4096, 100_000, 3_000_000][number % 5]);
            put(&client, key, &body).await;
            assert_eq!(get(&client, key).await, body, "{key:?}");
        }
        gateway.stop_in_sync().await;
        for (number, key) in KEYS.into_iter().enumerate() {
            let body = noise([0, 1, 4096, 100_000, 3_000_000][number % 5]);
            assert_replicas(&[&a, &b], key, &body).await;
        }
    });
}

#[test]
fn metadata_heads_and_ranges_work() {
    run(async {
        let [a, b] = backends().await;
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let client = s3_client(&gateway.url());
        let body = noise(50_000);
        let request = client.put_object().bucket(BUCKET).key("key").metadata("colour", "blue");
        request.content_type("image/png").body(body.clone().into()).send().await.unwrap();
        let head = client.head_object().bucket(BUCKET).key("key").send().await.unwrap();
        assert_eq!((head.content_length(), head.content_type()), (Some(50_000), Some("image/png")));
        assert_eq!(head.metadata().unwrap()["colour"], "blue");
        assert_eq!(head.e_tag().unwrap(), format!("\"{}\"", hex_md5(&body)));
        let range =
            client.get_object().bucket(BUCKET).key("key").range("bytes=1000-1999").send().await.unwrap();
        assert_eq!(range.body.collect().await.unwrap().into_bytes(), body.slice(1000..2000));
        let missing = client.head_object().bucket(BUCKET).key("none").send().await.unwrap_err();
        assert!(missing.into_service_error().is_not_found());
    });
}

#[test]
fn a_checksum_that_does_not_fit_is_refused_by_all_and_no_divergence() {
    run(async {
        let [a, b] = backends().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let request = s3_client(&gateway.url()).put_object().bucket(BUCKET).key("key");
        let request = request.content_md5("1B2M2Y8AsgTpgAmY7PhCfg==").body(Bytes::from("hello").into());
        assert!(request.send().await.is_err());
        gateway.stop_in_sync().await;
    });
}

#[test]
fn deletes_reach_both_replicas() {
    run(async {
        let [a, b] = backends().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let client = s3_client(&gateway.url());
        for key in ["one", "two", "three"] {
            put(&client, key, &noise(100)).await;
        }
        client.delete_object().bucket(BUCKET).key("one").send().await.unwrap();
        let objects = ["two", "three"].map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
        let delete = Delete::builder().set_objects(Some(objects.into())).build().unwrap();
        client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
        gateway.stop_in_sync().await;
        for backend in [&a, &b] {
            for key in ["one", "two", "three"] {
                assert_eq!(backend.object(BUCKET, key).await, None);
            }
        }
    });
}

#[test]
fn listings_and_buckets_of_one_cluster_work() {
    run(async {
        let [a, b] = backends().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let client = s3_client(&gateway.url());
        client.create_bucket().bucket("another").send().await.unwrap();
        client.head_bucket().bucket("another").send().await.unwrap();
        for key in ["x/1", "x/2", "y"] {
            put(&client, key, &noise(10)).await;
        }
        // Whichever backend lists must have all of them.
        for backend in [&a, &b] {
            backend.wait_for_object(BUCKET, "y").await;
        }
        let listing = client.list_objects_v2().bucket(BUCKET).prefix("x/").send().await.unwrap();
        let keys: Vec<_> = listing.contents().iter().filter_map(|object| object.key()).collect();
        assert_eq!(keys, ["x/1", "x/2"]);
        let buckets = client.list_buckets().send().await.unwrap();
        assert_eq!(buckets.buckets().len(), 2);
        client.delete_bucket().bucket("another").send().await.unwrap();
        gateway.stop_in_sync().await;
        for backend in [&a, &b] {
            assert!(!backend.folder().join("another").exists());
        }
    });
}

#[test]
fn a_copy_is_made_on_both_replicas() {
    run(async {
        let [a, b] = backends().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let client = s3_client(&gateway.url());
        let body = noise(100_000);
        put(&client, "source", &body).await;
        for backend in [&a, &b] {
            backend.wait_for_object(BUCKET, "source").await;
        }
        let copy = client.copy_object().bucket(BUCKET).key("copy").copy_source("bucket/source");
        copy.send().await.unwrap();
        gateway.stop_in_sync().await;
        assert_replicas(&[&a, &b], "copy", &body).await;
    });
}

#[test]
fn a_multipart_upload_is_on_one_replica_and_recorded() {
    run(async {
        let [a, b] = backends().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let client = s3_client(&gateway.url());
        let parts = [noise(5 << 20), noise(1000)];
        let upload = client.create_multipart_upload().bucket(BUCKET).key("key").send().await.unwrap();
        let id = upload.upload_id().unwrap();
        let mut completed = CompletedMultipartUpload::builder();
        for (number, part) in (1..).zip(&parts) {
            let request = client.upload_part().bucket(BUCKET).key("key").upload_id(id).part_number(number);
            let answer = request.body(part.clone().into()).send().await.unwrap();
            let part = CompletedPart::builder().part_number(number).e_tag(answer.e_tag().unwrap());
            completed = completed.parts(part.build());
        }
        let complete = client.complete_multipart_upload().bucket(BUCKET).key("key").upload_id(id);
        complete.multipart_upload(completed.build()).send().await.unwrap();
        // The other replica's 404 makes no difference to a reader.
        let body = [parts[0].as_ref(), parts[1].as_ref()].concat();
        for _ in 0..4 {
            assert_eq!(get(&client, "key").await, body);
        }
        let records = gateway.stop().await.records;
        let completion = records.iter().find(|record| record["method"] == "POST").unwrap();
        assert_eq!((&completion["bucket"], &completion["key"]), (&BUCKET.into(), &"key".into()));
        let (failed, good) = (&completion["failedhost"], &completion["successhost"]);
        let [a_url, b_url] = [a.url().into(), b.url().into()];
        assert!([(&a_url, &b_url), (&b_url, &a_url)].contains(&(failed, good)), "{completion}");
    });
}

#[test]
fn a_sharded_region_keeps_each_object_on_both_replicas_of_its_cluster() {
    run(async {
        let [a, b, c, d] = backends().await;
        let region = Region::new("sharded", &[("one", 0.75), ("two", 0.25)]).default_region();
        let setup = Setup::new().cluster("one", &[&a, &b]).cluster("two", &[&c, &d]).region(region);
        let mut gateway = setup.start().await;
        let client = s3_client(&gateway.url());
        let keys: Vec<String> = KEYS
            .iter()
            .map(|key| key.to_string())
            .chain((0..20).map(|number| format!("n/{number}")))
            .collect();
        for key in &keys {
            let body = Bytes::from(key.clone());
            put(&client, key, &body).await;
            assert_eq!(get(&client, key).await, body);
        }
        client.delete_object().bucket(BUCKET).key("n/0").send().await.unwrap();
        assert!(client.list_objects_v2().bucket(BUCKET).send().await.is_err());
        gateway.stop_in_sync().await;
        let mut on_one = 0;
        for key in keys.iter().filter(|key| *key != "n/0") {
            let body = Some(Bytes::from(key.clone()));
            let one = a.object(BUCKET, key).await == body;
            let (has, has_not) = if one { ([&a, &b], [&c, &d]) } else { ([&c, &d], [&a, &b]) };
            assert_replicas(&has, key, body.as_ref().unwrap()).await;
            for backend in has_not {
                assert_eq!(backend.object(BUCKET, key).await, None);
            }
            on_one += usize::from(one);
        }
        assert!(on_one > 0 && on_one < keys.len() - 1);
    });
}

#[test]
fn a_body_of_unknown_length_is_streamed() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body");
        let body = noise(2_000_000);
        std::fs::write(&file, &body).unwrap();
        let stream = ByteStream::read_from().path(&file).build().await.unwrap();
        let put = s3_client(&gateway.url()).put_object().bucket(BUCKET).key("key").body(stream);
        put.customize().disable_payload_signing().send().await.unwrap();
        gateway.stop_in_sync().await;
        // With or without the client's own framing inside, both replicas got the same bytes.
        let (at_a, at_b) = (a.stored("/bucket/key").unwrap(), b.stored("/bucket/key").unwrap());
        assert_eq!((at_a.md5, at_a.length), (at_b.md5, at_b.length));
    });
}
