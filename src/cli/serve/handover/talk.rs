//! What either side of a hand-over says and hears: lines on a unix socket, one of them with descriptors.
//!
//! What is read is bounded, in bytes and in descriptors; who is heard is whom the kernel says.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use anyhow::ensure;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

pub const MOST_SOCKETS: usize = 16;
pub const LONGEST_LINE: usize = 8 << 10;

/// The other's process id, if it runs as the same user or as root.
pub fn check_peer(stream: &UnixStream) -> anyhow::Result<u32> {
    let other = stream.peer_cred()?;
    let own = rustix::process::geteuid().as_raw();
    ensure!(
        other.uid() == own || other.uid() == 0,
        "it runs as user {}, neither as {own} nor as root",
        other.uid()
    );
    Ok(other.pid().and_then(|pid| pid.try_into().ok()).unwrap_or(0))
}

/// Sends all bytes at once, with descriptors.
pub async fn send_with(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
    let fits = bytes.len() <= LONGEST_LINE && fds.len() <= MOST_SOCKETS;
    ensure!(fits, "too many sockets for one offer");
    let sent = stream.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors"));
        }
        Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
    });
    ensure!(sent.await? == bytes.len(), "the offer was sent in part only");
    Ok(())
}

/// Receives one line and the descriptors that come with it.
pub async fn receive_with(stream: &UnixStream) -> anyhow::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut fds) = (Vec::new(), Vec::new());
    while line.last() != Some(&b'\n') {
        let mut piece = [0; 4096];
        let count =
            stream.async_io(Interest::READABLE, || receive_piece(stream, &mut piece, &mut fds)).await?;
        ensure!(count > 0, "it has closed the connection");
        line.extend_from_slice(&piece[..count]);
        ensure!(line.len() <= LONGEST_LINE && fds.len() <= MOST_SOCKETS, "it offers too much");
    }
    Ok((line, fds))
}

fn receive_piece(stream: &UnixStream, piece: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let pieces = &mut [IoSliceMut::new(piece)];
    let received = recvmsg(stream, pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("it sends too many descriptors"));
    }
    Ok(received.bytes)
}

pub async fn say(stream: &mut UnixStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes()).await
}

/// The other's next line. It says nothing more before it has an answer.
pub async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if stream.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.len() > LONGEST_LINE {
            return Err(io::Error::other("it says too much"));
        }
    }
    line.pop();
    String::from_utf8(line).map_err(io::Error::other)
}

/// What a log can show and one line can hold.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(1000).collect()
}
