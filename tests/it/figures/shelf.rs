//! A backend that costs little, in a process of its own: objects in memory, large ones generated and never kept. It
//! knows as much of S3 as a worker asks for, and checks no signatures.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    rc::Rc,
};

use bytes::{Buf, Bytes, BytesMut};
use md5::{Digest, Md5};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// Set for the process that is to be one, to the address that it is to have.
const ROLE: &str = "AKUBRA_TEST_SHELF";
const SERVING: &str = "shelf at ";
/// The test that is the process.
const ENTRY: &str = "figures::shelf_process";
/// How many bytes the key `/bucket/huge` has, in parts of `PART`.
pub const HUGE: u64 = 5 << 30;
pub const PART: u64 = 16 << 20;
const CHUNK: usize = 64 << 10;
const MODIFIED: &str = "Last-Modified: Fri, 24 May 2013 00:00:01 GMT\r\n";

/// The process. Ends with its value.
pub struct Shelf {
    child: Child,
    url: String,
}

impl Shelf {
    /// At this address, or at any. With `/bucket/huge` it has that from the beginning.
    pub fn start(address: &str, has_huge: bool) -> Shelf {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([ENTRY, "--exact", "--ignored", "--nocapture"])
            .env(ROLE, format!("{address} {has_huge}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| line.unwrap().split(SERVING).nth(1).map(str::to_string));
        Shelf { child, url: url.expect("the shelf did not start") }
    }

    /// How many it has had so far.
    pub async fn requests(&self) -> u64 {
        let address = self.url.trim_start_matches("http://").parse().unwrap();
        request(address, "GET", "/?requests", &[], b"").await.text().parse().unwrap()
    }

    /// Serves until the parent is gone; returns at once where nobody asked for it.
    pub fn serve() {
        let Ok(role) = std::env::var(ROLE) else { return };
        let (address, has_huge) = role.split_once(' ').unwrap();
        run_without_limit(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            println!("{SERVING}http://{}", listener.local_addr().unwrap());
            let local = tokio::task::LocalSet::new();
            let has_huge = has_huge == "true";
            local.spawn_local(async move {
                let objects = Rc::new(std::cell::RefCell::new(Objects::default()));
                objects.borrow_mut().has_huge = has_huge;
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    tokio::task::spawn_local(Connection { stream, objects: objects.clone() }.serve());
                }
            });
            let parent = || std::io::stdin().read_to_end(&mut Vec::new());
            let gone = async { tokio::task::spawn_blocking(parent).await.unwrap().unwrap() };
            local.run_until(gone).await;
        });
    }
}

impl Endpoint for Shelf {
    fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[derive(Default)]
struct Objects {
    requests: u64,
    kept: HashMap<String, (Bytes, String)>,
    has_huge: bool,
    /// Of the one upload in parts: MD5s and lengths.
    parts: Vec<([u8; 16], u64)>,
    /// What it came to: its ETag and length.
    assembled: Option<(String, u64)>,
}

impl Objects {
    /// ETag, bytes if they are kept, and length.
    fn get(&self, path: &str) -> Option<(String, Option<Bytes>, u64)> {
        if path == "/bucket/huge" {
            let own = format!("{:032x}-{}", 1, HUGE / PART);
            let held = if self.has_huge { Some((own, HUGE)) } else { self.assembled.clone() };
            return held.map(|(etag, length)| (etag, None, length));
        }
        let (bytes, etag) = self.kept.get(path)?;
        Some((etag.clone(), Some(bytes.clone()), bytes.len() as u64))
    }
}

struct Connection {
    stream: TcpStream,
    objects: Rc<std::cell::RefCell<Objects>>,
}

impl Connection {
    async fn serve(mut self) {
        let mut input = BytesMut::with_capacity(CHUNK);
        while let Some(head) = self.head(&mut input).await {
            if self.answer(&head, &mut input).await.is_err() {
                return;
            }
        }
    }

    async fn head(&mut self, input: &mut BytesMut) -> Option<String> {
        loop {
            if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                return Some(String::from_utf8(input.split_to(end + 4).to_vec()).unwrap());
            }
            if self.stream.read_buf(input).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn answer(&mut self, head: &str, input: &mut BytesMut) -> std::io::Result<()> {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let so_far = self.objects.borrow().requests;
        self.objects.borrow_mut().requests += u64::from(query != "requests");
        match (method, query) {
            ("GET", "requests") => self.say(&so_far.to_string()).await,
            ("HEAD", _) => {
                let held = self.objects.borrow().get(path);
                let answer = match held {
                    None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                    Some((etag, _, length)) => {
                        let length = if query == "partNumber=1" { PART } else { length };
                        ok(&format!("ETag: \"{etag}\"\r\n{MODIFIED}Content-Length: {length}\r\n"), "")
                    }
                };
                self.stream.write_all(answer.as_bytes()).await
            }
            ("GET", "tagging") => self.say("<Tagging><TagSet></TagSet></Tagging>").await,
            ("GET", _) => self.give(path, header(head, "range")).await,
            ("POST", "uploads") => self.say("<r><UploadId>1</UploadId></r>").await,
            ("POST", _) => {
                self.take(head, input, true).await?;
                let etag = self.assemble();
                self.say(&format!("<r><ETag>&quot;{etag}&quot;</ETag></r>")).await
            }
            ("PUT", "") => {
                let (md5, _, body) = self.take(head, input, true).await?;
                let etag = hex(&md5);
                let answer = ok(&format!("ETag: \"{etag}\"\r\nContent-Length: 0\r\n"), "");
                self.objects.borrow_mut().kept.insert(path.to_owned(), (body.into(), etag));
                self.stream.write_all(answer.as_bytes()).await
            }
            ("PUT", _) => {
                let (md5, length, _) = self.take(head, input, false).await?;
                let answer = ok(&format!("ETag: \"{}\"\r\nContent-Length: 0\r\n", hex(&md5)), "");
                self.objects.borrow_mut().parts.push((md5, length));
                self.stream.write_all(answer.as_bytes()).await
            }
            _ => self.stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await,
        }
    }

    fn assemble(&self) -> String {
        let mut objects = self.objects.borrow_mut();
        let digests: Vec<u8> = objects.parts.iter().flat_map(|(md5, _)| *md5).collect();
        let etag = format!("{}-{}", hex(&Md5::digest(&digests)), objects.parts.len());
        let length = objects.parts.iter().map(|(_, length)| length).sum();
        objects.assembled = Some((etag.clone(), length));
        etag
    }

    async fn say(&mut self, xml: &str) -> std::io::Result<()> {
        let answer = ok(&format!("Content-Length: {}\r\n", xml.len()), xml);
        self.stream.write_all(answer.as_bytes()).await
    }

    /// Takes a body: its MD5, its length, and its bytes where they are wanted.
    async fn take(
        &mut self,
        head: &str,
        input: &mut BytesMut,
        keep: bool,
    ) -> std::io::Result<([u8; 16], u64, Vec<u8>)> {
        let length: u64 = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
        let (mut left, mut md5, mut kept) = (length, Md5::new(), Vec::new());
        while left > 0 {
            if input.is_empty() && self.stream.read_buf(input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let piece = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            md5.update(&input[..piece]);
            if keep {
                kept.extend_from_slice(&input[..piece]);
            }
            input.advance(piece);
            left -= piece as u64;
            if input.is_empty() {
                input.clear();
                input.reserve(CHUNK);
            }
        }
        Ok((md5.finalize().into(), length, kept))
    }

    async fn give(&mut self, path: &str, range: Option<&str>) -> std::io::Result<()> {
        let held = self.objects.borrow().get(path);
        let Some((etag, bytes, length)) = held else {
            return self.stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        };
        let etag = format!("ETag: \"{etag}\"\r\n{MODIFIED}");
        if let Some(bytes) = bytes {
            let head = ok(&format!("{etag}Content-Length: {length}\r\n"), "");
            return self.stream.write_all(&[head.as_bytes(), &bytes].concat()).await;
        }
        let (start, end) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).unwrap();
        let (start, end): (u64, u64) = (start.parse().unwrap(), end.parse().unwrap());
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\n{etag}Content-Range: bytes {start}-{end}/{length}\r\n\
             Content-Length: {}\r\n\r\n",
            end + 1 - start
        );
        self.stream.write_all(head.as_bytes()).await?;
        let mut chunk = noise(CHUNK).to_vec();
        // No two chunks are equal; parts begin where a chunk does.
        for from in (start..=end).step_by(CHUNK) {
            chunk[..8].copy_from_slice(&from.to_le_bytes());
            let length = (end + 1 - from).min(CHUNK as u64) as usize;
            self.stream.write_all(&chunk[..length]).await?;
        }
        Ok(())
    }
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
