//! Repairs between Ceph's S3 gateway and servers of other kinds, and what its conditions are worth.

use aws_sdk_s3::{
    Client,
    error::ProvideErrorMetadata,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Duration, Instant, sleep},
};

use crate::{
    e2e::{moto, rgw},
    fixture::{
        sync::{BUCKET, command, counts, journaled, printed},
        *,
    },
    sync_stores::conditions,
};

const MIB: usize = 1 << 20;
const TAGS: &str = "k=v%20w&a=%2B";
/// Longest for all repairs of one round: what may still happen is waited for first.
const REPAIRED: Duration = Duration::from_secs(60);

/// A way to a server that can be cut. Ends with its value.
struct Cut {
    url: String,
    open: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Cut {
    async fn before(server: &dyn Endpoint) -> Cut {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (open, is_open) = watch::channel(true);
        let address = server.url().trim_start_matches("http://").to_owned();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (address, mut is_open) = (address.clone(), is_open.clone());
                if !*is_open.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(&address).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Cut { url, open, task }
    }
}

impl Endpoint for Cut {
    fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Repairs until nothing is open; nothing may be parked or dead then.
async fn repair(gateway: &Gateway) {
    let deadline = Instant::now() + REPAIRED;
    loop {
        let output = command(gateway, &["sync", "--once"]).await;
        let counted = counts(gateway).await;
        if counted["open"] == 0 && counted["intents"] == 0 && counted["parked"] == 0 {
            return;
        }
        if Instant::now() > deadline || counted["parked"] != 0 {
            let listed = printed(gateway, &["journal", "list"]).await;
            panic!("{counted}\n{listed}\n{}", String::from_utf8_lossy(&output.stdout));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// What a server says of an object: all that a copy has to bring along.
async fn seen(client: &Client, key: &str, with_tags: bool) -> Option<String> {
    let answer = client.get_object().bucket(BUCKET).key(key).send().await.ok()?;
    let mut metadata: Vec<_> = answer.metadata().unwrap().clone().into_iter().collect();
    metadata.sort();
    let described = format!(
        "{metadata:?} {} {:?} {:?}",
        // What an object without a type has is told by some only.
        answer.content_type().unwrap_or("binary/octet-stream"),
        answer.cache_control(),
        answer.content_disposition()
    );
    let bytes = answer.body.collect().await.ok()?.into_bytes();
    let tags = if with_tags { tags(client, key).await } else { Vec::new() };
    Some(format!("{described} {tags:?} {} bytes, {}", bytes.len(), hex_md5(&bytes)))
}

/// Sorted. RGW says nothing, not even XML, of what was made in parts without tags.
async fn tags(client: &Client, key: &str) -> Vec<String> {
    let mut tags = match client.get_object_tagging().bucket(BUCKET).key(key).send().await {
        Ok(tagging) => tagging.tag_set,
        Err(error) => {
            let raw = error.raw_response().unwrap();
            assert_eq!((raw.status().as_u16(), raw.body().bytes()), (200, Some(&b""[..])), "{error:?}");
            Vec::new()
        }
    };
    tags.sort_by(|one, other| one.key.cmp(&other.key));
    tags.iter().map(|tag| format!("{}={}", tag.key(), tag.value())).collect()
}

async fn put(client: &Client, key: &str, body: Bytes, with_tags: bool) {
    let put = client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(body));
    let put = put.content_type("text/x-test").cache_control("no-store").metadata("colour", "blue");
    let put = put.content_disposition("inline; filename=\"a\"").metadata("empty-and-more", "a  b");
    let put = if with_tags { put.tagging(TAGS) } else { put };
    put.send().await.unwrap();
}

/// In parts of 6 MiB, and a short one.
async fn put_in_parts(client: &Client, key: &str, with_tags: bool) {
    let begin = client.create_multipart_upload().bucket(BUCKET).key(key).metadata("colour", "red");
    let begin = if with_tags { begin.tagging(TAGS) } else { begin };
    let id = begin.send().await.unwrap().upload_id.unwrap();
    let mut parts = Vec::new();
    for (index, length) in [6 * MIB, 6 * MIB, MIB].into_iter().enumerate() {
        let number = index as i32 + 1;
        let part = client.upload_part().bucket(BUCKET).key(key).upload_id(&id).part_number(number);
        let sent = part.body(ByteStream::from(noise(length))).send().await.unwrap();
        parts.push(CompletedPart::builder().part_number(number).e_tag(sent.e_tag.unwrap()).build());
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id);
    complete.multipart_upload(parts).send().await.unwrap();
}

async fn etag(client: &Client, key: &str) -> String {
    client.head_object().bucket(BUCKET).key(key).send().await.unwrap().e_tag.unwrap()
}

/// Writes that miss one of the two, each in turn, and all of them once it is back.
async fn repairs_between(one: &dyn Endpoint, other: &dyn Endpoint, with_tags: bool) {
    let cuts = [Cut::before(one).await, Cut::before(other).await];
    let clients = [s3_client(&one.url()), s3_client(&other.url())];
    let region = Region::new("region", &[("main", 1.0)]).default_region().set("Consistency", "strong");
    let setup = journaled(&[("main", &[&cuts[0], &cuts[1]])], &[region]).set_yaml("Journal", "{Settle: 1s}");
    let mut gateway = setup.set_yaml("Ejection", "{Enabled: false}").start().await;
    let client = s3_client(&gateway.url());
    for (missing, cut) in cuts.iter().enumerate() {
        let key = |name: &str| format!("{missing}/{name}");
        for name in ["deleted", "overwritten"] {
            put(&client, &key(name), Bytes::from_static(b"old"), with_tags).await;
        }
        repair(&gateway).await;
        cut.open.send_replace(false);
        put(&client, &key("small ż+?"), Bytes::from_static(b"new"), with_tags).await;
        put(&client, &key("empty"), Bytes::new(), false).await;
        put(&client, &key("large"), noise(12 * MIB + 1), with_tags).await;
        put(&client, &key("overwritten"), Bytes::from_static(b"newer"), false).await;
        put(&client, &key("overwritten"), Bytes::from_static(b"newest"), with_tags).await;
        client.delete_object().bucket(BUCKET).key(key("deleted")).send().await.unwrap();
        cut.open.send_replace(true);
        // These go to one of the two by their keys.
        let in_parts: Vec<String> = (0..4).map(|number| key(&format!("parts {number}"))).collect();
        for key in &in_parts {
            put_in_parts(&client, key, with_tags).await;
        }
        repair(&gateway).await;
        let mut keys = ["small ż+?", "empty", "large", "overwritten"].map(key).to_vec();
        keys.extend(in_parts.iter().cloned());
        for key in &keys {
            let there = seen(&clients[0], key, with_tags).await;
            assert!(there.is_some(), "{key}");
            assert_eq!(there, seen(&clients[1], key, with_tags).await, "{key}");
        }
        for client in &clients {
            assert_eq!(seen(client, &key("deleted"), false).await, None);
        }
        // Equal only where the source says how long its parts are.
        for key in &in_parts {
            println!("{key}: {} {}", etag(&clients[0], key).await, etag(&clients[1], key).await);
        }
    }
    gateway.stop().await;
}

/// S3's name of an error.
fn code(error: Option<impl ProvideErrorMetadata>) -> String {
    error.map_or("done".to_owned(), |error| error.code().unwrap_or("no code").to_owned())
}

/// What RGW makes of the conditions that a worker's changes have: those that it takes must hold.
async fn conditions(rgw: &dyn Endpoint) {
    let client = s3_client(&rgw.url());
    let put =
        |key: &'static str| client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x"));
    put("there").send().await.unwrap();
    let of = |key: &'static str| client.delete_object().bucket(BUCKET).key(key);
    let said = [
        ("PUT If-None-Match, there", code(put("there").if_none_match("*").send().await.err())),
        ("PUT If-None-Match, not there", code(put("new").if_none_match("*").send().await.err())),
        ("PUT If-Match, other", code(put("there").if_match("\"0\"").send().await.err())),
        ("PUT If-Match, not there", code(put("nowhere").if_match("\"0\"").send().await.err())),
        ("DELETE If-Match, other", code(of("there").if_match("\"0\"").send().await.err())),
    ];
    for (what, came) in &said {
        println!("{what}: {came}");
    }
    let came = |what: &str| said.iter().find(|(known, _)| *known == what).unwrap().1.as_str();
    assert_eq!(came("PUT If-None-Match, there"), "PreconditionFailed");
    assert_eq!(came("PUT If-None-Match, not there"), "done");
    assert_eq!(came("PUT If-Match, other"), "PreconditionFailed");
}

#[test]
#[ignore = "needs Ceph: `make e2e-rgw`"]
fn what_rgw_or_another_kind_of_server_misses_is_repaired() {
    run_without_limit(async {
        let (rgw, folders, moto) = (rgw().await, S3Backend::start().await, moto().await);
        for server in [&rgw as &dyn Endpoint, &folders, &moto] {
            s3_client(&server.url()).create_bucket().bucket(BUCKET).send().await.unwrap();
        }
        conditions(&rgw).await;
        conditions::a_changed_target_is_left_alone(&folders, &rgw).await;
        conditions::a_changed_target_is_left_alone(&rgw, &folders).await;
        repairs_between(&rgw, &folders, false).await;
        // RGW still holds the same bytes without tags where they are written with tags now.
        repairs_between(&rgw, &moto, true).await;
    });
}
