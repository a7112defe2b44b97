//! One client: it has keys of its own, makes one request at a time, and writes down what it was told.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use chrono::Utc;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::{net::TcpStream, sync::watch, time::Instant};

use super::history::{History, Made, Reading, Through, Version, Write, excerpt};
use crate::fixture::{Client, Reply};

pub const KEYS: usize = 6;
/// Of a client, what is there from the beginning and never changes, to be copied.
pub const ORIGINALS: usize = 3;
/// Backends here take parts of any length.
const PARTS: [usize; 3] = [20, 40_000, 200_000];
/// As short as all parts but the last may be on real storages.
const LARGE: usize = 5 << 20;

/// Where a gateway serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    pub address: SocketAddr,
    pub through: Through,
}

/// How often the state of backends has changed: odd while one of them misbehaves.
pub type Sickness = Arc<AtomicU64>;

/// What reads came to.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    pub answered: usize,
    /// What an acknowledged write had replaced, while the README allows it: a backend misbehaves, the gateway is another
    /// than that of the write, nobody knows what became of the last write, or that was a `?delete`.
    pub older: usize,
    pub wrong: Vec<String>,
}

impl Reads {
    pub fn add(&mut self, other: Reads) {
        self.answered += other.answered;
        self.older += other.older;
        self.wrong.extend(other.wrong);
    }
}

/// What one client did.
#[derive(Debug, Default)]
pub struct Deeds {
    pub histories: BTreeMap<String, History>,
    pub reads: Reads,
}

/// What all clients are told.
#[derive(Clone)]
pub struct World {
    /// By place.
    pub doors: Vec<watch::Receiver<Door>>,
    pub writing: Arc<AtomicBool>,
    pub sickness: Sickness,
    pub seed: u64,
}

struct Caller {
    name: usize,
    world: World,
    place: usize,
    open: Option<(Client, Door)>,
    random: StdRng,
    number: u64,
    deeds: Deeds,
}

/// One request and what came of it.
struct Asked {
    reply: Option<Reply>,
    through: Through,
    begun: Instant,
    ended: Instant,
    clock: i64,
}

impl Asked {
    fn is_good(&self) -> bool {
        let is_good = |reply: &Reply| (200..300).contains(&reply.status) && reply.complete;
        // They send the status before they know the outcome.
        self.reply.as_ref().is_some_and(|reply| is_good(reply) && !reply.text().contains("<Error>"))
    }

    fn write(&self, kind: &'static str, made: Made) -> Write {
        let Asked { through, begun, ended, clock, .. } = *self;
        Write { kind, made, acknowledged: self.is_good(), through, begun, ended, clock }
    }
}

/// The path of what a client copies.
pub fn original(client: usize, number: usize) -> (String, Version) {
    let path = format!("/bucket/{client}-original-{number}");
    let version = Version { name: format!("{path} ").into(), length: 5000 * (number + 1) };
    (path, version)
}

pub async fn client(name: usize, world: World) -> Deeds {
    let random = StdRng::seed_from_u64(world.seed ^ name as u64);
    let place = name % world.doors.len();
    let deeds = Deeds::default();
    let mut caller = Caller { name, world, place, open: None, random, number: 0, deeds };
    while caller.world.writing.load(Relaxed) {
        let done = match caller.random.gen_range(0..100) {
            0..34 => caller.put().await,
            34..42 => caller.delete().await,
            42..47 => caller.delete_several().await,
            47..56 => caller.put_in_parts().await,
            56..64 => caller.copy().await,
            64..73 => caller.tag().await,
            _ => caller.read().await,
        };
        if done.is_none() {
            // No gateway is there.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        caller.go_elsewhere().await;
    }
    caller.deeds
}

impl Caller {
    fn key(&mut self) -> String {
        format!("/bucket/{}-{}", self.name, self.random.gen_range(0..KEYS))
    }

    /// No two have the same bytes, nor the same length: else they could not be told apart where only the outcome of
    /// either is unknown.
    fn version(&mut self, key: &str, length: usize) -> Version {
        self.number += 1;
        let name = format!("{key} {} ", self.number).into();
        Version { name, length: length + self.random.gen_range(0..4000) }
    }

    fn tags(&mut self) -> String {
        self.number += 1;
        format!("by={}&number={}", self.name, self.number)
    }

    fn note(&mut self, key: &str, write: Write) {
        self.deeds.histories.entry(key.to_owned()).or_default().push(write);
    }

    /// A balancer may send it to another gateway, at once or after a while.
    async fn go_elsewhere(&mut self) {
        let places = self.world.doors.len();
        if places == 1 || !self.random.gen_bool(0.02) {
            return;
        }
        self.place = (self.place + 1) % places;
        self.open = None;
        if self.random.gen_bool(0.5) {
            tokio::time::sleep(Duration::from_millis(self.random.gen_range(0..6000))).await;
        }
    }

    /// `None` = nothing was sent.
    async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Asked> {
        if self.open.is_none() {
            let door = *self.world.doors[self.place].borrow();
            let stream = TcpStream::connect(door.address).await.ok()?;
            self.open = Some((Client::from(stream, door.address), door));
        }
        let (client, door) = self.open.as_mut()?;
        let length = body.len().to_string();
        let headers = [headers, &[("Content-Length", length.as_str())]].concat();
        let mut request = client.head_text(method, target, &headers).into_bytes();
        request.extend_from_slice(body);
        let (begun, clock) = (Instant::now(), Utc::now().timestamp_millis());
        client.try_send(&request).await;
        let reply = client.reply_or_end(method).await;
        let asked = Asked { reply, through: door.through, begun, ended: Instant::now(), clock };
        let goes_on = |reply: &Reply| reply.complete && reply.header("connection") != Some("close");
        if !asked.reply.as_ref().is_some_and(goes_on) {
            self.open = None;
        }
        Some(asked)
    }

    async fn put(&mut self) -> Option<()> {
        let key = self.key();
        let length = [20, 4096, 200_000][self.random.gen_range(0..3)];
        let version = self.version(&key, length);
        let tags = if self.random.gen_bool(0.3) { self.tags() } else { String::new() };
        let headers: &[(&str, &str)] = if tags.is_empty() { &[] } else { &[("x-amz-tagging", &tags)] };
        let asked = self.ask("PUT", &key, headers, &version.bytes()).await?;
        self.note(&key, asked.write("PUT", Made::Object { versions: vec![version], tags: vec![tags] }));
        Some(())
    }

    async fn delete(&mut self) -> Option<()> {
        let key = self.key();
        let asked = self.ask("DELETE", &key, &[], b"").await?;
        self.note(&key, asked.write("DELETE", Made::Nothing));
        Some(())
    }

    async fn delete_several(&mut self) -> Option<()> {
        let mut numbers: Vec<usize> = (0..KEYS).collect();
        numbers.shuffle(&mut self.random);
        numbers.truncate(self.random.gen_range(2..4));
        let names: Vec<String> = numbers.iter().map(|number| format!("{}-{number}", self.name)).collect();
        let objects = names.iter().map(|name| format!("<Object><Key>{name}</Key></Object>"));
        let body = format!("<Delete>{}</Delete>", objects.collect::<String>());
        let asked = self.ask("POST", "/bucket?delete", &[], body.as_bytes()).await?;
        let text = asked.reply.as_ref().map(Reply::text).unwrap_or_default();
        for name in names {
            let write = asked.write("?delete", Made::Nothing);
            let is_told = text.contains(&format!("<Deleted><Key>{name}</Key>"));
            let acknowledged = write.acknowledged && is_told;
            self.note(&format!("/bucket/{name}"), Write { acknowledged, ..write });
        }
        Some(())
    }

    /// What fails before the completion, or is aborted, has written nothing.
    async fn put_in_parts(&mut self) -> Option<()> {
        let key = self.key();
        let part = if self.random.gen_ratio(1, 40) { LARGE } else { PARTS[self.random.gen_range(0..3)] };
        let count = if part == LARGE { 1 } else { self.random.gen_range(0..3) };
        let version = self.version(&key, part * count);
        let bytes = version.bytes();
        let (parts, last) = bytes.split_at(part * count);
        let parts = parts.chunks(part).chain([last]);
        let tags = if self.random.gen_bool(0.3) { self.tags() } else { String::new() };
        let headers: &[(&str, &str)] = if tags.is_empty() { &[] } else { &[("x-amz-tagging", &tags)] };
        let begun = self.ask("POST", &format!("{key}?uploads"), headers, b"").await?;
        let text = begun.reply.as_ref().map(Reply::text).unwrap_or_default();
        let id = text.split_once("<UploadId>").and_then(|(_, rest)| rest.split_once("</UploadId>"));
        let Some((id, _)) = id.filter(|_| begun.is_good()) else { return Some(()) };
        let mut list = String::new();
        for (number, bytes) in (1..).zip(parts) {
            let target = format!("{key}?partNumber={number}&uploadId={id}");
            let asked = self.ask("PUT", &target, &[], bytes).await?;
            let etag = asked.reply.as_ref().and_then(|reply| reply.header("etag"));
            let Some(etag) = etag.filter(|_| asked.is_good()) else { return Some(()) };
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
        }
        let target = format!("{key}?uploadId={id}");
        if self.random.gen_bool(0.1) {
            self.ask("DELETE", &target, &[], b"").await?;
            return Some(());
        }
        let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let asked = self.ask("POST", &target, &[], list.as_bytes()).await?;
        self.note(&key, asked.write("in parts", Made::Object { versions: vec![version], tags: vec![tags] }));
        Some(())
    }

    async fn copy(&mut self) -> Option<()> {
        let (key, other) = (self.key(), self.key());
        let mut headers = Vec::new();
        let (source, versions, mut tags) = if other == key || self.random.gen_bool(0.6) {
            let (path, version) = original(self.name, self.random.gen_range(0..ORIGINALS));
            (path, vec![version], vec![String::new()])
        } else {
            let made = self.deeds.histories.get(&other).map(|history| (history.versions(), history.tags()));
            let (versions, tags) = made.unwrap_or_default();
            (other, versions, tags)
        };
        let own = self.tags();
        if self.random.gen_bool(0.5) {
            headers.extend([("x-amz-tagging-directive", "REPLACE"), ("x-amz-tagging", &own)]);
            tags = vec![own.clone()];
        }
        headers.push(("x-amz-copy-source", &source));
        let asked = self.ask("PUT", &key, &headers, b"").await?;
        self.note(&key, asked.write("copy", Made::Object { versions, tags }));
        Some(())
    }

    async fn tag(&mut self) -> Option<()> {
        let key = self.key();
        let target = format!("{key}?tagging");
        if self.random.gen_bool(0.2) {
            let asked = self.ask("DELETE", &target, &[], b"").await?;
            self.note(&key, asked.write("?tagging", Made::Tags(String::new())));
            return Some(());
        }
        let tags = self.tags();
        let tag = |(key, value)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
        let set: String = tags.split('&').filter_map(|tag| tag.split_once('=')).map(tag).collect();
        let body = format!("<Tagging><TagSet>{set}</TagSet></Tagging>");
        let asked = self.ask("PUT", &target, &[], body.as_bytes()).await?;
        self.note(&key, asked.write("?tagging", Made::Tags(tags)));
        Some(())
    }

    /// It may give what an acknowledged write has replaced, but not where the gateway of that write answers, nothing was
    /// tried since, and no backend misbehaves. It never gives what nobody wrote.
    async fn read(&mut self) -> Option<()> {
        let key = self.key();
        let before = self.world.sickness.load(Relaxed);
        let asked = self.ask("GET", &key, &[], b"").await?;
        let is_quiet = before.is_multiple_of(2) && before == self.world.sickness.load(Relaxed);
        let found = match asked.reply.as_ref().filter(|reply| reply.complete) {
            Some(reply) if reply.status == 200 => Some(&reply.body[..]),
            Some(reply) if reply.status == 404 => None,
            _ => return Some(()),
        };
        let Deeds { histories, reads } = &mut self.deeds;
        let history = histories.entry(key.clone()).or_default();
        let is_known = history.writes().last().is_some_and(|last| {
            let is_ordered = !last.is_of_tags() && last.kind != "?delete";
            last.acknowledged && is_ordered && last.through == asked.through
        });
        reads.answered += 1;
        match history.reading(found) {
            Reading::Right => {}
            Reading::Older if !(is_quiet && is_known) => reads.older += 1,
            _ => {
                let found = excerpt(found);
                reads.wrong.push(format!("a GET of {key} gave {found}: {:#?}", history.told()));
            }
        }
        Some(())
    }
}
