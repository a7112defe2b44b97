//! `akubra sync --misplaced`: objects that reads found on another cluster.

use aws_sdk_s3::primitives::ByteStream;

use crate::fixture::{sync::*, *};

#[test]
fn an_object_that_a_read_found_elsewhere_moves_home() {
    run(async {
        let old = S3Backend::with_bucket(BUCKET).await;
        let (a, b) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let weighted = |weight_of_old, weight_of_new| {
            let region = Region::new("region", &[("old", weight_of_old), ("new", weight_of_new)]);
            journaled(&[("old", &[&old]), ("new", &[&a, &b])], &[region.default_region()])
        };
        let mut gateway = weighted(1.0, 0.0).start().await;
        put(&gateway, "key", b"body").await;
        gateway.reload(&weighted(0.0, 1.0)).await;
        let client = s3_client(&gateway.url());
        client.get_object().bucket(BUCKET).key("key").send().await.unwrap();
        wait_for_open(&gateway, 1).await;

        printed(&gateway, &["sync", "--once"]).await;
        assert!(old.object(BUCKET, "key").await.is_some(), "moved without being asked to");
        printed(&gateway, &["sync", "--once", "--misplaced"]).await;
        assert_eq!(old.object(BUCKET, "key").await, None);
        for backend in [&a, &b] {
            assert_eq!(backend.object(BUCKET, "key").await.as_deref(), Some(&b"body"[..]));
        }
        assert_eq!(counts(&gateway).await["open"], 0);
        gateway.stop().await;
    });
}

#[test]
fn what_moves_home_stays_on_a_backend_that_both_clusters_have() {
    run(async {
        let (old, shared) = (S3Backend::with_bucket(BUCKET).await, S3Backend::with_bucket(BUCKET).await);
        let new = S3Backend::with_bucket(BUCKET).await;
        let weighted = |weight_of_old, weight_of_new| {
            let region = Region::new("region", &[("old", weight_of_old), ("new", weight_of_new)]);
            journaled(&[("old", &[&old, &shared]), ("new", &[&shared, &new])], &[region.default_region()])
        };
        let mut gateway = weighted(1.0, 0.0).start().await;
        put(&gateway, "key", b"body").await;
        old.wait_for_object(BUCKET, "key").await;
        shared.wait_for_object(BUCKET, "key").await;
        gateway.reload(&weighted(0.0, 1.0)).await;
        // Found on a backend of both, by the name of the old one.
        shared.client().delete_object().bucket(BUCKET).key("key").send().await.unwrap();
        s3_client(&gateway.url()).get_object().bucket(BUCKET).key("key").send().await.unwrap();
        wait_for_open(&gateway, 1).await;
        let body = ByteStream::from_static(b"body");
        let again = shared.client().put_object().bucket(BUCKET).key("key").body(body);
        again.content_type("text/x-test").metadata("colour", "blue").send().await.unwrap();

        printed(&gateway, &["sync", "--once", "--misplaced"]).await;
        for backend in [&shared, &new] {
            assert_eq!(backend.object(BUCKET, "key").await.as_deref(), Some(&b"body"[..]));
        }
        assert_eq!(old.object(BUCKET, "key").await, None);
        assert_eq!(counts(&gateway).await["open"], 0);
        gateway.stop().await;
    });
}
